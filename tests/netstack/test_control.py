from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.control import (
    HEARTBEAT_ACK,
    MAX_CONTROL_LENGTH,
    MAX_ERROR_LENGTH,
    Disconnect,
    Heartbeat,
    PeerListRequest,
    Refused,
    Register,
    encode_assigned,
    encode_error,
    encode_peer_list,
    parse_control,
)

MAC = bytes.fromhex("525400aabbcc")


def dump(**fields):
    return json.dumps(fields).encode()


def test_messages_of_a_client():
    assert parse_control(dump(type="Register", mac=list(MAC))) == Register(MAC)
    assert parse_control(dump(mac=list(MAC), new="field", type="Register")) == Register(MAC)


def test_register_may_name_the_host():
    for field in ("name", "hostname"):
        assert parse_control(dump(type="Register", mac=list(MAC), **{field: "web"})) == Register(MAC, "web")
    assert parse_control(dump(type="Register", mac=list(MAC), name=5)) == Register(MAC)
    for ip in ([10, 0, 2, 99], [10, 0, 2], [10, 0, 2, 256], [10, 0, 2, True], "10.0.2.99", None):
        wanted = bytes(ip) if ip == [10, 0, 2, 99] else None
        assert parse_control(dump(type="Register", mac=list(MAC), ip=ip)) == Register(MAC, ip=wanted)
    long = parse_control(dump(type="Register", mac=list(MAC), name="w" * 2000))
    assert long == Register(MAC, "w" * 253)
    lone = parse_control(b'{"type":"Register","mac":[82,84,0,170,187,204],"name":"a\\ud800b\\ud83d\\ude00"}')
    assert lone == Register(MAC, "a?b\N{GRINNING FACE}"), "a name that can be written down and sent on"
    assert parse_control(b'{"type":"Heartbeat"}') == Heartbeat()
    assert parse_control(b'{"type":"Disconnect","why":null}') == Disconnect()
    assert parse_control(b'{"type":"PeerList"}') == PeerListRequest()


@pytest.mark.parametrize(
    "mac",
    [
        None,
        [],
        "52:54:00:aa:bb:cc",
        [1, 2, 3, 4, 5],
        [2, 2, 3, 4, 5, 6, 7],
        [2, 2, 3, 4, 5, 256],
        [-1, 2, 3, 4, 5, 6],
        [2, 2, 3, 4, 5, 6.0],
        [True, 2, 3, 4, 5, 6],
        [2, 2, 3, 4, 5, [6]],
        [0, 0, 0, 0, 0, 0],
        [255, 255, 255, 255, 255, 255],
        [1, 0, 94, 0, 0, 1],
    ],
)
def test_a_register_without_a_proper_mac_is_refused(mac):
    message = parse_control(dump(type="Register", mac=mac))
    assert isinstance(message, Refused)
    assert message.message.startswith("mac must be")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b'{"a":' * 700, "not JSON"),
        (b'{"type":"Register","mac":[' + b"9" * 4050 + b"]}", "mac must be"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "no type"),
        (b'{"type":7}', "no type"),
        (b'{"type":"Assigned"}', "unknown message type 'Assigned'"),
        (b'{"type":"' + b"x" * 1000 + b'"}', "unknown message type 'xxx"),
        (b" " * (MAX_CONTROL_LENGTH + 1), "at most 4096"),
    ],
)
def test_what_cannot_be_acted_on_is_refused_with_a_reason(text, says):
    message = parse_control(text)
    assert isinstance(message, Refused)
    assert says in message.message
    assert len(message.message) <= MAX_ERROR_LENGTH


@given(st.binary(max_size=300))
def test_garbage_never_raises(text):
    parse_control(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"type": st.just("Register") | json_values}, optional={"mac": json_values}))
def test_any_json_object_is_understood_or_refused(fields):
    message = parse_control(json.dumps(fields).encode())
    if isinstance(message, Register):
        assert list(message.mac) == fields["mac"]
    elif isinstance(message, Refused):
        assert json.loads(encode_error(message.message)[1:])["type"] == "Error"


def test_assigned_is_what_clients_search_for():
    datagram = encode_assigned(
        b"\x0a\0\x02\x0a", b"\x0a\0\x02\x02", b"\xff\xff\xff\0", b"\x08\x08\x08\x08", mtu=1145
    )
    assert datagram == (
        b'\x00{"type":"Assigned","ip":[10,0,2,10],"gateway":[10,0,2,2],"netmask":[255,255,255,0],'
        b'"dns":[8,8,8,8],"mtu":1145}'
    )


def test_assigned_names_as_many_urls_as_fit_and_last():
    addresses = (b"\x0a\0\x02\x0a", b"\x0a\0\x02\x02", b"\xff\xff\xff\0", b"\x08\x08\x08\x08")
    urls = [f"https://{n}{'a' * 99}:4433" for n in range(20)]
    bare = encode_assigned(*addresses, room="lab")
    assert encode_assigned(*addresses, urls=[], room="lab") == bare
    for limit in range(len(bare), len(bare) + 1400, 7):
        datagram = encode_assigned(*addresses, urls=urls, limit=limit, room="lab")
        told = json.loads(datagram[1:]).get("urls", [])
        assert len(datagram) <= limit
        assert told == urls[: len(told)]
        assert len(told) == min(8, max(0, (limit - len(bare) - 9) // 116))
        assert datagram.startswith(bare[:-1])
    assert encode_assigned(*addresses, urls=urls, limit=10, room="lab") == bare


def test_heartbeat_ack_and_error():
    assert HEARTBEAT_ACK == b'\x00{"type":"HeartbeatAck"}'
    assert encode_error("no addresses left") == b'\x00{"type":"Error","message":"no addresses left"}'
    assert len(encode_error("\x00" * 5000)) < 1300


@given(st.integers(0, 60), st.integers(90, 1200))
def test_peer_lists_fit_the_limit_and_lose_nobody(count, limit):
    peers = [(bytes([10, 0, 2, n + 10]), bytes([0x52, 0x54, 0, 0, 0, n])) for n in range(count)]
    datagrams = encode_peer_list(peers, limit)
    assert all(len(d) <= limit for d in datagrams)
    assert all(d.startswith(b'\x00{"type":"PeerList","peers":[') for d in datagrams)
    assert all(b" " not in d for d in datagrams)
    told = [entry for d in datagrams for entry in json.loads(d[1:])["peers"]]
    assert told == [{"ip": list(ip), "mac": list(mac)} for ip, mac in peers]
    assert len(datagrams) == 1 or all(json.loads(d[1:])["peers"] for d in datagrams)

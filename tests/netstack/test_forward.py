from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.family import pack_ip
from netstack.forward import Clients, Forward, can_be_shown, named, parse_forward, parse_forwards

MAC = bytes.fromhex("525400a1b2c3")


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("tcp::8080:10.0.2.10:80", Forward("tcp", "127.0.0.1", 8080, bytes((10, 0, 2, 10)), 80)),
        (
            "tcp:0.0.0.0:8080:Web:80 , Proxy",
            Forward("tcp", "0.0.0.0", 8080, "web", 80, Clients.PROXY),
        ),
        ("udp:[::]:53:web:53,transparent", Forward("udp", "::", 53, "web", 53, Clients.TRANSPARENT)),
        ("udp:0.0.0.0:53:web:5353", Forward("udp", "0.0.0.0", 53, "web", 5353)),
        ("TCP:192.0.2.1:65535:52:54:00:A1:B2:C3:1", Forward("tcp", "192.0.2.1", 65_535, MAC, 1)),
        ("tcp::8080:52-54-00-A1-B2-C3:80", Forward("tcp", "127.0.0.1", 8080, MAC, 80)),
        (" udp::1:web.vm.internal:1 ", Forward("udp", "127.0.0.1", 1, "web", 1)),
        ("tcp:[::1]:8022:web:22", Forward("tcp", "::1", 8022, "web", 22)),
        ("udp:[::]:53:52:54:00:a1:b2:c3:53", Forward("udp", "::", 53, MAC, 53)),
        (
            "TCP:[2001:DB8:0:0::00A]:80:10.0.2.10:80",
            Forward("tcp", "2001:db8::a", 80, bytes((10, 0, 2, 10)), 80),
        ),
    ],
)
def test_forwards_as_operators_write_them(text, forward):
    assert parse_forward(text) == forward
    assert parse_forward(str(forward)) == forward


@pytest.mark.parametrize(
    ("forward", "text", "listener"),
    [
        (Forward("tcp", "127.0.0.1", 80, MAC, 8), "tcp:127.0.0.1:80:52:54:00:a1:b2:c3:8", "tcp:127.0.0.1:80"),
        (Forward("udp", "::", 53, bytes((10, 0, 2, 9)), 5), "udp:[::]:53:10.0.2.9:5", "udp:[::]:53"),
        (Forward("tcp", "fd00::1", 22, "web", 22), "tcp:[fd00::1]:22:web:22", "tcp:[fd00::1]:22"),
    ],
)
def test_a_forward_is_written_as_it_is_read(forward, text, listener):
    assert str(forward) == text
    assert forward.listener == listener


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("tcp::80:web:1", "tcp::80:mail:2", True),
        ("tcp::80:web:1", "tcp:0.0.0.0:80:mail:2", True),
        ("udp:[::1]:53:web:1", "udp:[::]:53:web:1", True),
        ("tcp::80:web:1", "tcp::81:web:1", False),
        ("tcp::80:web:1", "udp::80:web:1", False),
        ("tcp::80:web:1", "tcp:127.0.0.2:80:web:1", False),
        ("tcp:0.0.0.0:80:web:1", "tcp:[::]:80:web:1", False),
    ],
)
def test_forwards_that_want_one_port_are_told(one, other, meet):
    one, other = parse_forward(one), parse_forward(other)
    assert (one.meets(other), other.meets(one)) == (meet, meet)


@pytest.mark.parametrize(
    "text",
    [
        *("", "tcp", "tcp:8080:web:80", "sctp::1:web:1", "tcp:localhost:1:web:1", "tcp:::1:web:80"),
        *("tcp::0:web:80", "tcp::1:web:65536", "tcp::1::80", "tcp::1:-web-:80", "tcp::1:10.0.2:80"),
        *("tcp::1:10.0.2.256:80", "udp:256.0.0.1:1:web:1", "tcp::99999:web:1", "tcp::1:web:", "tcp::1:5:80"),
    ],
)
def test_what_is_none_is_refused_with_words(text):
    with pytest.raises(ValueError, match=r"must be|is not"):
        parse_forward(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp:[::1:8022:web:22", "closing bracket"),
        ("udp:[", "closing bracket"),
        ("tcp:::1:8022:web:22", "in brackets when it is IPv6"),
        ("tcp:::1]:8022:web:22", "in brackets when it is IPv6"),
        ("tcp:[::1]8022:web:22", "in brackets when it is IPv6"),
        ("tcp:fd00::1:8022:web:22", "in brackets when it is IPv6"),
        ("tcp:2001:1:2:3:4:5:6:7:8022:web:22", "IPv6 ones stand in brackets"),
        ("tcp:[fd00:1:web:22", "closing bracket"),
        ("tcp:[127.0.0.1]:8022:web:22", "IPv4 ones stand without brackets"),
        ("tcp:[]:8022:web:22", "not an IPv6 address"),
        ("tcp:[::g]:8022:web:22", "not an IPv6 address"),
        ("tcp:[fe80::1%eth0]:8022:web:22", "has a scope"),
        ("udp:[fe80::1]:8022:web:22", "is link-local"),
        ("udp:[::1%1]:8022:web:22", "has a scope"),
        ("udp:[::ffff:192.0.2.1]:8022:web:22", "write 192.0.2.1"),
        ("tcp::8022:[fd00::1]:22", "not a guest's MAC, IPv4 address or name"),
    ],
)
def test_what_is_wrong_about_an_ipv6_address_is_told(text, words):
    with pytest.raises(ValueError, match=words):
        parse_forward(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp::1:web:1,proxi", "one of proxy"),
        ("tcp::1:web:1,", "one of proxy"),
        ("tcp::1:web:1,proxy,proxy", "not 2"),
        ("tcp::1:web:1,proxy,transparent", "not 2"),
        ("proxy", "must be tcp"),
    ],
)
def test_a_wrong_option_is_told(text, words):
    with pytest.raises(ValueError, match=words):
        parse_forward(text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        *((text, True) for text in ("192.0.2.1", "10.98.0.2", "172.16.0.1", "2001:db8::1", "fd98::1")),
        *((text, False) for text in ("127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255")),
        *((text, False) for text in ("10.0.2.2", "10.0.2.99", "169.254.1.1", "240.0.0.1", "::1", "::")),
        *((text, False) for text in ("fe80::1", "ff02::1", "fd00:1:2:3::9", "::ffff:192.0.2.1")),
    ],
)
def test_a_guest_sees_only_clients_that_it_answers_through_its_router(address, shown):
    prefix = bytes.fromhex("fd00000100020003")
    assert can_be_shown(pack_ip(address), "10.0.2.0/24", prefix) is shown
    if ":" in address:
        assert not can_be_shown(pack_ip(address), "10.0.2.0/24", None)


def test_options_stand_behind_their_forwards_in_a_list():
    text = "tcp::1:web:1,proxy,udp::1:web:1,tcp:[::1]:2:web:1, proxy"
    assert [str(f) for f in parse_forwards(text)] == [
        "tcp:127.0.0.1:1:web:1,proxy",
        "udp:127.0.0.1:1:web:1",
        "tcp:[::1]:2:web:1,proxy",
    ]
    with pytest.raises(ValueError, match="must be tcp"):
        parse_forwards("proxy,tcp::1:web:1")


def test_a_port_is_forwarded_once():
    texts = (
        "udp:[::1]:1:web:1",
        "udp:[::]:1:web:1",
        "udp:0.0.0.0:1:web:1",
        "udp::1:web:1",
        "tcp:[::1]:1:web:1",
    )
    assert len(parse_forwards(",".join(texts))) == len(texts)
    with pytest.raises(ValueError, match=r"udp:\[::1\]:1 is forwarded twice"):
        parse_forwards("udp:[::1]:1:web:1,udp:[0::1]:1:mail:25")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp::8080", 0),
        ("TCP:127.0.0.1:8080", 0),
        ("tcp::8080:web:80", 0),
        ("tcp:127.0.0.1:8080:web", None),
        ("udp:[0:0::1]:53", 1),
        ("udp:[::1]:53:52:54:00:00:00:01:53", 1),
        ("tcp::80", 2),
        ("tcp::80:web:80", 2),
        ("tcp::80:web:80,proxy", 2),
        ("tcp::808", None),
        ("tcp", None),
        ("", None),
        ("tcp::8080:web:81", None),
        ("tcp:0.0.0.0:8080", None),
    ],
)
def test_forwards_are_named_whole_or_by_what_they_listen_at(text, meant):
    known = [
        "tcp:127.0.0.1:8080:web:80",
        "udp:[::1]:53:52:54:00:00:00:01:53",
        "tcp:127.0.0.1:80:web:80,proxy",
    ]
    assert named(text, known) == ([] if meant is None else [known[meant]])


@given(st.text(alphabet="tcpudp:0123456789.abf-[]%", max_size=40))
def test_any_text_is_a_forward_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        forward = parse_forward(text)
        assert forward.protocol in ("tcp", "udp")
        assert parse_forward(str(forward)) == forward


def is_forwarded_to(address):
    return not address.is_link_local and address.ipv4_mapped is None


@given(
    st.sampled_from(("tcp", "udp")),
    st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(is_forwarded_to),
    st.integers(1, 65_535),
    st.binary(min_size=6, max_size=6)
    | st.binary(min_size=4, max_size=4)
    | st.from_regex("[a-z][a-z0-9-]{,20}[a-z0-9]", fullmatch=True),
)
def test_every_forward_is_read_as_it_was_written(protocol, host, port, vm):
    forward = Forward(protocol, str(host), port, vm, port)
    assert parse_forward(str(forward)) == forward

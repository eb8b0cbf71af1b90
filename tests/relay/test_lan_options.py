from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.settings import FixedLease
from netstack.name_servers import NameServer
from relay.lan_options import parse_fixed_leases, parse_name_servers

WEB = bytes.fromhex("525400000001")


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("192.0.2.1", [("192.0.2.1", 53)]),
        ("192.0.2.1:5353, 127.0.0.53", [("192.0.2.1", 5353), ("127.0.0.53", 53)]),
        ("2001:db8::1", [("2001:db8::1", 53)]),
        ("[2001:db8::1]", [("2001:db8::1", 53)]),
        ("[2001:db8::1]:5353", [("2001:db8::1", 5353)]),
        ("fe80::1%eth0", [("fe80::1%eth0", 53)]),
    ],
)
def test_name_servers(text, servers):
    assert parse_name_servers(text) == tuple(NameServer(*server) for server in servers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dns.example", "'dns.example' is not ADDRESS or ADDRESS:PORT"),
        ("127.1", "is not ADDRESS"),
        ("[::1]x", "has no port from 1 to 65535"),
        ("192.0.2.1:", "has no port"),
        ("192.0.2.1:0", "has no port"),
        ("192.0.2.1:65536", "has no port"),
        ("192.0.2.1:²", "has no port"),
        (",".join(["192.0.2.1"] * 9), "must be at most 8 name servers"),
    ],
)
def test_what_is_no_name_server(text, message):
    with pytest.raises(ValueError, match=message):
        parse_name_servers(text)


def test_fixed_leases():
    assert parse_fixed_leases("") == ()
    assert parse_fixed_leases("52:54:00:00:00:01=10.0.2.50=Web, 52-54-00-00-00-02=10.0.2.5") == (
        FixedLease(WEB, bytes((10, 0, 2, 50)), "web"),
        FixedLease(bytes.fromhex("525400000002"), bytes((10, 0, 2, 5))),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web", "'web' is not MAC=ADDRESS"),
        ("52:54:00:00:00:01", "is not MAC=ADDRESS"),
        ("52:54:00:00:00:01=web", "is not MAC=ADDRESS"),
        ("53:54:00:00:00:01=10.0.2.50", "is not MAC=ADDRESS"),
        ("52:54:00:00:00:01=10.0.2.50=", "'' cannot be the name of a guest"),
        ("52:54:00:00:00:01=10.0.2.50=gateway", "'gateway' cannot be the name"),
        ("52:54:00:00:00:01=10.0.2.50=a.b", "'a.b' cannot be the name"),
        ("52:54:00:00:00:01=10.0.2.50=a_b", "'a_b' cannot be the name"),
        ("52:54:00:00:00:01=10.0.2.2", "10.0.2.2 is not an address for a guest"),
        ("52:54:00:00:00:01=10.0.2.3", "10.0.2.3 is not an address for a guest"),
        ("52:54:00:00:00:01=10.0.2.4", "10.0.2.4 is not an address for a guest"),
        ("52:54:00:00:00:01=192.168.1.1", "192.168.1.1 is not an address for a guest"),
        ("52:54:00:00:00:01=10.0.2.50,52:54:00:00:00:02=10.0.2.50", "fixed for two guests"),
        ("52:54:00:00:00:01=10.0.2.50,52:54:00:00:00:01=10.0.2.51", "the same MAC twice"),
        ("52:54:00:00:00:01=10.0.2.50=a,52:54:00:00:00:02=10.0.2.51=A", "the same name twice"),
    ],
)
def test_what_is_no_fixed_lease(text, message):
    with pytest.raises(ValueError, match=message):
        parse_fixed_leases(text)


def test_too_many_leases():
    text = ",".join(f"52:54:00:00:01:{n % 256:02x}=10.0.2.50" for n in range(251))
    with pytest.raises(ValueError, match="at most 250"):
        parse_fixed_leases(text)


@given(st.text(alphabet="0123456789abcdef:=.,[]%w ", max_size=60) | st.text(max_size=20))
def test_no_text_whatever_raises_anything_else(text):
    for parse in (parse_name_servers, parse_fixed_leases):
        with contextlib.suppress(ValueError):
            assert isinstance(parse(text), tuple)

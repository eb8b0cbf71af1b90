from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.settings import FixedLease
from netstack.dhcp_boot import IPXE, BootFile
from netstack.dhcp_options import Route
from netstack.name_servers import NameServer
from relay.lan_options import (
    parse_addresses,
    parse_boot_files,
    parse_fixed_leases,
    parse_lan_domain,
    parse_name_servers,
    parse_routes,
    parse_search_domains,
    parse_wpad,
)

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
        ("52:54:00:00:00:01=10.0.2.50,52:54:00:00:00:02=10.0.2.50", "the same address twice"),
        ("52:54:00:00:00:01=10.0.2.50,52:54:00:00:00:01=10.0.2.51", "the same MAC twice"),
        ("52:54:00:00:00:01=10.0.2.50=a,52:54:00:00:00:02=10.0.2.51=A", "the same name twice"),
    ],
)
def test_what_is_no_fixed_lease(text, message):
    with pytest.raises(ValueError, match=message):
        parse_fixed_leases(text)


def test_too_many_leases():
    text = ",".join(f"52:54:00:00:01:{n % 256:02x}=10.0.2.50" for n in range(4097))
    with pytest.raises(ValueError, match="at most 4096"):
        parse_fixed_leases(text)


def test_the_domain_of_guests_names():
    assert parse_lan_domain("VM.Internal.") == "vm.internal"
    assert parse_lan_domain("lab") == "lab"
    assert parse_lan_domain("home.arpa") == "home.arpa"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", "a b", "-a.example", "a,b", ".".join(["x" * 60] * 3)),
        *("local", "x.local", "localhost", "10.in-addr.arpa"),
    ],
)
def test_what_is_no_domain_for_guests(text):
    with pytest.raises(ValueError, match="domain"):
        parse_lan_domain(text)


@given(st.text(alphabet="0123456789abcdef:=.,[]%w ", max_size=60) | st.text(max_size=20))
def test_no_text_whatever_raises_anything_else(text):
    for parse in (
        parse_name_servers,
        parse_fixed_leases,
        parse_search_domains,
        parse_addresses,
        parse_routes,
        parse_boot_files,
    ):
        with contextlib.suppress(ValueError):
            assert isinstance(parse(text), tuple)
    with contextlib.suppress(ValueError):
        assert isinstance(parse_wpad(text), str)


SERVER = bytes((10, 0, 2, 15))
NOWHERE = bytes(4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("pxelinux.0@10.0.2.15", (BootFile((), "pxelinux.0", SERVER),)),
        (
            "bios=a.0@10.0.2.15, EFI64=b.efi@10.0.2.15",
            (BootFile((0,), "a.0", SERVER), BootFile((7, 9, 16), "b.efi", SERVER)),
        ),
        ("7=/boot/x=1.efi@10.0.2.15", (BootFile((7,), "/boot/x=1.efi", SERVER),)),
        ("http://h/?a=b", (BootFile((), "http://h/?a=b", NOWHERE),)),
        ("ipxe=http://me@h/b", (BootFile((IPXE,), "http://me@h/b", NOWHERE),)),
        ("tftp://10.0.2.15/a", (BootFile((), "tftp://10.0.2.15/a", NOWHERE),)),
    ],
)
def test_boot_files(text, found):
    assert parse_boot_files(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.0", "is not FILE@SERVER"),
        ("a.0@tftp.example", "is not FILE@SERVER"),
        ("a.0@0.0.0.0", "is not FILE@SERVER"),
        ("@10.0.2.15", "is not the name of a file"),
        ("a b@10.0.2.15", "is not the name of a file"),
        ("é@10.0.2.15", "is not the name of a file"),
        ("a" * 256 + "@10.0.2.15", "is not the name of a file"),
        ("efi=a@10.0.2.15", "'efi' is no architecture: bios, efi32"),
        ("65536=a@10.0.2.15", "'65536' is no architecture"),
        ("a@10.0.2.15,b@10.0.2.15", "two files for all"),
        ("7=a@10.0.2.15,efi64=b@10.0.2.15", "the same architecture twice"),
        (",".join(f"{n}=a@10.0.2.15" for n in range(33)), "at most 32"),
    ],
)
def test_what_is_no_boot_file(text, message):
    with pytest.raises(ValueError, match=message):
        parse_boot_files(text)


def test_what_dhcp_tells_besides():
    assert parse_routes("192.168.0.0/16=10.0.2.15,0.0.0.0/0=10.0.2.16") == (
        Route(bytes((192, 168, 0, 0)), 16, SERVER),
        Route(NOWHERE, 0, bytes((10, 0, 2, 16))),
    )
    assert parse_search_domains("corp.example, Example.org") == ("corp.example", "Example.org")
    assert parse_addresses("192.0.2.1,10.0.2.15") == (bytes((192, 0, 2, 1)), SERVER)
    assert parse_wpad("http://10.0.2.15/wpad.dat") == "http://10.0.2.15/wpad.dat"


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_routes, "192.168.0.1/16=10.0.2.15", "is not NETWORK=ROUTER"),
        (parse_routes, "192.168.0.0/16=web", "is not NETWORK=ROUTER"),
        (parse_routes, "fd00::/64=10.0.2.15", "is not NETWORK=ROUTER"),
        (parse_routes, "10.1.0.0/16=10.0.2.15,10.1.0.0/16=10.0.2.16", "same network twice"),
        (parse_routes, ",".join(f"10.{n}.0.0/16=10.0.2.15" for n in range(33)), "at most 32"),
        (parse_search_domains, ".", "the root is no domain"),
        (parse_search_domains, ",".join("abcdefghijklmnopqrstuvwxyz0123456"), "at most 32"),
        (parse_addresses, "::1", "is not an IPv4 address"),
        (parse_addresses, ",".join(["192.0.2.1"] * 9), "at most 8"),
        (parse_wpad, "ftp://a/", "must be a URL"),
        (parse_wpad, "http://a b/", "is not a URL"),
    ],
)
def test_what_dhcp_cannot_tell(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)

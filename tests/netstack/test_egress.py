from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.egress import CACHED_DECISIONS, DEFAULT_DENY, HOST_ACCESS_ADDRESS, EgressPolicy

# Written out once more on purpose: the table of the threat model, not the code's own.
DENIED_IPV4 = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
]
DENIED_IPV6 = [
    *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
    *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
]
DENIED = [ip_network(cidr) for cidr in DENIED_IPV4 + DENIED_IPV6]

policy = EgressPolicy()


def in_a_denied_range(address):
    return any(address.version == network.version and address in network for network in DENIED)


def test_the_table_is_the_threat_models():
    assert set(DEFAULT_DENY) == set(DENIED)


@pytest.mark.parametrize("network", DENIED, ids=str)
def test_every_range_is_denied_up_to_its_edges_and_not_beyond(network):
    first, last = int(network.network_address), int(network.broadcast_address)
    for number in {first, min(first + 1, last), (first + last) // 2, max(last - 1, first), last}:
        address = type(network.network_address)(number)
        for form in (str(address), address.packed):
            decision = policy.decide(form)
            assert not decision.allowed
            assert decision.reason == "denied_by_default"
            assert decision.dial == ""
    for number in (first - 1, last + 1):
        if not 0 <= number < 1 << network.max_prefixlen:
            continue
        address = type(network.network_address)(number)
        assert policy.decide(str(address)).allowed != in_a_denied_range(address)


@given(st.ip_addresses())
def test_any_address_is_decided_by_the_table(address):
    decision = policy.decide(str(address))
    if in_a_denied_range(address):
        assert not decision.allowed
    elif decision.allowed:
        assert ip_address(decision.dial) == address
    else:
        # Only ISATAP addresses of denied hosts lie outside the table.
        assert (int(address) >> 32) & 0xFFFF_FFFF in (0x5EFE, 0x0200_5EFE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "example.com",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1 ",
        " 8.8.8.8",
        "8.8.8.8\n",
        "8.8.8.8\0",
        "8.8.8.8/32",
        "[::1]",
        "fe80::1%eth0",
        "2606:4700::1111%lo",
        "٨.٨.٨.٨",
        b"",
        b"\x7f\0\0",
        b"8.8.8.8",
        b"\x08\x08\x08\x08\x08",
    ],
)
def test_what_is_no_canonical_address_is_refused(text):
    assert policy.decide(text).reason == "not_an_address"


@given(st.text(max_size=20) | st.binary(max_size=20))
def test_garbage_is_decided_too(text):
    decision = policy.decide(text)
    assert decision.allowed == bool(decision.dial)


def test_public_addresses_are_allowed_and_dialled_in_canonical_form():
    assert policy.decide("8.8.8.8") == (True, "allowed", "8.8.8.8")
    assert policy.decide(bytes((1, 1, 1, 1))).dial == "1.1.1.1"
    assert policy.decide("2606:4700:0:0::1111").dial == "2606:4700::1111"


def test_allow_overrides_the_table_and_deny_overrides_allow():
    some = EgressPolicy(allow=["10.1.0.0/16", "127.0.0.1/32", "::1/128"], deny=["10.1.2.0/24", "9.9.9.9/32"])
    assert some.decide("10.1.1.1").allowed
    assert some.decide("127.0.0.1").allowed
    assert some.decide("::1").allowed
    assert some.decide("127.0.0.2").reason == "denied_by_default"
    assert some.decide("10.1.2.3").reason == "denied_by_rule"
    assert some.decide("9.9.9.9").reason == "denied_by_rule"
    assert some.decide("10.2.0.0").reason == "denied_by_default"


def embed(ipv4):
    low = int(ip_address(ipv4))
    return {
        "mapped": f"::ffff:{ipv4}",
        "compatible": f"::{ipv4}",
        "translated": f"::ffff:0:{ipv4}",
        "NAT64": f"64:ff9b::{ipv4}",
        "local NAT64": f"64:ff9b:1::{ipv4}",
        "6to4": str(ip_address((0x2002 << 112) | (low << 80) | 1)),
        "Teredo server": str(ip_address((0x20010000 << 96) | (low << 64) | (~0x08080808 & 0xFFFFFFFF))),
        "Teredo client": str(ip_address((0x20010000 << 96) | (0x08080808 << 64) | (~low & 0xFFFFFFFF))),
        "ISATAP": f"2606:4700::5efe:{ipv4}",
        "ISATAP, global": f"2606:4700::200:5efe:{ipv4}",
    }


@pytest.mark.parametrize("ipv4", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "168.63.129.16"])
def test_allowing_all_ipv6_does_not_open_the_ipv4_addresses_inside_it(ipv4):
    everything = EgressPolicy(allow=["::/0"])
    for kind, text in embed(ipv4).items():
        assert not everything.decide(text).allowed, kind
    for kind, text in embed("8.8.4.4").items():
        assert everything.decide(text).allowed, kind


def test_a_denied_ipv4_address_is_denied_in_every_disguise():
    some = EgressPolicy(allow=["::/0", "0.0.0.0/0"], deny=["8.8.4.4/32"])
    for kind, text in embed("8.8.4.4").items():
        assert some.decide(text).reason == "denied_by_rule", kind


@pytest.mark.parametrize("network", ["8.8.4.0/24", "::ffff:8.8.4.0/120", "::FFFF:808:400/120"])
def test_a_denied_network_of_ipv4_is_denied_however_it_is_spelt(network):
    some = EgressPolicy(allow=["::/0"], deny=[network])
    for address in ("8.8.4.4", "::ffff:8.8.4.4"):
        assert some.decide(address).reason == "denied_by_rule", address
    assert some.decide("8.8.5.4").allowed


def test_a_network_of_ipv4_is_opened_however_it_is_spelt():
    some = EgressPolicy(allow=["::ffff:192.168.1.0/120"])
    assert some.decide("192.168.1.1").allowed
    assert not some.decide("192.168.2.1").allowed


def test_to_deny_all_mapped_addresses_as_lists_of_bogons_do_leaves_ipv4_open():
    assert EgressPolicy(deny=["::ffff:0:0/96", "::/8"]).decide("8.8.4.4").allowed


def test_own_addresses_are_denied_and_the_cache_knows_when_they_change():
    some = EgressPolicy(allow=["192.168.1.0/24", "192.168.2.5/32", "::/0"])
    assert some.decide("192.168.1.5").allowed
    assert some.decide("8.8.8.8").allowed
    some.own_addresses = ["192.168.1.5", "192.168.2.5", "8.8.8.8", "2606:4700:0::1", "127.0.0.1", "::1"]
    assert some.own_addresses == {"192.168.1.5", "192.168.2.5", "8.8.8.8", "2606:4700::1"}
    assert some.decide("192.168.1.5").reason == "own_address"
    assert some.decide("8.8.8.8").reason == "own_address"
    assert some.decide("2606:4700::1").reason == "own_address"
    assert some.decide("::ffff:8.8.8.8").reason == "own_address"
    assert some.decide("192.168.1.6").allowed
    assert some.decide("192.168.2.5").allowed, "named exactly"
    some.own_addresses = []
    assert some.decide("8.8.8.8").allowed


def test_a_network_that_is_the_hosts_own_is_denied_as_its_addresses_are():
    some = EgressPolicy(allow=["0.0.0.0/0", "::/0", "7.7.7.5/32"])
    some.own_addresses = ["7.7.7.0/24", "7.7.7.1", "2400:cb00:8::/64", "127.0.0.0/8"]
    assert some.own_addresses == {"7.7.7.0/24", "7.7.7.1", "2400:cb00:8::/64"}
    for address in (
        "7.7.7.0",
        "7.7.7.1",
        "7.7.7.255",
        "2400:cb00:8::",
        "2400:cb00:8::ffff",
        "::ffff:7.7.7.9",
    ):
        assert some.decide(address).reason == "own_address"
    for address in ("7.7.7.5", "7.7.6.255", "7.7.8.0", "2400:cb00:8:1::", "2400:cb00:7:ffff::"):
        assert some.decide(address).allowed
    some.own_addresses = ["7.7.7.1"]
    assert some.decide("7.7.7.255").allowed


def test_host_access_is_off_unless_asked_for():
    assert policy.decide(HOST_ACCESS_ADDRESS).reason == "denied_by_default"
    assert policy.shown("127.0.0.1") == "127.0.0.1"


def test_host_access_maps_one_address_to_loopback_and_back():
    some = EgressPolicy(host_access=True)
    for form in (HOST_ACCESS_ADDRESS, bytes((10, 0, 2, 4))):
        assert some.decide(form) == (True, "allowed", "127.0.0.1")
    assert some.shown("127.0.0.1") == HOST_ACCESS_ADDRESS
    assert some.shown("8.8.8.8") == "8.8.8.8"
    assert not some.decide("127.0.0.1").allowed
    assert not some.decide("10.0.2.5").allowed
    for denied in ("127.0.0.0/8", "10.0.2.4/32"):
        assert not EgressPolicy(deny=[denied], host_access=True).decide(HOST_ACCESS_ADDRESS).allowed


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "10.0.0.1/8", "example.com", "10.0.0.0/8/8", "fe80::1%eth0/128/1"]
)
def test_what_is_no_network_is_named_in_the_error(text):
    with pytest.raises(ValueError, match="is not a network in CIDR notation"):
        EgressPolicy(allow=["192.0.2.0/24", text])
    with pytest.raises(ValueError, match="is not a network in CIDR notation"):
        EgressPolicy(deny=[text])


def test_the_cache_is_bounded():
    some: Any = EgressPolicy()
    for number in range(CACHED_DECISIONS + 100):
        some.decide(number.to_bytes(4, "big"))
    assert some.decide.cache_info().currsize == CACHED_DECISIONS


OWN = ("192.0.2.7", "2001:db8::7", "8.8.8.8")
EVERYTHING = ("0.0.0.0/0", "::/0")
HALVES = ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
OF_THE_HOST = [
    *("0.0.0.0", "127.0.0.1", "127.255.255.254", "169.254.1.1", "224.0.0.251", "255.255.255.255"),
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("::", "::1", "fe80::1", "ff02::fb", "fd00:ec2::254", "::ffff:127.0.0.1", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "::ffff:169.254.169.254"),
    *OWN,
    *("::ffff:192.0.2.7", "64:ff9b::808:808", "2002:c000:207::1"),
]


@pytest.mark.parametrize("allow", [EVERYTHING, HALVES, (*EVERYTHING, *HALVES)])
@pytest.mark.parametrize("address", OF_THE_HOST)
def test_a_wide_network_does_not_open_what_leads_to_the_host(allow, address):
    wide = EgressPolicy(allow=allow)
    wide.own_addresses = OWN
    assert not wide.decide(address).allowed
    assert not wide.decide(ip_address(address).packed).allowed
    for neighbour in ("10.1.2.3", "192.0.2.8", "2001:db8::8", "fd00::1", "100.100.100.201"):
        assert wide.decide(neighbour).allowed


@pytest.mark.parametrize(
    ("allow", "opened"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.1"),
        ("::1/128", "::1"),
        ("169.254.0.0/16", "169.254.1.1"),
        ("169.254.169.254/32", "169.254.169.254"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:db8::7/128", "2001:db8::7"),
    ],
)
def test_what_is_named_is_opened(allow, opened):
    named = EgressPolicy(allow=[*EVERYTHING, allow])
    named.own_addresses = OWN
    assert named.decide(opened).allowed


@pytest.mark.parametrize("allow", ["126.0.0.0/7", "169.254.0.0/16", "169.254.169.254/31", "::/127"])
def test_a_network_that_is_wider_than_what_it_would_name_does_not_open_it(allow):
    narrow = EgressPolicy(allow=[allow])
    for address in ("127.0.0.1", "169.254.169.254", "::1"):
        assert not narrow.decide(address).allowed

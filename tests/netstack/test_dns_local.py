from __future__ import annotations

from ipaddress import ip_address, ip_network
from time import thread_time

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from netstack.dns_local import LocalNames
from netstack.dns_messages import Query, parse_query
from netstack.dns_zone import Zone

WEB = b"\x52\x54\0\0\0\1"


def reverse(address):
    return str(dns.reversename.from_address(address))


@pytest.fixture
def names():
    zone = Zone({"gateway": (packed("10.0.2.2"), packed("fd00::2")), "host": (packed("10.0.2.4"),)})
    zone.bind(WEB, packed("10.0.2.10"), "web")
    zone.set_ipv6(WEB, (packed("fd00::11"), packed("fd00::10")))
    return LocalNames("vm.internal", zone)


def packed(address):
    return ip_address(address).packed


def ask(names, name, kind="A"):
    query = parse_query(dns.message.make_query(name, kind).to_wire())
    response = names.answer(query)
    if response is not None:
        response = dns.message.from_wire(query.render(response, over_stream=False))
        assert response.flags & dns.flags.AA
        if not response.answer:
            assert " 5 IN SOA gateway.vm.internal. " in response.authority[0].to_text()
            assert response.question[0].name.is_subdomain(response.authority[0].name)
    return response


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("web.vm.internal.", "A", ["web.vm.internal. 10 IN A 10.0.2.10"]),
        ("WEB.VM.internal.", "A", ["web.vm.internal. 10 IN A 10.0.2.10"]),
        (
            "web.vm.internal.",
            "AAAA",
            ["web.vm.internal. 10 IN AAAA fd00::11\nweb.vm.internal. 10 IN AAAA fd00::10"],
        ),
        ("web.", "AAAA", ["web. 10 IN AAAA fd00::11\nweb. 10 IN AAAA fd00::10"]),
        ("host.vm.internal.", "ANY", ["host.vm.internal. 10 IN A 10.0.2.4"]),
        (
            "gateway.vm.internal.",
            "ANY",
            ["gateway.vm.internal. 10 IN A 10.0.2.2", "gateway.vm.internal. 10 IN AAAA fd00::2"],
        ),
        ("gateway.vm.internal.", "AAAA", ["gateway.vm.internal. 10 IN AAAA fd00::2"]),
        (reverse("fd00::10"), "PTR", [f"{reverse('fd00::10')} 10 IN PTR web.vm.internal."]),
        (reverse("fd00::11"), "PTR", [f"{reverse('fd00::11')} 10 IN PTR web.vm.internal."]),
        (reverse("fd00::2"), "PTR", [f"{reverse('fd00::2')} 10 IN PTR gateway.vm.internal."]),
        ("web.", "A", ["web. 10 IN A 10.0.2.10"]),
        ("gateway.vm.internal.", "A", ["gateway.vm.internal. 10 IN A 10.0.2.2"]),
        ("host.vm.internal.", "A", ["host.vm.internal. 10 IN A 10.0.2.4"]),
        ("10.2.0.10.in-addr.arpa.", "PTR", ["10.2.0.10.in-addr.arpa. 10 IN PTR web.vm.internal."]),
        ("2.2.0.10.in-addr.arpa.", "PTR", ["2.2.0.10.in-addr.arpa. 10 IN PTR gateway.vm.internal."]),
        ("localhost.", "A", ["localhost. 10 IN A 127.0.0.1"]),
        ("a.localhost.", "AAAA", ["a.localhost. 10 IN AAAA ::1"]),
    ],
)
def test_local_names(names, name, kind, records):
    response = ask(names, name, kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert [line.to_text().lower() for line in response.answer] == [line.lower() for line in records]


def test_the_domain_itself(names):
    assert "SOA gateway.vm.internal. hostmaster" in ask(names, "vm.internal.", "SOA").answer[0].to_text()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("host.vm.internal.", "AAAA"),
        ("web.vm.internal.", "HTTPS"),
        ("vm.internal.", "A"),
        ("gateway.", "MX"),
        ("localhost.", "MX"),
        ("_dns.resolver.arpa.", "SVCB"),
        ("resolver.arpa.", "SVCB"),
        ("home.arpa.", "SOA"),
        ("10.in-addr.arpa.", "PTR"),
        ("2.0.10.in-addr.arpa.", "NS"),
        ("0.d.f.ip6.arpa.", "PTR"),
    ],
)
def test_a_name_without_such_records(names, name, kind):
    response = ask(names, name, kind)
    assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(
    "name",
    [
        "nobody.vm.internal.",
        "a.web.vm.internal.",
        r"\255.vm.internal.",
        "99.2.0.10.in-addr.arpa.",
        "1.10.0.2.10.10.in-addr.arpa.",
        "x.10.in-addr.arpa.",
        "1.1.168.192.in-addr.arpa.",
        "1.1.31.172.in-addr.arpa.",
        "1.1.127.100.in-addr.arpa.",
        "x.0.d.f.ip6.arpa.",
        "00.0.d.f.ip6.arpa.",
        "0." + reverse("fd00::1"),
        reverse("fd00::1"),
        reverse("fe80::1"),
        reverse("::1"),
        "something.invalid.",
        "something.test.",
        "printer.local.",
        "abcdefghij.onion.",
        "router.home.arpa.",
    ],
)
def test_local_names_that_are_not_there(names, name):
    assert ask(names, name, "PTR").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "com.",
        "unknown.",
        "example.com.",
        "internal.",
        "avm.internal.",
        "vm.internal.example.",
        "8.8.8.8.in-addr.arpa.",
        "1.1.32.172.in-addr.arpa.",
        "1.1.15.172.in-addr.arpa.",
        "1.1.128.100.in-addr.arpa.",
        "in-addr.arpa.",
        reverse("2606:4700::1"),
    ],
)
def test_all_others_are_to_be_asked_outside(names, name):
    assert ask(names, name, "PTR") is None


@pytest.mark.parametrize("domain", ["a..b", "x" * 64])
def test_a_domain_that_is_no_name(domain):
    with pytest.raises(ValueError, match="is not a domain"):
        LocalNames(domain, Zone({}))


@pytest.mark.parametrize("name", ["box.corp.test.", "corp.test.", "9.1.168.192.in-addr.arpa."])
def test_names_that_the_operator_trusts_are_asked_outside(name):
    names = LocalNames("vm.internal", Zone({}), ["corp.test", "168.192.in-addr.arpa"])
    assert ask(names, name) is None
    assert ask(names, "other.test.").rcode() == dns.rcode.NXDOMAIN
    assert ask(names, "nobody.vm.internal.").rcode() == dns.rcode.NXDOMAIN


def test_the_lans_addresses_are_asked_outside_in_no_case():
    """A LAN may have public addresses, and lie in a network whose names are an operator's."""
    zone = Zone({"gateway": (packed("10.0.2.2"), packed("2606:4700::2"))})
    zone.bind(WEB, packed("9.9.1.10"), "web")
    networks = [ip_network("10.0.2.0/24"), ip_network("9.9.0.0/20"), ip_network("2606:4700::/64")]
    names = LocalNames("vm.internal", zone, ["10.in-addr.arpa"], networks)
    for address, name in (("10.0.2.2", "gateway"), ("2606:4700::2", "gateway"), ("9.9.1.10", "web")):
        assert ask(names, reverse(address), "PTR").answer[0][0].to_text() == f"{name}.vm.internal."
    for address in ("10.0.2.9", "2606:4700::9", "9.9.15.1"):
        assert ask(names, reverse(address), "PTR").rcode() == dns.rcode.NXDOMAIN
    for address in ("10.0.3.2", "2606:4700:0:1::2", "9.9.16.1"):
        assert ask(names, reverse(address), "PTR") is None


@pytest.mark.no_cover
def test_names_of_many_labels_cost_little():
    """Of 127 labels, as long as a name can be; to look up each of its ends took 2.3 ms."""
    asked = parse_query(b"\0\7\1\0\0\1" + bytes(6) + b"\1a" * 126 + b"\0" + b"\0\1\0\1")
    local = LocalNames("vm.internal", Zone({}))
    assert isinstance(asked, Query)

    def seconds():
        started = thread_time()
        for _ in range(20):
            assert local.answer(asked) is None
        return (thread_time() - started) / 20

    assert min(seconds() for _ in range(5)) < 0.0005

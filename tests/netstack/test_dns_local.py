from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from netstack.dns_local import LocalNames
from netstack.dns_messages import parse_query
from netstack.dns_zone import Zone

WEB = b"\x52\x54\0\0\0\1"


@pytest.fixture
def names():
    zone = Zone({"gateway": bytes((10, 0, 2, 2)), "host": bytes((10, 0, 2, 4))})
    zone.bind(WEB, bytes((10, 0, 2, 10)), "web")
    return LocalNames("vm.internal", zone)


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
        ("web.vm.internal.", "ANY", ["web.vm.internal. 10 IN A 10.0.2.10"]),
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
        ("web.vm.internal.", "AAAA"),
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
        str(dns.reversename.from_address("fd00::1")),
        str(dns.reversename.from_address("fe80::1")),
        str(dns.reversename.from_address("::1")),
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
        str(dns.reversename.from_address("2606:4700::1")),
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

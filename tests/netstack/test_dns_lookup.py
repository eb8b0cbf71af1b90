from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from netstack.dns_lookup import Found, address_query, read_addresses


def answer(*records, code=dns.rcode.NOERROR):
    query = dns.message.from_wire(address_query("web.example", "A"))
    response = dns.message.make_response(query)
    response.set_rcode(code)
    response.answer += [dns.rrset.from_text(*record) for record in records]
    return response.to_wire()


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_query_asks_for_one_kind_of_address_and_for_recursion(kind):
    query = dns.message.from_wire(address_query("Web.Example", kind))
    (question,) = query.question
    assert question.to_text().lower() == f"web.example. in {kind.lower()}"
    assert query.flags & dns.flags.RD


@pytest.mark.parametrize("name", ["a..b", "x" * 64, f"{'abc.' * 70}example"])
def test_what_is_no_name_is_an_error(name):
    with pytest.raises(ValueError, match="no host name"):
        address_query(name, "A")


def test_addresses_are_found_behind_aliases():
    records = (
        ("web.example.", 60, "IN", "CNAME", "host.example."),
        ("host.example.", 60, "IN", "A", "192.0.2.1", "192.0.2.2"),
    )
    code, addresses = read_addresses(answer(*records))
    assert (code, sorted(addresses)) == ("NOERROR", ["192.0.2.1", "192.0.2.2"])


def test_an_answer_without_addresses_says_why():
    assert read_addresses(answer(code=dns.rcode.NXDOMAIN)) == Found("NXDOMAIN", ())
    assert read_addresses(answer()) == Found("NOERROR", ())


@pytest.mark.parametrize("end", [0, 5, 12, 20])
def test_what_is_cut_off_is_an_error(end):
    with pytest.raises(ValueError, match="malformed"):
        read_addresses(answer()[:end])

from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.dns_messages import (
    Query,
    Question,
    fill,
    lifetime,
    parse_answer,
    parse_query,
    strip_addresses,
)

SOA = "ns.example. hostmaster.example. 1 7200 600 86400 300"


def ask(name="www.example.", kind="A", **options):
    return dns.message.make_query(name, kind, **options)


def records(*lines):
    """Records from lines such as ``www.example. 300 IN A 192.0.2.1``."""
    by_set = {}
    for line in lines:
        name, ttl, _, kind, data = line.split(maxsplit=4)
        by_set.setdefault((name, int(ttl), kind), []).append(data)
    return [dns.rrset.from_text(name, ttl, "IN", kind, *data) for (name, ttl, kind), data in by_set.items()]


def answer_to(query, *lines, authority=(), code=dns.rcode.NOERROR):
    response = dns.message.make_response(query)
    response.answer = records(*lines)
    response.authority = records(*authority)
    response.set_rcode(code)
    return response


def parsed(query):
    found = parse_query(query.to_wire())
    assert isinstance(found, Query)
    return found


# -- queries ----------------------------------------------------------------------------------------


def test_a_query_is_understood():
    query = parsed(ask("WWW.Example."))
    assert query.question == Question(dns.name.from_text("www.example."), dns.rdatatype.A, False, False)
    assert query.max_size == 512
    dnssec = ask(want_dnssec=True, payload=4096)
    dnssec.flags |= dns.flags.CD
    assert parsed(dnssec).question[2:] == (True, True)


@pytest.mark.parametrize(
    ("payload", "size"), [(None, 512), (0, 512), (600, 600), (1232, 1232), (4096, 1232), (65535, 1232)]
)
def test_how_much_a_guest_takes(payload, size):
    options = {} if payload is None else {"use_edns": 0, "payload": payload}
    assert parsed(ask(**options)).max_size == size


def refusal(wire):
    found = parse_query(wire)
    assert isinstance(found, bytes)
    response = dns.message.from_wire(found)
    assert response.flags & dns.flags.QR
    assert response.id == int.from_bytes(wire[:2], "big")
    return response.rcode()


def test_what_cannot_be_answered_is_refused_by_its_code():
    assert refusal(ask(kind="AXFR").to_wire()) == dns.rcode.REFUSED
    assert refusal(ask("version.bind.", "TXT", rdclass="CH").to_wire()) == dns.rcode.REFUSED
    assert refusal(ask(use_edns=1).to_wire()) == dns.rcode.BADVERS
    assert refusal(ask().to_wire()[:-1]) == dns.rcode.FORMERR
    assert refusal(ask().to_wire() + b"x") == dns.rcode.FORMERR
    assert (
        refusal(ask().to_wire()[:5] + b"\2" + ask().to_wire()[6:] + ask().to_wire()[12:]) == dns.rcode.FORMERR
    )
    assert refusal(ask().to_wire()[:5] + bytes(7)) == dns.rcode.FORMERR
    notify = ask()
    notify.set_opcode(dns.opcode.NOTIFY)
    assert refusal(notify.to_wire()) == dns.rcode.NOTIMP


def test_responses_and_scraps_meet_silence():
    assert parse_query(dns.message.make_response(ask()).to_wire()) is None
    assert parse_query(ask().to_wire()[:11]) is None


@given(st.binary(max_size=80), st.binary(min_size=12, max_size=12))
def test_no_bytes_whatever_raise(body, header):
    for wire in (body, header + body, ask().to_wire()[:12] + body):
        found = parse_query(wire)
        assert found is None or isinstance(found, Query | bytes)
        assert parse_answer(wire, parsed(ask()).question) is None


@given(st.data())
def test_no_damage_to_a_response_raises(data):
    query = ask(use_edns=0)
    wire = bytearray(
        answer_to(
            query, "www.example. 60 IN HTTPS 1 . ipv4hint=192.0.2.1", authority=(f"example. 9 IN SOA {SOA}",)
        ).to_wire()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    question = parsed(query).question
    answer = parse_answer(bytes(wire), question)
    if answer is not None:
        assert lifetime(answer, question) >= 0
        strip_addresses(answer, lambda _: False)
        fill(parsed(query).skeleton(), answer, 5)


def test_the_question_that_travels_on_has_nothing_of_the_guests_header():
    query = ask("WWW.example.", use_edns=0, payload=4000, options=[dns.edns.ECSOption("192.0.2.0", 24)])
    query.flags |= dns.flags.AD
    sent = dns.message.from_wire(parsed(query).question.to_wire())
    assert sent.id == 0
    assert sent.question[0].to_text() == "www.example. IN A"
    assert sent.flags == dns.flags.RD
    assert (sent.payload, sent.options) == (1232, ())


def test_dnssec_bits_travel_on():
    query = ask(want_dnssec=True)
    query.flags |= dns.flags.CD
    sent = dns.message.from_wire(parsed(query).question.to_wire())
    assert sent.ednsflags & dns.flags.DO
    assert sent.flags & dns.flags.CD


def test_a_query_full_of_records_is_refused_unread(monkeypatch):
    """3,000 records in 42 KB cost 0.65 s to parse."""
    monkeypatch.setattr(dns.message, "from_wire", None)
    record = b"\xc0\x0c" + b"\0\1\0\1" + bytes(4) + b"\0\0"
    query = ask().to_wire()
    for at in (6, 8, 10):
        counts = bytearray(query)
        counts[at : at + 2] = (3000).to_bytes(2, "big")
        assert bare_code(bytes(counts) + 3000 * record) == dns.rcode.FORMERR
    assert bare_code(query + bytes(4096)) == dns.rcode.FORMERR


def bare_code(wire):
    response = parse_query(wire)
    assert len(response) == 12
    return response[3] & 15


def test_a_response_is_no_larger_than_the_link_takes():
    query = parsed(ask(use_edns=0, payload=4096))
    response = query.skeleton()
    fill(response, answer_to(ask(), *(f"www.example. 300 IN A 192.0.2.{n}" for n in range(100))), 0)
    cut = query.render(response, over_stream=False, limit=700)
    assert len(cut) <= 700
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    assert len(query.render(response, over_stream=True, limit=700)) > 1232


# -- answers ----------------------------------------------------------------------------------------


def test_only_an_answer_to_the_question_counts():
    question = parsed(ask()).question
    assert parse_answer(answer_to(ask()).to_wire(), question) is not None
    assert parse_answer(answer_to(ask("other.example.")).to_wire(), question) is None
    assert parse_answer(answer_to(ask(kind="AAAA")).to_wire(), question) is None
    assert parse_answer(answer_to(ask(rdclass="CH")).to_wire(), question) is None
    assert parse_answer(ask().to_wire(), question) is None


def test_an_answer_of_thousands_of_records_is_not_even_parsed(monkeypatch):
    question = parsed(ask()).question
    wire = answer_to(ask()).to_wire()
    many = wire[:6] + (4000).to_bytes(2, "big") + wire[8:] + 4000 * (b"\xc0\x0c\0\1\0\1" + bytes(6))
    monkeypatch.setattr(dns.message, "from_wire", None)
    assert parse_answer(many, question) is None


@pytest.mark.parametrize(
    ("lines", "authority", "code", "seconds"),
    [
        (
            ["www.example. 300 IN A 192.0.2.1", "www.example. 60 IN RRSIG A 8 2 60 1 1 1 e. AA=="],
            [],
            "NOERROR",
            60,
        ),
        (["www.example. 300 IN CNAME w.example.", "w.example. 20 IN A 192.0.2.1"], [], "NOERROR", 20),
        (["www.example. 0 IN A 192.0.2.1"], [], "NOERROR", 0),
        ([], [f"example. 900 IN SOA {SOA}"], "NXDOMAIN", 300),
        ([], [f"example. 100 IN SOA {SOA}"], "NOERROR", 100),
        ([], [f"example. 99999 IN SOA {SOA.replace(' 300', ' 99999')}"], "NXDOMAIN", 3600),
        (["www.example. 50 IN CNAME w.example."], [f"example. 900 IN SOA {SOA}"], "NXDOMAIN", 50),
        ([], [], "NXDOMAIN", 0),
        ([], [], "NOERROR", 0),
        (["www.example. 300 IN A 192.0.2.1"], [], "SERVFAIL", 0),
    ],
)
def test_how_long_an_answer_lives(lines, authority, code, seconds):
    answer = answer_to(ask(), *lines, authority=authority, code=dns.rcode.from_text(code))
    assert lifetime(answer, parsed(ask()).question) == seconds


def test_a_cut_answer_is_not_kept():
    answer = answer_to(ask(), "www.example. 300 IN A 192.0.2.1")
    answer.flags |= dns.flags.TC
    assert lifetime(answer, parsed(ask()).question) == 0


def test_an_answer_without_edns_is_not_kept_for_those_who_want_signatures():
    query = ask(want_dnssec=True)
    answer = answer_to(query, "www.example. 300 IN A 192.0.2.1")
    assert lifetime(answer, parsed(query).question) == 300
    answer.use_edns(-1)
    assert lifetime(answer, parsed(query).question) == 0
    assert lifetime(answer, parsed(ask()).question) == 300


def test_any_is_kept_by_what_there_is():
    query = ask(kind="ANY")
    assert lifetime(answer_to(query, "www.example. 70 IN A 192.0.2.1"), parsed(query).question) == 70


def test_refused_addresses_are_taken_out():
    answer = answer_to(
        ask(),
        "www.example. 300 IN A 192.0.2.1",
        "www.example. 300 IN A 10.1.1.1",
        "www.example. 300 IN AAAA fd00::1",
        "www.example. 300 IN TXT 10.1.1.1",
        "www.example. 300 IN HTTPS 1 . alpn=h2",
        "www.example. 300 IN HTTPS 2 . ipv4hint=192.0.2.1,10.1.1.1",
        "www.example. 300 IN SVCB 1 . ipv6hint=fd00::1",
        "www.example. 300 IN SVCB 2 . ipv6hint=2001:db8::1",
    )
    answer.additional = records("ns.example. 300 IN A 10.1.1.1", "ns.example. 300 IN A 192.0.2.9")
    private = {"10.1.1.1", "fd00::1"}
    assert strip_addresses(answer, lambda address: address not in private) == 5
    assert sorted(line for rrset in answer.answer for line in rrset.to_text().splitlines()) == [
        "www.example. 300 IN A 192.0.2.1",
        'www.example. 300 IN HTTPS 1 . alpn="h2"',
        'www.example. 300 IN SVCB 2 . ipv6hint="2001:db8::1"',
        'www.example. 300 IN TXT "10.1.1.1"',
    ]
    assert [rrset.to_text() for rrset in answer.additional] == ["ns.example. 300 IN A 192.0.2.9"]
    assert strip_addresses(answer, lambda _: True) == 0


def test_a_response_is_the_guests_own():
    query = ask("wWw.example.", id=77)
    answer = answer_to(ask(), "www.example. 300 IN A 192.0.2.1", authority=("example. 10 IN NS ns.example.",))
    response = parsed(query).skeleton()
    fill(response, answer, 100)
    seen = dns.message.from_wire(parsed(query).render(response, over_stream=False))
    assert (seen.id, seen.question[0].name.to_text()) == (77, "wWw.example.")
    assert seen.flags & (dns.flags.QR | dns.flags.RA | dns.flags.RD)
    assert not seen.flags & (dns.flags.AD | dns.flags.AA | dns.flags.TC)
    assert [r.to_text().lower() for r in seen.answer] == ["www.example. 200 in a 192.0.2.1"]
    assert [r.ttl for r in seen.authority] == [0]
    assert answer.answer[0].ttl == 300


def test_over_udp_a_large_response_is_cut_and_says_so():
    lines = [f"www.example. 300 IN A 192.0.2.{n}" for n in range(100)]
    query = parsed(ask())
    response = query.skeleton()
    fill(response, answer_to(ask(), *lines), 0)
    cut = query.render(response, over_stream=False)
    assert len(cut) <= 512
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    whole = dns.message.from_wire(query.render(response, over_stream=True))
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 100

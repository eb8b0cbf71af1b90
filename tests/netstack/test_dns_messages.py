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

from netstack.dns_messages import MAX_OPTIONS, Query, Question, parse_query


def ask(name="www.example.", kind="A", **options):
    return dns.message.make_query(name, kind, **options)


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


@pytest.mark.parametrize(("records", "is_read"), [(1, True), (2, False)])
def test_beside_its_edns_a_query_may_have_one_record_more(records, is_read):
    """Such as a signature; each costs time."""
    query = ask(use_edns=0)
    query.additional = [
        dns.rrset.from_text(f"n{n}.example.", 0, "IN", "A", "192.0.2.1") for n in range(records)
    ]
    if is_read:
        assert parsed(query).question.name == dns.name.from_text("www.example.")
    else:
        assert refusal(query.to_wire()) == dns.rcode.FORMERR


def refusal(wire):
    found = parse_query(wire)
    assert isinstance(found, bytes)
    response = dns.message.from_wire(found)
    assert response.flags & dns.flags.QR
    assert response.id == int.from_bytes(wire[:2], "big")
    return response.rcode()


NAMES = [".", "www.example.", "WWW.Example.", "a." * 126, r"a\.b.\000.example."]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dnssec_ok", [False, True])
@pytest.mark.parametrize("checking_disabled", [False, True])
def test_questions_for_name_servers_are_what_dnspython_writes(name, dnssec_ok, checking_disabled):
    question = Question(
        dns.name.from_text(name).canonicalize(), dns.rdatatype.AAAA, dnssec_ok, checking_disabled
    )
    expected = dns.message.make_query(
        question.name, "AAAA", use_edns=0, payload=1232, want_dnssec=dnssec_ok, id=0
    )
    expected.flags |= dns.flags.AD | (dns.flags.CD if checking_disabled else 0)
    assert question.to_wire() == expected.to_wire()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"use_edns": 0}, {"want_dnssec": True}])
@pytest.mark.parametrize("flags", [0, dns.flags.RD, dns.flags.RD | dns.flags.CD | dns.flags.AD])
@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.BADVERS])
def test_refusals_are_what_dnspython_writes(name, options, flags, code):
    query = ask(name, **options)
    query.flags = flags
    if code > 15 and query.edns < 0:
        code = dns.rcode.REFUSED
    found = parsed(query)
    expected = found.skeleton()
    expected.set_rcode(code)
    assert found.refuse(code) == expected.to_wire()


def with_options(data, record=b"\0"):
    """A query whose OPT record has this data, and whatever ``record`` for a name."""
    opt = record + b"\0\x29\x10\0\0\0\0\0" + len(data).to_bytes(2, "big") + data
    wire = ask().to_wire()
    return wire[:11] + b"\1" + wire[12:] + opt


@pytest.mark.parametrize(
    "option", [b"\xfd\xe9\0\0", b"\0\3\0\0", b"\0\x0e\0\0", b"\xfd\xe9\0\x0a0123456789", b"\0\x0f\0\2\0\1"]
)
def test_more_options_than_any_client_sends_are_refused_unread(option, monkeypatch):
    assert isinstance(parse_query(with_options(option * MAX_OPTIONS)), Query)
    monkeypatch.setattr("dns.message.from_wire", lambda _: pytest.fail("it was parsed"))
    for count in (MAX_OPTIONS + 1, 4000 // len(option)):
        found = parse_query(with_options(option * count))
        assert isinstance(found, bytes)
        assert found[3] & 0x0F == dns.rcode.FORMERR


@pytest.mark.parametrize("data", [b"\0", b"\0\3\0", b"\0\3\xff\xff", b"\0\3\0\0" * 4 + b"\0"])
def test_options_that_are_cut_are_malformed(data):
    assert refusal(with_options(data)) == dns.rcode.FORMERR
    assert refusal(with_options(data, b"\xc0\xff")) == dns.rcode.FORMERR


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


def test_the_question_that_travels_on_has_nothing_of_the_guests_header():
    query = ask("WWW.example.", use_edns=0, payload=4000, options=[dns.edns.ECSOption("192.0.2.0", 24)])
    query.flags |= dns.flags.AD
    sent = dns.message.from_wire(parsed(query).question.to_wire())
    assert sent.id == 0
    assert sent.question[0].to_text() == "www.example. IN A"
    assert sent.flags == dns.flags.RD | dns.flags.AD
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
    assert isinstance(response, bytes)
    assert len(response) == 12
    return response[3] & 15


def test_a_response_is_no_larger_than_the_link_takes():
    query = parsed(ask(use_edns=0, payload=4096))
    response = query.skeleton()
    texts = [f"192.0.2.{n}" for n in range(100)]
    response.answer = [dns.rrset.from_text("www.example.", 300, "IN", "A", *texts)]
    cut = query.render(response, over_stream=False, limit=700)
    assert len(cut) <= 700
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    assert len(query.render(response, over_stream=True, limit=700)) > 1232


def test_responses_made_here_repeat_cd_and_do():
    careful = ask(want_dnssec=True)
    careful.flags |= dns.flags.CD
    for query, bits in ((careful, True), (ask(use_edns=0), False), (ask(), False)):
        for wire in (parsed(query).refuse(dns.rcode.SERVFAIL), parsed(query).skeleton().to_wire()):
            response = dns.message.from_wire(wire)
            assert bool(response.flags & dns.flags.CD) == bits
            assert bool(response.ednsflags & dns.flags.DO) == bits
            assert response.edns == query.edns
    unread = ask()
    unread.flags |= dns.flags.CD
    answer = parse_query(unread.to_wire()[:-1])
    assert isinstance(answer, bytes)
    assert answer[3] & 0x10

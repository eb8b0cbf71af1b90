"""dnspython is the oracle."""

from __future__ import annotations

import time
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.dns_answers import SLICE, accept, respond
from netstack.dns_local import LocalNames
from netstack.dns_messages import parse_query
from netstack.dns_wire import MalformedMessageError, WireMessage
from netstack.dns_zone import Zone

SOA = "ns.example. hostmaster.example. 1 7200 600 86400 300"
PRIVATE = {"10.1.1.1", "fd00::1"}
UNKNOWN = r"\# 4 c00cc00c"


def may_show(address):
    return str(ip_address(address)) not in PRIVATE


def ask(name="www.example.", kind="A", **options):
    return dns.message.make_query(name, kind, **options)


def records(*lines):
    """Records from lines such as ``www.example. 300 IN A 192.0.2.1``."""
    return [
        dns.rrset.from_text(name, int(ttl), "IN", kind, data)
        for name, ttl, _, kind, data in (line.split(maxsplit=4) for line in lines)
    ]


def answer_to(query, *lines, authority=(), additional=(), code=dns.rcode.NOERROR):
    response = dns.message.make_response(query)
    response.answer = records(*lines)
    response.authority = records(*authority)
    response.additional = records(*additional)
    response.set_rcode(code)
    return response


def parsed(query):
    return parse_query(query.to_wire())


is_ours = LocalNames("vm.internal", Zone({})).is_ours


def accepted(response, query=None, show=may_show, ours=is_ours):
    """Accept an answer; the steps do not matter here."""
    wire = response if isinstance(response, bytes) else response.to_wire(max_size=65_535)
    work = accept(wire, parsed(query or ask()).question, show, ours)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


def responded(query, answer, seconds=0, size=65_535):
    wire = respond(parsed(query), answer.wire, seconds, size)
    return dns.message.from_wire(wire, one_rr_per_rrset=True)


def lines(section):
    return [rrset.to_text() for rrset in section]


# -- acceptance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        answer_to(ask("other.example.")),
        answer_to(ask(kind="AAAA")),
        answer_to(ask(rdclass="CH")),
        ask(),
        b"",
        b"scrap",
        bytes(12),
        answer_to(ask()).to_wire()[:-1],
        answer_to(ask(use_edns=0), code=dns.rcode.BADVERS),
    ],
    ids=[
        *("another name", "another type", "another class", "a question", "nothing", "no header", "a header"),
        *("cut short", "of another EDNS"),
    ],
)
def test_only_an_answer_to_the_question_counts(response):
    assert accepted(answer_to(ask("WWW.example."))).wire
    with pytest.raises(MalformedMessageError):
        accepted(response)


@pytest.mark.parametrize("kind", range(1, 258))
def test_a_question_may_be_of_any_type(kind):
    """Such as HTTPS: its number is a capital letter's."""
    query = ask("WWW.example.", dns.rdatatype.RdataType.make(kind))
    if kind in {dns.rdatatype.AXFR, dns.rdatatype.IXFR}:
        assert isinstance(parsed(query), bytes), "zone transfers are refused"
        return
    assert accepted(answer_to(query), query).wire
    for other in (kind ^ 0x20, kind ^ 0x2000):
        response = answer_to(ask("www.example.", dns.rdatatype.RdataType.make(other)))
        with pytest.raises(MalformedMessageError):
            accepted(response, query)


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
    assert accepted(answer).lifetime == seconds


def test_a_cut_answer_is_not_kept_and_says_so():
    response = answer_to(ask(), "www.example. 300 IN A 192.0.2.1")
    response.flags |= dns.flags.TC
    answer = accepted(response)
    assert answer.lifetime == 0
    assert responded(ask(), answer).flags & dns.flags.TC


@pytest.mark.parametrize("lost", [1, 10, 16, 17])
def test_a_cut_answer_may_end_within_a_record(lost):
    """Some servers stop where the datagram is full, and leave the counts as they were."""
    response = answer_to(ask(), "www.example. 300 IN A 192.0.2.1", "www.example. 300 IN A 10.1.1.1")
    wire = response.to_wire()[:-lost]
    with pytest.raises(MalformedMessageError):
        accepted(wire)
    cut = wire[:2] + bytes((wire[2] | 0x02,)) + wire[3:]
    seen = responded(ask(), accepted(cut))
    assert seen.flags & dns.flags.TC
    assert lines(seen.answer) == ["www.example. 300 IN A 192.0.2.1"][: lost < 17]


def test_an_answer_without_edns_is_not_kept_for_those_who_want_signatures():
    query = ask(want_dnssec=True)
    response = answer_to(query, "www.example. 300 IN A 192.0.2.1")
    assert accepted(response, query).lifetime == 300
    response.use_edns(-1)
    assert accepted(response, query).lifetime == 0
    assert accepted(response).lifetime == 300


def test_a_negative_answer_whose_soa_cannot_be_read_is_not_kept():
    wire = bytearray(with_records((6, bytes(21))))
    wire[6:10] = b"\0\0\0\1"
    assert accepted(bytes(wire)).lifetime == 0


def test_any_is_kept_by_what_there_is():
    query = ask(kind="ANY")
    assert accepted(answer_to(query, "www.example. 70 IN A 192.0.2.1"), query).lifetime == 70


@pytest.mark.parametrize(
    ("name", "left"), [("ipv4only.arpa.", 2), ("IPv4only.ARPA.", 2), ("www.example.", 0)]
)
def test_what_tells_of_nat64_is_no_address_to_be_reached(name, left):
    """RFC 7050: a client that gets nothing else knows that there is none."""
    well_known, private = ["192.0.0.170", "192.0.0.171"], "192.0.0.172"
    response = answer_to(ask(name), *(f"{name} 300 IN A {address}" for address in (*well_known, private)))
    answer = accepted(response, ask(name), lambda address: not address.startswith(bytes((192, 0, 0))))
    assert answer.addresses_taken_out == 3 - left
    assert [record.split()[-1] for record in lines(responded(ask(name), answer).answer)] == well_known[:left]


def test_refused_addresses_are_taken_out():
    response = answer_to(
        ask(),
        "www.example. 300 IN A 192.0.2.1",
        "www.example. 300 IN A 10.1.1.1",
        "www.example. 300 IN AAAA fd00::1",
        "www.example. 300 IN TXT 10.1.1.1",
        "www.example. 300 IN HTTPS 1 . alpn=h2",
        "www.example. 300 IN HTTPS 2 . ipv4hint=192.0.2.1,10.1.1.1",
        "www.example. 300 IN SVCB 1 . ipv6hint=fd00::1",
        "www.example. 300 IN SVCB 2 . ipv6hint=2001:db8::1",
        additional=["ns.example. 300 IN A 10.1.1.1", "ns.example. 300 IN A 192.0.2.9"],
        authority=["example. 300 IN A 10.1.1.1"],
    )
    response.flags |= dns.flags.AD
    answer = accepted(response)
    assert answer.addresses_taken_out == 6
    seen = responded(ask(want_dnssec=True), answer)
    assert not seen.flags & dns.flags.AD, "what is left is not what was signed"
    assert lines(seen.answer) == [
        "www.example. 300 IN A 192.0.2.1",
        'www.example. 300 IN TXT "10.1.1.1"',
        'www.example. 300 IN HTTPS 1 . alpn="h2"',
        'www.example. 300 IN SVCB 2 . ipv6hint="2001:db8::1"',
    ]
    assert (lines(seen.authority), lines(seen.additional)) == ([], ["ns.example. 300 IN A 192.0.2.9"])
    assert len(responded(ask(), accepted(response, show=None)).answer) == 8, "the operator trusts this domain"


LEADING = [
    *("CNAME {}", "DNAME {}", "NS {}", "PTR {}", "MX 10 {}", "SRV 1 1 80 {}", "AFSDB 1 {}", "RT 10 {}"),
    *("KX 1 {}", "LP 1 {}", "HTTPS 0 {}", "SVCB 1 {} port=80", 'NAPTR 1 1 "S" "SIP+D2U" "" {}'),
]


@pytest.mark.parametrize("data", LEADING)
@pytest.mark.parametrize(
    ("target", "passes"),
    [
        *(("web.vm.internal.", False), ("WEB.VM.Internal.", False), ("vm.internal.", False)),
        *(("a.b.vm.internal.", False), ("localhost.", False), ("a.localhost.", False)),
        *((r"web\.vm.internal.", False), (r"web.vm.internal\000.evil.example.", False)),
        *(("web.", False), ("gateway.", False)),
        *((".", True), ("w.example.", True), ("evilvm.internal.", True), ("vm.internal.example.", True)),
    ],
)
def test_records_that_lead_to_the_lan_are_taken_out(data, target, passes):
    kind, rest = data.format(target).split(maxsplit=1)
    response = answer_to(ask(), f"www.example. 300 IN {kind} {rest}", "www.example. 300 IN A 192.0.2.1")
    response.flags |= dns.flags.AD
    answer = accepted(response)
    seen = responded(ask(want_dnssec=True), answer)
    assert (answer.names_taken_out, answer.addresses_taken_out) == (not passes, 0)
    assert len(seen.answer) == 1 + passes
    assert bool(seen.flags & dns.flags.AD) == passes
    trusted = accepted(response, show=None, ours=None)
    assert (trusted.names_taken_out, len(responded(ask(), trusted).answer)) == (0, 2)


def test_records_of_the_lans_names_do_not_come_from_outside():
    found = ["www.example. 9 IN CNAME web.vm.internal.", "web.vm.internal. 9 IN A 192.0.2.1"]
    more = ["gateway.vm.internal. 9 IN AAAA 2001:db8::1", "ns.example. 9 IN A 192.0.2.9"]
    zone = f"vm.internal. 9 IN SOA {SOA}"
    answer = accepted(answer_to(ask(), *found, authority=[zone], additional=more))
    assert answer.names_taken_out == 4
    seen = responded(ask(), answer)
    assert (lines(seen.answer), lines(seen.authority)) == ([], [])
    assert lines(seen.additional) == [more[1]]


@pytest.mark.parametrize("kind", [5, 15, 33, 65])
def test_a_target_whose_pointer_leads_forwards_is_taken_out(kind):
    """Common clients follow it: here to a record behind it."""
    fixed = bytes({5: 0, 15: 2, 33: 6, 65: 2}[kind])
    name = b"\3web\2vm\x08internal\0"
    before = len(with_records((kind, fixed + b"\xc0\0"))) + 12
    wire = with_records((kind, fixed + b"\xc0" + bytes((before,))), (16, name))
    assert wire[before:] == name
    answer = accepted(wire)
    assert answer.names_taken_out == 1
    assert kinds_and_data(answer.wire) == [(16, name)]


def test_names_that_make_very_many_labels_make_an_answer_unusable():
    deep = b"\1a" * 120 + b"\0"
    first = len(with_records((16, b""))) + 2
    found = [(16, b"\0\0" + deep), *[(5, b"\1b" * 3 + b"\xc0" + bytes((first,)))] * 3000]
    assert accepted(with_records(*found)).wire, "what pointers lead to is read once"
    texts = [(16, deep)] * 40
    starts = [len(with_records(*texts[:n], (16, b""))) for n in range(40)]
    offsets = [start + 2 * n for start in starts for n in range(60)]
    found = [(5, (0xC000 | offset).to_bytes(2, "big")) for offset in offsets]
    with pytest.raises(MalformedMessageError):
        accepted(with_records(*texts, *found))


ODD_ADDRESSES = {
    "A of 3 bytes": (1, b"\x0a\1\1"),
    "A of 5 bytes": (1, b"\x0a\1\1\1\0"),
    "AAAA of 4 bytes": (28, b"\x0a\1\1\1"),
    "HTTPS that is cut": (65, b"\0\1"),
    "HTTPS with a hint of 5 bytes": (65, b"\0\1\0" + b"\0\4\0\5\x0a\1\1\1\0"),
    "HTTPS with a hint that is cut": (65, b"\0\1\0" + b"\0\4\0\x08\x0a\1\1\1"),
    "HTTPS with half a key": (65, b"\0\1\0" + b"\0\4\0"),
    "HTTPS with its keys in disorder": (65, b"\0\1\0" + b"\0\6\0\0" + b"\0\4\0\4\x0a\1\1\1"),
}


@pytest.mark.parametrize("name", ODD_ADDRESSES)
def test_a_record_whose_addresses_cannot_be_told_is_taken_out(name):
    kind, data = ODD_ADDRESSES[name]
    answer = accepted(with_records((kind, data), (16, b"\1x")))
    assert answer.addresses_taken_out == 1
    assert kinds_and_data(answer.wire) == [(16, b"\1x")]


def with_records(*found):
    """Answer with records of these types and data, well-formed or not."""
    wire = bytearray(answer_to(ask()).to_wire())
    wire[6:8] = len(found).to_bytes(2, "big")
    for kind, data in found:
        wire += b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\x09"
        wire += len(data).to_bytes(2, "big") + data
    return bytes(wire)


def kinds_and_data(wire):
    return [(kind, wire[data:end]) for _, kind, data, end in WireMessage(wire).records]


ODD = [(15, b"x"), (65400, b"\xc0\x0c\xff"), (16, b"\xffshort"), (43, b""), (2, b"\x05ab"), (6, b"\xc0")]
"""Records that dnspython refuses, and one of a type that nobody knows."""


@pytest.mark.parametrize("among", [(1, b"\x08\x08\x08\x08"), (1, b"\x0a\1\1\1")], ids=["good", "refused"])
def test_odd_records_pass_as_they_are(among):
    good = (1, b"\x08\x08\x04\x04")
    answer = accepted(with_records(among, *ODD, good))
    assert answer.lifetime == 9
    expected = [*ODD, good] if answer.addresses_taken_out else [among, *ODD, good]
    for query in (ask(), ask(want_dnssec=True)):
        sent = respond(parsed(query), answer.wire, 4, 65_535)
        assert kinds_and_data(sent)[: len(expected)] == expected
        assert {WireMessage(sent).ttl(index) for index in range(len(expected))} == {5}


def test_long_answers_are_looked_at_in_slices():
    hints = (64, b"\0\1\0\0\6" + (16 * 4000).to_bytes(2, "big") + bytes(16 * 4000))
    addresses = [(1, n.to_bytes(4, "big")) for n in range(3500)]
    for found, steps in ((addresses, 1 + 3500 // SLICE), ([hints], 4000 // SLICE), ([(1, bytes(4))], 0)):
        work = accept(with_records(*found), parsed(ask()).question, may_show)
        assert sum(1 for _ in work) == steps


LOOPS = 200_000
"""Rounds of the simplest loop that take some 10 ms of a usual processor."""


@pytest.mark.no_cover
def test_no_step_takes_long():
    """A neighbour's frames wait for some 10 ms of the processor at most, whatever else it has to do."""
    found = [record for n in range(1500) for record in ((1, n.to_bytes(4, "big")), (5, b"\1a\xc0\x0c"))]
    wire = with_records((1, bytes((10, 1, 1, 1))), *found)

    def cost():
        work, longest = accept(wire, parsed(ask()).question, may_show, is_ours), 0.0
        while True:
            before = time.thread_time()
            step = next(work, "done")
            longest = max(longest, time.thread_time() - before)
            if step == "done":
                return longest

    def cost_of_a_loop():
        before = time.thread_time()
        for n in range(LOOPS):
            n.to_bytes(4, "big")
        return time.thread_time() - before

    assert min(cost() / cost_of_a_loop() for _ in range(10)) < 1


# -- responses --------------------------------------------------------------------------------------


def test_a_response_is_the_guests_own():
    response = answer_to(
        ask(), "www.example. 300 IN A 192.0.2.1", authority=["example. 10 IN NS ns.example."]
    )
    response.flags |= dns.flags.AA
    seen = responded(ask("wWw.example.", id=77), accepted(response), 100)
    assert (seen.id, seen.question[0].name.to_text()) == (77, "wWw.example.")
    assert seen.flags == dns.flags.QR | dns.flags.RA | dns.flags.RD
    assert lines(seen.answer) == ["wWw.example. 200 IN A 192.0.2.1"]
    assert [record.ttl for record in seen.authority] == [0]
    assert seen.edns == -1


@pytest.mark.parametrize("with_edns", [False, True])
@pytest.mark.parametrize("dnssec_ok", [False, True])
@pytest.mark.parametrize("authentic", [False, True])
@pytest.mark.parametrize("checking_disabled", [False, True])
def test_bits_of_dnssec_are_those_of_the_query(with_edns, dnssec_ok, authentic, checking_disabled):
    query = ask(use_edns=0 if with_edns else -1, want_dnssec=with_edns and dnssec_ok)
    query.flags |= dns.flags.AD * authentic | dns.flags.CD * checking_disabled
    from_server = answer_to(ask(want_dnssec=True), "www.example. 300 IN A 192.0.2.1")
    from_server.flags |= dns.flags.AD
    seen = responded(query, accepted(from_server))
    do = with_edns and dnssec_ok
    assert seen.edns == (0 if with_edns else -1)
    assert bool(seen.ednsflags & dns.flags.DO) == do
    assert bool(seen.flags & dns.flags.CD) == checking_disabled
    assert bool(seen.flags & dns.flags.AD) == (do or authentic), "RFC 6840 sections 5.7 and 5.8"
    from_server.flags &= ~dns.flags.AD
    assert not responded(query, accepted(from_server)).flags & dns.flags.AD


def test_over_udp_a_large_response_is_cut_and_says_so():
    answer = accepted(answer_to(ask(), *(f"www.example. 300 IN A 192.0.2.{n}" for n in range(100))))
    cut = responded(ask(), answer, size=512)
    assert cut.flags & dns.flags.TC
    assert len(cut.answer) == (512 - len(ask().to_wire())) // 16
    assert not responded(ask(), answer).flags & dns.flags.TC
    assert len(responded(ask(), answer).answer) == 100


def test_additional_records_are_left_out_without_a_word():
    more = [f"ns{n}.example. 300 IN A 192.0.2.1" for n in range(60)]
    answer = accepted(answer_to(ask(), "www.example. 300 IN A 192.0.2.1", additional=more))
    cut = responded(ask(use_edns=0), answer, size=512)
    assert not cut.flags & dns.flags.TC
    assert (len(cut.answer), cut.edns) == (1, 0)
    assert 0 < len(cut.additional) < 60


LINES = [
    *("www.example. {} IN A 192.0.2.1", "a.www.example. {} IN A 10.1.1.1", "x.example. {} IN AAAA fd00::1"),
    *(
        "www.example. {} IN CNAME a.example.",
        "example. {} IN NS ns.www.example.",
        f"example. {{}} IN SOA {SOA}",
    ),
    *("www.example. {} IN MX 1 mail.www.example.", "_a.www.example. {} IN SRV 1 2 3 www.example."),
    *("www.example. {} IN HTTPS 1 . ipv4hint=10.1.1.1", "www.example. {} IN SVCB 1 b.example. alpn=h2"),
    *(f"www.example. {{}} IN TYPE65400 {UNKNOWN}", '. {} IN TXT "text"', "www.example. {} IN DNAME x.test."),
]
SECTION = st.lists(
    st.tuples(st.sampled_from(LINES), st.integers(0, 2**31 - 1)).map(lambda pair: pair[0].format(pair[1])),
    max_size=6,
)


@given(
    st.tuples(SECTION, SECTION, SECTION),
    st.sampled_from(["www.example.", "WWW.Example."]),
    st.booleans(),
    st.integers(0, 100_000),
    st.integers(300, 800),
)
@settings(max_examples=1000, deadline=None)
def test_a_guest_gets_what_the_oracle_makes_of_an_answer(sections, name, with_edns, seconds, size):
    response = answer_to(ask(), *sections[0], authority=sections[1], additional=sections[2])
    if with_edns:
        response.use_edns(0)
    query = ask(name, use_edns=0 if with_edns else -1)
    wire = respond(parsed(query), accepted(response).wire, seconds, size)
    assert len(wire) <= size
    seen = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert (seen.id, seen.question, seen.edns) == (query.id, query.question, query.edns)
    missing = False
    for section, came in zip(sections, seen.sections[1:], strict=True):
        expected = []
        for rrset in records(*(line for line in section if "10.1.1.1" not in line and "fd00::1" not in line)):
            rrset.ttl = max(0, rrset.ttl - seconds)
            expected.append(rrset.to_text().lower())
        found = [line.lower() for line in lines(came)]
        assert found == ([] if missing else expected[: len(found)])
        missing |= len(found) < len(expected)
        if came is not seen.additional:
            assert bool(seen.flags & dns.flags.TC) >= missing
    assert not seen.flags & dns.flags.TC or missing


@given(st.data())
@settings(max_examples=1000, deadline=None)
def test_no_damage_to_a_response_raises_anything_else(data):
    wire = bytearray(
        answer_to(
            ask(use_edns=0),
            "www.example. 60 IN HTTPS 1 . ipv4hint=192.0.2.1",
            "www.example. 60 IN A 10.1.1.1",
            authority=(f"example. 9 IN SOA {SOA}",),
        ).to_wire()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        answer = accepted(bytes(wire))
    except MalformedMessageError:
        return
    assert answer.lifetime >= 0
    for query in (ask(), ask(use_edns=0)):
        WireMessage(respond(parsed(query), answer.wire, 5, 512))

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from itertools import count, pairwise

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import pytest
from lan_parts import ip, mac

import actors.gateway.dns as dns_actor
from actors.gateway.dns import IN_FLIGHT, ORDINARY_COST, QUERY_BURST, READING, SHARE, TELLING, DnsActor
from actors.messages import (
    DnsQuestion,
    DnsQuestions,
    Ipv6AddressesKnown,
    NameBound,
    NameForgotten,
    NameServerAnswered,
    PortClosed,
)
from actors.runtime import run_ready
from actors.settings import FixedLease, LanSettings
from netstack.dns_cache import DnsCache


class FakeUpstream:
    """Name servers that answer when the test says so."""

    def __init__(self):
        self.asked = []
        self.hidden = {"192.168.1.1", "127.0.0.1"}
        self.closed = False

    def ask(self, query, token, asker):
        self.asked.append((dns.message.from_wire(query), token, asker))

    def may_show(self, address):
        return str(ip_address(address)) not in self.hidden

    def close(self):
        self.closed = True

    def answer(self, *lines, code="NOERROR", authority=(), wire=None):
        """Answer the oldest question, with lines such as ``300 A 192.0.2.1``."""
        query, token, asker = self.asked.pop(0)
        if wire is None:
            response = dns.message.make_response(query)
            name = query.question[0].name
            for line in lines:
                ttl, kind, data = line.split(maxsplit=2)
                response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
            for line in authority:
                owner, ttl, kind, data = line.split(maxsplit=3)
                response.authority.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
            response.set_rcode(dns.rcode.from_text(code))
            wire = response.to_wire()
        asker.tell(NameServerAnswered(token, wire))
        run_ready()

    def fail(self):
        _, token, asker = self.asked.pop(0)
        asker.tell(NameServerAnswered(token, None))
        run_ready()


class Service:
    """The actor, and guests that ask it."""

    def __init__(self, counters, **settings):
        self.upstream = FakeUpstream()
        self.counters = counters
        self.ref = DnsActor.start(self.upstream, counters, LanSettings(**settings))

    def tell(self, *messages):
        for message in messages:
            self.ref.tell(message)
        run_ready()

    def asks(self, name="www.example.", kind="A", port=1, *, over_stream=False, wire=None, **options):
        """Ask; give the list that the response will be in."""
        responses = []
        query = dns.message.make_query(name, kind, **options).to_wire() if wire is None else wire

        def reply(response):
            responses.append(dns.message.from_wire(response, continue_on_error=True))

        question = DnsQuestion(query, over_stream, reply)
        self.tell(DnsQuestions(port, [question]))
        return responses

    def books_are_right(self):
        c = self.counters
        waiting = c["dns.forwarded"] - c["dns.answered"] - c["dns.failed"] - c["dns.abandoned"]
        assert waiting >= 0
        assert c["dns.received"] == sum(
            c.total(f"dns.{what}") for what in ("local", "cached", "forwarded", "refused", "drop")
        )
        return waiting


@pytest.fixture(autouse=True)
def work_takes_no_time(monkeypatch):
    monkeypatch.setattr(dns_actor, "work_time", lambda: 0.0)


@pytest.fixture
def service(loop, counters):
    service = Service(counters)
    yield service
    assert service.books_are_right() == 0


def texts(responses):
    (response,) = responses
    return [record.to_text() for record in response.answer]


def codes(responses):
    return [dns.rcode.to_text(response.rcode()) for response in responses]


def test_a_question_goes_to_the_name_servers_and_its_answer_to_the_guest(service):
    responses = service.asks(id=7)
    assert responses == []
    assert service.upstream.asked[0][0].question[0].to_text() == "www.example. IN A"
    service.upstream.answer("300 A 192.0.2.1")
    assert texts(responses) == ["www.example. 300 IN A 192.0.2.1"]
    assert responses[0].id == 7
    assert not responses[0].flags & dns.flags.AA


def test_ipv6_addresses_are_kept(service):
    responses = service.asks(kind="AAAA")
    service.upstream.answer("300 AAAA 2606:4700::1")
    assert texts(responses) == ["www.example. 300 IN AAAA 2606:4700::1"]


def test_an_answer_is_kept_by_its_ttl_which_counts_down(service, loop):
    service.asks()
    service.upstream.answer("300 A 192.0.2.1")
    loop.advance(100.0)
    assert texts(service.asks("WWW.example.")) == ["WWW.example. 200 IN A 192.0.2.1"]
    assert service.upstream.asked == []
    loop.advance(200.0)
    service.asks()
    service.upstream.answer("300 A 192.0.2.2")
    assert service.counters["dns.cached"] == 1


def test_that_there_is_no_such_name_is_kept_too(service, loop):
    soa = "example. 900 SOA ns.example. h.example. 1 7200 600 86400 60"
    first = service.asks()
    service.upstream.answer(code="NXDOMAIN", authority=[soa])
    loop.advance(59.0)
    assert codes(first + service.asks()) == ["NXDOMAIN"] * 2
    loop.advance(1.0)
    service.asks()
    service.upstream.answer(code="NXDOMAIN", authority=[soa])


def test_who_asks_the_same_at_the_same_time_gets_the_same_answer(service):
    one, other = service.asks(port=1, id=1), service.asks("www.EXAMPLE.", port=2, id=2)
    assert len(service.upstream.asked) == 1
    service.upstream.answer("0 A 192.0.2.1")
    assert [(r.id, r.question[0].name.to_text()) for r in one + other] == [
        (1, "www.example."),
        (2, "www.EXAMPLE."),
    ]
    service.asks()
    assert len(service.upstream.asked) == 1, "a TTL of 0 is not kept"
    service.upstream.fail()


def test_questions_that_get_different_answers_are_different(service):
    service.asks()
    service.asks(want_dnssec=True)
    service.asks(kind="AAAA")
    assert len(service.upstream.asked) == 3
    for _ in range(3):
        service.upstream.fail()


@pytest.mark.parametrize("wire", [None, b"", b"\0" * 12, b"rubbish that is no message"])
def test_without_an_answer_the_guest_is_told_so(service, wire):
    responses = service.asks()
    if wire is None:
        service.upstream.fail()
    else:
        service.upstream.answer(wire=wire)
    assert codes(responses) == ["SERVFAIL"]
    assert service.counters["dns.unusable_answers"] == (wire is not None)


def test_private_addresses_do_not_come_from_outside(service):
    for _ in range(2):
        responses = service.asks()
        if service.upstream.asked:
            service.upstream.answer("300 A 192.168.1.1", "300 A 10.0.2.10", "300 A 192.0.2.1")
        assert texts(responses) == ["www.example. 300 IN A 192.0.2.1"]
    responses = service.asks("private.example.")
    service.upstream.answer("300 A 127.0.0.1")
    assert (texts(responses), codes(responses)) == ([], ["NOERROR"])
    assert service.counters["dns.addresses_stripped"] == 3


def test_the_lans_ipv6_addresses_do_not_come_from_outside(service):
    responses = service.asks(kind="AAAA")
    service.upstream.answer("300 AAAA fd76:6d72:656c:6179::15", "300 AAAA 2606:4700::1")
    assert texts(responses) == ["www.example. 300 IN AAAA 2606:4700::1"]


def test_service_bindings_come_without_those_that_point_into_private_networks(service):
    for name in ("a.example.", "b.example."):
        responses = service.asks(name, kind="HTTPS")
        service.upstream.answer(
            "300 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1,192.168.1.1",
            "300 HTTPS 2 . ipv6hint=fd76:6d72:656c:6179::2",
            "300 HTTPS 3 . ipv4hint=10.0.2.2",
            "300 HTTPS 4 . ipv4hint=192.0.2.1 ipv6hint=2606:4700::1",
        )
        assert texts(responses) == [f'{name} 300 IN HTTPS 4 . ipv4hint="192.0.2.1" ipv6hint="2606:4700::1"']


def test_public_names_do_not_lead_to_guests(service):
    service.tell(NameBound(mac(1), ip("10.0.2.10"), "web"))
    responses = service.asks()
    service.upstream.answer("300 CNAME web.vm.internal.", authority=["web.vm.internal. 300 A 192.0.2.1"])
    assert (texts(responses), codes(responses)) == ([], ["NOERROR"])
    assert service.counters["dns.names_stripped"] == 2


def test_names_that_the_operator_trusts_may_lead_to_guests(loop, counters):
    service = Service(counters, dns_allow_private=("corp.example",))
    responses = service.asks("www.corp.example.")
    service.upstream.answer("300 CNAME web.vm.internal.")
    assert texts(responses) == ["www.corp.example. 300 IN CNAME web.vm.internal."]


def test_names_that_the_operator_trusts_may_have_private_addresses(loop, counters):
    service = Service(counters, dns_allow_private=("dnsbl.example",))
    listed = service.asks("2.0.0.127.dnsbl.example.")
    service.upstream.answer("300 A 127.0.0.1")
    other = service.asks("evil.example.")
    service.upstream.answer("300 A 127.0.0.1")
    assert texts(listed) == ["2.0.0.127.dnsbl.example. 300 IN A 127.0.0.1"]
    assert texts(other) == []


# -- local names ------------------------------------------------------------------------------------


def test_names_of_the_lan_are_answered_without_anyone_elses_help(service):
    service.tell(NameBound(mac(1), ip("10.0.2.10"), "web"))
    assert texts(service.asks("web.vm.internal.")) == ["web.vm.internal. 10 IN A 10.0.2.10"]
    assert texts(service.asks("gateway.vm.internal.")) == ["gateway.vm.internal. 10 IN A 10.0.2.2"]
    assert texts(service.asks("10.2.0.10.in-addr.arpa.", "PTR")) == [
        "10.2.0.10.in-addr.arpa. 10 IN PTR web.vm.internal."
    ]
    assert codes(service.asks("host.vm.internal.")) == ["NXDOMAIN"]
    service.tell(NameForgotten(mac(1)))
    assert codes(service.asks("web.vm.internal.")) == ["NXDOMAIN"]
    assert service.upstream.asked == []


def test_the_host_has_a_name_where_guests_reach_it(loop, counters):
    service = Service(counters, host_access=True)
    assert texts(service.asks("host.vm.internal.")) == ["host.vm.internal. 10 IN A 10.0.2.4"]


def test_a_fixed_lease_has_its_name_before_the_guest_is_there(loop, counters):
    service = Service(counters, fixed_leases=(FixedLease(mac(1), ip("10.0.2.50"), "db"),))
    service.tell(NameBound(mac(2), ip("10.0.2.10"), "db"))
    assert texts(service.asks("db.vm.internal.")) == ["db.vm.internal. 10 IN A 10.0.2.50"]


@pytest.mark.parametrize(("name", "kind"), [("web", "A"), ("web", "AAAA"), ("db", "A"), ("db", "AAAA")])
def test_isolated_guests_do_not_find_each_other_by_name(loop, counters, name, kind):
    service = Service(counters, isolated=True, fixed_leases=(FixedLease(mac(2), ip("10.0.2.50"), "db"),))
    ipv6 = {n: ip_address(f"fd76:6d72:656c:6179::1{n}").packed for n in (1, 2)}
    service.tell(NameBound(mac(1), ip("10.0.2.10"), "web", granted=True))
    service.tell(*(Ipv6AddressesKnown(mac(n), (address,)) for n, address in ipv6.items()))
    assert codes(service.asks(f"{name}.vm.internal.", kind)) == ["NXDOMAIN"]
    assert texts(service.asks("gateway.vm.internal.")) == ["gateway.vm.internal. 10 IN A 10.0.2.2"]
    for address in map(ip_address, (ip("10.0.2.10"), ip("10.0.2.50"), *ipv6.values())):
        assert codes(service.asks(str(dns.reversename.from_address(str(address))), "PTR")) == ["NXDOMAIN"]
    (reverse,) = texts(service.asks("2.2.0.10.in-addr.arpa.", "PTR"))
    assert reverse.endswith("PTR gateway.vm.internal.")
    assert service.upstream.asked == []


# -- limits -----------------------------------------------------------------------------------------


def test_a_session_that_asks_too_often_is_not_heard_and_others_are(service, loop):
    for _ in range(int(QUERY_BURST)):
        service.asks("gateway.")
    assert service.asks("gateway.") == []
    assert len(service.asks("gateway.", port=2)) == 1
    assert service.counters["dns.drop.rate"] == 1
    loop.advance(0.02)
    assert len(service.asks("gateway.")) == 1


def test_three_hundred_questions_at_once_are_all_answered(service):
    answers = [service.asks(f"n{n}.example.") for n in range(300)]
    assert len(service.upstream.asked) == SHARE
    while service.upstream.asked:
        assert len(service.upstream.asked) <= SHARE
        service.upstream.answer("300 A 192.0.2.1")
    assert [codes(answer) for answer in answers] == [["NOERROR"]] * 300
    assert service.counters["dns.asked_upstream"] == 300


def test_silent_servers_of_some_sessions_leave_room_for_others(service):
    for n in range(250):
        service.asks(f"n{n}.example.")
    assert service.asks("other.example.", port=2) == []
    assert len(service.upstream.asked) == SHARE + 1
    service.tell(PortClosed(1))
    while service.upstream.asked:
        service.upstream.fail()


def test_nobody_waits_in_the_queue_of_a_session_with_silent_servers(service):
    """It may have asked for all that others are likely to ask for."""
    for n in range(SHARE + 2):
        service.asks(f"n{n}.example.")
    first, last = f"n{SHARE}.example.", f"n{SHARE + 1}.example."
    answers = service.asks(last, port=2)
    assert len(service.upstream.asked) == SHARE + 1
    service.upstream.asked.insert(0, service.upstream.asked.pop())
    service.upstream.answer("300 A 192.0.2.1")
    assert texts(answers) == [f"{last} 300 IN A 192.0.2.1"]
    names = [service.upstream.asked[0][0].question[0].name.to_text()]
    while service.upstream.asked:
        service.upstream.fail()
        names += [query.question[0].name.to_text() for query, _, _ in service.upstream.asked[-1:]]
    assert first in names
    assert last not in names, "one question was asked once"
    assert service.counters["dns.asked_upstream"] == SHARE + 2


def test_of_the_queries_that_may_wait_sessions_get_less_the_more_do(loop, counters, monkeypatch):
    monkeypatch.setattr(dns_actor, "WAITING", 8)
    service = Service(counters)
    ports = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
    waiting = Counter(port for n, port in enumerate(ports) if not service.asks(f"n{n}.example.", port=port))
    assert waiting == {1: 4, 2: 2, 3: 1}
    service.tell(PortClosed(1))
    assert service.asks("more.example.", port=3) == []
    while service.upstream.asked:
        service.upstream.fail()
    assert service.books_are_right() == 0


def test_however_many_sessions_have_silent_servers_a_newcomer_is_heard(service):
    for port in range(8):
        for n in range(SHARE):
            service.asks(f"n{n}.of{port}.example.", port=port)
    for newcomer in (100, 101):
        before = len(service.upstream.asked)
        assert before < IN_FLIGHT
        service.asks(f"other.of{newcomer}.example.", port=newcomer)
        assert len(service.upstream.asked) == before + 1
    while service.upstream.asked:
        service.upstream.fail()


def test_what_costs_time_counts_as_many_questions(service, loop, monkeypatch):
    spent = count(step=ORDINARY_COST * 50)
    monkeypatch.setattr(dns_actor, "work_time", lambda: next(spent))
    fits = int(QUERY_BURST) // 50
    for n in range(fits):
        service.asks(f"n{n}.example.")
    assert service.counters["dns.drop.rate"] == 0
    service.asks("more.example.")
    service.asks("others.example.", port=2)
    assert service.counters["dns.drop.rate"] == 1
    assert len(service.upstream.asked) == fits + 1
    loop.advance(1.0)
    service.asks("later.example.")
    assert service.counters["dns.drop.rate"] == 1
    while service.upstream.asked:
        service.upstream.fail()


def test_answers_that_cost_time_count_as_many_questions(service, monkeypatch):
    service.asks("costly.example.")
    spent = count(step=ORDINARY_COST * QUERY_BURST)
    monkeypatch.setattr(dns_actor, "work_time", lambda: next(spent))
    service.upstream.answer("300 A 192.0.2.1")
    monkeypatch.setattr(dns_actor, "work_time", lambda: 0.0)
    service.asks("more.example.")
    assert service.counters["dns.drop.rate"] == 1


def test_costly_questions_of_all_sessions_are_read_in_turn_and_few_in_a_turn_of_the_loop(
    service, loop, monkeypatch
):
    spent = count(step=READING)
    monkeypatch.setattr(dns_actor, "work_time", lambda: next(spent))
    query = dns.message.make_query("gateway.", "A").to_wire()
    answered = []
    for port in (1, 2):
        question = DnsQuestion(query, over_stream=False, reply=lambda _, port=port: answered.append(port))
        service.tell(DnsQuestions(port, [question] * 4))
    service.tell(PortClosed(3), DnsQuestions(3, [DnsQuestion(query, over_stream=False, reply=print)]))
    service.tell(PortClosed(3))
    read = [len(answered)]
    while not loop.idle:
        loop.turn()
        read.append(len(answered))
    assert read[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(read))
    assert read[-1] == 8
    assert answered[1:] in ([1, 2] * 3 + [2], [2, 1] * 3 + [2])
    assert service.counters["dns.drop.session_ended"] == 1


def test_of_many_who_wait_for_one_answer_few_are_told_in_a_turn_of_the_loop(service, loop, monkeypatch):
    answers = [service.asks(port=port) for port in (1, 2, 1, 3)]
    spent = count(step=TELLING)
    monkeypatch.setattr(dns_actor, "work_time", lambda: next(spent))
    service.upstream.answer("300 A 192.0.2.1")
    service.tell(PortClosed(3))
    told = [sum(map(len, answers))]
    while not loop.idle:
        loop.turn()
        told.append(sum(map(len, answers)))
    assert told[0] == 1
    assert told[-1] == 3
    assert all(after - before <= 1 for before, after in pairwise(told))
    assert service.counters["dns.abandoned"] == 1


def test_where_descriptors_are_few_so_are_the_questions_in_flight(loop, counters):
    service = Service(counters, max_questions=4)
    for port in (1, 2, 3):
        for n in range(5):
            service.asks(f"n{n}.of{port}.example.", port=port)
    assert len(service.upstream.asked) == 4
    service.upstream.fail()
    assert len(service.upstream.asked) == 3, "the last place is for who has none"
    service.asks("other.example.", port=4)
    assert len(service.upstream.asked) == 4
    service.upstream.fail()
    assert len(service.upstream.asked) == 4, "the next that waited is asked"
    while service.upstream.asked:
        service.upstream.fail()
    assert counters["dns.asked_upstream"] == 16


def test_one_bad_record_does_not_cost_the_others(service):
    responses = service.asks()
    query = service.upstream.asked[0][0]
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "A", "192.0.2.1"))
    service.upstream.answer(wire=with_bad_record(response))
    assert texts(responses) == ["www.example. 60 IN A 192.0.2.1"]
    assert len(responses[0].errors) == 1, "the odd one is there too"


def with_bad_record(response):
    """Add an MX record of one byte to the answers."""
    response.use_edns(-1)
    plain = bytearray(response.to_wire())
    plain[6:8] = (2).to_bytes(2, "big")
    return bytes(plain) + b"\xc0\x0c\0\x0f\0\1" + bytes(4) + b"\0\1x"


def test_a_long_answer_is_looked_at_beside_what_others_want(service, loop):
    responses = service.asks(over_stream=True)
    query, token, asker = service.upstream.asked.pop(0)
    response = dns.message.make_response(query)
    addresses = [f"8.8.{n // 250}.{n % 250}" for n in range(3000)]
    response.answer = [dns.rrset.from_text("www.example.", 60, "IN", "A", *addresses, "127.0.0.1")]
    asker.tell(NameServerAnswered(token, response.to_wire(max_size=65_535)))
    turns = 0
    while not responses:
        assert texts(service.asks("gateway.", over_stream=True)) == ["gateway. 10 IN A 10.0.2.2"]
        loop.turn()
        turns += 1
    assert turns >= 30
    assert sorted(record.address for record in responses[0].answer[0]) == sorted(addresses)
    assert service.counters["dns.addresses_stripped"] == 1


def test_of_long_answers_that_come_at_once_one_is_read_in_a_turn(service, loop, monkeypatch):
    read = []

    def accept(wire, *arguments):
        read.append(wire)
        return (yield from accept_answer(wire, *arguments))

    accept_answer = dns_actor.accept
    monkeypatch.setattr(dns_actor, "accept", accept)
    everyone = [service.asks(f"n{number}.example.", over_stream=True) for number in range(5)]
    addresses = [f"8.8.0.{n}" for n in range(200)]
    for query, token, asker in service.upstream.asked:
        response = dns.message.make_response(query)
        response.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *addresses)]
        asker.tell(NameServerAnswered(token, response.to_wire(max_size=65_535)))
    run_ready()
    assert len(read) == 1
    while not all(everyone):
        before = len(read)
        loop.turn()
        assert len(read) <= before + 1
    assert len(read) == 5


def test_answers_that_are_being_looked_at_count_as_questions_in_flight(loop, counters):
    """They hold up to 64 KB each, until it is their turn."""
    service = Service(counters, max_questions=2)
    responses = [service.asks(f"n{n}.example.", port=n, over_stream=True) for n in range(3)]
    assert len(service.upstream.asked) == 2
    query, token, asker = service.upstream.asked.pop(0)
    response = dns.message.make_response(query)
    addresses = [f"8.8.{n // 250}.{n % 250}" for n in range(1000)]
    response.answer = [dns.rrset.from_text("n0.example.", 60, "IN", "A", *addresses)]
    asker.tell(NameServerAnswered(token, response.to_wire(max_size=65_535)))
    run_ready()
    while not responses[0]:
        assert len(service.upstream.asked) == 1
        loop.turn()
    assert len(service.upstream.asked) == 2
    service.upstream.answer()
    service.upstream.answer()
    assert service.books_are_right() == 0


def test_a_guest_is_found_at_its_ipv6_addresses(service):
    best, other = "fd76:6d72:656c:6179::11", "fd76:6d72:656c:6179::10"
    known = tuple(ip_address(address).packed for address in (best, other))
    service.tell(NameBound(mac(1), ip("10.0.2.10"), "web"), Ipv6AddressesKnown(mac(1), known))
    (response,) = service.asks("web.vm.internal.", "AAAA")
    assert [record.address for record in response.answer[0]] == [best, other]
    reverse = str(dns.reversename.from_address(other))
    assert texts(service.asks(reverse, "PTR")) == [f"{reverse} 10 IN PTR web.vm.internal."]
    service.tell(NameForgotten(mac(1)))
    assert codes(service.asks("web.vm.internal.", "AAAA")) == ["NXDOMAIN"]
    assert codes(service.asks(reverse, "PTR")) == ["NXDOMAIN"]
    assert service.upstream.asked == []


def test_the_gateway_is_found_by_ipv6(service, counters):
    for name in ("gateway.vm.internal.", "gateway."):
        assert texts(service.asks(name, "AAAA")) == [f"{name} 10 IN AAAA fd76:6d72:656c:6179::2"]
    without = Service(counters, ipv6_prefix=None)
    assert (texts(without.asks("gateway.", "AAAA")), codes(without.asks("gateway.", "AAAA"))) == (
        [],
        ["NOERROR"],
    )


def test_ad_comes_back_to_who_asks_for_dnssec(service):
    signed, plain = service.asks(want_dnssec=True), service.asks()
    for _ in range(2):
        query, _, _ = service.upstream.asked[0]
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AD
        service.upstream.answer(wire=response.to_wire())
    assert signed[0].flags & dns.flags.AD
    assert not plain[0].flags & dns.flags.AD


def test_a_session_may_wait_for_so_many_answers(service, monkeypatch):
    monkeypatch.setattr("actors.gateway.dns.WAITING_PER_PORT", 200)
    for n in range(200):
        service.asks(f"n{n}.example.")
    assert codes(service.asks("more.example.")) == ["SERVFAIL"]
    assert service.asks("more.example.", port=2) == []
    service.upstream.fail()
    assert service.asks("more.example.") == []
    while service.upstream.asked:
        service.upstream.fail()


def test_so_many_questions_are_in_flight_at_most(service):
    for n in range(IN_FLIGHT):
        service.asks(f"n{n}.example.", port=n)
    assert service.asks("more.example.", port=IN_FLIGHT) == []
    assert len(service.upstream.asked) == IN_FLIGHT
    assert service.asks("n1.example.", port=IN_FLIGHT) == [], "someone asked that already"
    while service.upstream.asked:
        service.upstream.fail()


def test_bad_queries(service):
    assert service.asks(wire=b"scrap") == []
    assert codes(service.asks(wire=bytes(12) + b"x")) == ["FORMERR"]
    assert service.counters["dns.drop.malformed"] == 1


def test_over_a_stream_every_question_hears_at_least_that_there_is_no_answer(service):
    replies = []
    scrap = DnsQuestion(b"scrap", True, replies.append)
    service.tell(DnsQuestions(1, [scrap] * int(QUERY_BURST + 3)))
    assert replies == [b""] * int(QUERY_BURST + 3)
    assert service.counters["dns.drop.rate"] == 3


def test_a_session_that_left_is_not_answered(service):
    responses, others = service.asks(port=1), service.asks(port=2)
    service.tell(PortClosed(1))
    service.upstream.answer("300 A 192.0.2.1")
    assert (responses, len(others)) == ([], 1)
    assert service.counters["dns.abandoned"] == 1


def test_a_question_outlives_the_session_that_asked_it_first(service):
    """It waits behind that one's others when that one leaves: who asked the same gets its answer still."""
    for port in (1, 2, 3):
        for n in range(SHARE):
            service.asks(f"n{n}.of{port}.example.", port=port)
    last = "last.example."
    others = [service.asks(last, port=port) for port in (1, 2, 3)][1:]
    service.tell(PortClosed(1))
    assert others == [[], []]
    while service.upstream.asked:
        service.upstream.answer("300 A 192.0.2.1")
    assert list(map(texts, others)) == [[f"{last} 300 IN A 192.0.2.1"]] * 2


def test_a_question_ends_with_the_last_session_that_waits_for_it(service):
    for port in (1, 2):
        for n in range(SHARE):
            service.asks(f"n{n}.of{port}.example.", port=port)
    for port in (1, 2, 1):
        service.asks("last.example.", port=port)
    service.tell(PortClosed(2), PortClosed(1))
    while service.upstream.asked:
        service.upstream.fail()
    assert service.counters["dns.asked_upstream"] == 2 * SHARE


def test_over_udp_large_answers_are_cut_and_over_streams_they_are_whole(service):
    texts_of_200 = [f'300 TXT "{n:0200}"' for n in range(5)]
    by_udp = service.asks(kind="TXT")
    by_tcp = service.asks(kind="TXT", over_stream=True)
    service.upstream.answer(*texts_of_200)
    assert by_udp[0].flags & dns.flags.TC
    assert not by_tcp[0].flags & dns.flags.TC
    assert sum(len(rrset) for rrset in by_tcp[0].answer) == 5


def test_the_end_gives_the_questions_up(loop, counters):
    service = Service(counters)
    service.asks()
    service.ref.stop(block=False)
    run_ready()
    assert service.upstream.closed


def test_answers_that_give_way_to_others_are_counted(loop, counters, monkeypatch):
    monkeypatch.setattr(dns_actor, "DnsCache", lambda **shared: DnsCache(max_entries=2, **shared))
    service = Service(counters)
    for number in range(5):
        service.asks(f"n{number}.example.")
        service.upstream.answer("300 A 192.0.2.1")
    assert counters["dns.cache_evictions"] == 3

"""Against name servers of the test's own on loopback, by UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from upstream_dns_parts import (
    QUESTION,
    Server,
    addresses,
    answer,
    framed,
    scenario,
)
from waiting import until

from netstack.name_servers import NameServer
from transport.host import upstream_dns


@scenario
async def test_a_question_and_its_answer(network, *_others):
    server = await network.server(lambda query: [answer(query)])
    network.use(server)
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert server.queries[0].question[0].to_text() == "www.example. IN A"


@scenario
async def test_ids_and_ports_are_different_each_time(network, *_others):
    server = await network.server(lambda query: [answer(query)])
    network.use(server)
    for _ in range(20):
        await network.ask()
    assert len({query.id for query in server.queries}) > 15
    assert len({port for _, port in server.clients}) > 15


@scenario
async def test_what_answers_something_else_is_passed_over(network, *_others):
    def respond(query):
        good = answer(query, "192.0.2.1")
        other_id = bytes((good[0] ^ 1,)) + good[1:]
        other_question = dns.message.make_query("evil.example.", "A", id=query.id)
        yield from (other_id, answer(other_question, "192.0.2.66"), good[:2], query.to_wire())
        yield good

    network.use(await network.server(respond))
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert network.counters["dns.upstream.strays"] == 4


@pytest.mark.parametrize("code", ["NOERROR", "SERVFAIL", "FORMERR"])
def test_an_answer_of_thousands_of_records_is_not_walked_for_its_code(code, monkeypatch, tmp_path):
    """Hundreds of them may come in one turn of the loop, at 2 ms for each walk."""
    walked = []

    class Walked(upstream_dns.WireMessage):
        def __init__(self, wire):
            walked.append(len(wire))
            super().__init__(wire)

    def respond(query):
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.from_text(code))
        wire = bytearray(response.to_wire())
        wire[6:12] = struct.pack("!HHH", 4000, 0, 0)
        return [bytes(wire) + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1" * 4000]

    @scenario
    async def attempt(network, *_others):
        network.use(await network.server(respond))
        monkeypatch.setattr(upstream_dns, "WireMessage", Walked)
        with contextlib.suppress(dns.exception.DNSException):
            await network.ask()
        assert not walked

    attempt(monkeypatch, tmp_path)


@scenario
async def test_a_server_that_floods_is_given_up(network, *_others):
    network.use(await network.server(lambda query: [b"junk"] * 50))
    assert await network.ask() is None
    assert network.counters == {
        "dns.upstream.strays": 2 * upstream_dns.MAX_STRAYS,
        "dns.upstream.no_answer": 2,
        "dns.upstream.unanswered": 1,
    }


@scenario
async def test_nobody_else_may_answer(network, *_others):
    """The socket is connected: what another address or port sends never reaches it."""
    loop = asyncio.get_running_loop()
    liar, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    def respond(query):
        liar.sendto(answer(query, "192.0.2.66"), server.clients[-1])
        yield answer(query, "192.0.2.1")

    server = await network.server(respond)
    network.use(server)
    assert addresses(await network.ask()) == ["192.0.2.1"]
    liar.close()


@scenario
async def test_silence_gives_way_to_the_next_and_after_a_while_the_first_is_asked_again(
    network, monkeypatch, _
):
    silent = await network.server(lambda query: [])
    good = await network.server(lambda query: [answer(query)])
    network.use(silent, good)
    for _ in range(3):
        assert addresses(await network.ask()) == ["192.0.2.1"]
    assert (len(silent.queries), len(good.queries)) == (1, 3)
    network.resolvers._rests_until[silent.address] = 0.0
    silent.respond = lambda query: [answer(query, "192.0.2.2")]
    for _ in range(2):
        assert addresses(await network.ask()) == ["192.0.2.2"]


@scenario
async def test_a_slow_server_is_listened_to_until_the_deadline(network, *_others):
    loop = asyncio.get_running_loop()

    def respond(query):
        if len(server.queries) == 1:
            to = server.clients[0]
            loop.call_later(0.7, lambda: server.transport.sendto(answer(query), to))
        return []

    server = await network.server(respond)
    network.use(server, await network.server(lambda query: []))
    assert addresses(await network.ask()) == ["192.0.2.1"]


@pytest.mark.parametrize("refusal", ["FORMERR", "NOTIMP", "BADVERS", "SERVFAIL", "header only", "silence"])
@pytest.mark.parametrize("dnssec", [False, True])
def test_a_server_without_edns_is_asked_without(refusal, dnssec, monkeypatch, tmp_path):
    def respond(query):
        if query.edns < 0:
            return [answer(query)]
        if refusal == "silence":
            return []
        if refusal == "header only":
            return [query.to_wire()[:2] + b"\x80\x01" + bytes(8)]
        response = dns.message.make_response(query)
        if refusal == "SERVFAIL":
            response.use_edns(-1)
        response.set_rcode(dns.rcode.from_text(refusal))
        return [response.to_wire()]

    @scenario
    async def attempt(network, *_others):
        server = await network.server(respond)
        network.use(server)
        for _ in range(2):
            assert addresses(await network.ask(QUESTION._replace(dnssec_ok=dnssec))) == ["192.0.2.1"]
        # Whoever was silent may have lost a datagram, and signatures come with EDNS only.
        in_all = 6 if refusal == "silence" and dnssec else 3
        assert len(server.queries) == in_all

    attempt(monkeypatch, tmp_path)


@scenario
async def test_a_lost_question_with_do_is_repeated_with_do(network, *_others):
    server: Any = await network.server(lambda query: [answer(query)] if len(server.queries) > 1 else [])
    network.use(server)
    assert addresses(await network.ask(QUESTION._replace(dnssec_ok=True))) == ["192.0.2.1"]
    assert [bool(query.ednsflags & dns.flags.DO) for query in server.queries] == [True, True]


@scenario
async def test_a_name_that_fails_with_and_without_edns_leaves_edns_on(network, *_others):
    def respond(query):
        response = dns.message.make_response(query)
        response.use_edns(-1)
        response.set_rcode(dns.rcode.SERVFAIL)
        return [response.to_wire()]

    server = await network.server(respond)
    network.use(server)
    assert (await network.ask()).rcode() == dns.rcode.SERVFAIL
    assert network.counters["dns.upstream.without_edns"] >= 1
    server.respond = lambda query: [answer(query)]
    await network.ask()
    assert server.queries[-1].edns == 0


@scenario
async def test_failing_with_an_opt_record_is_not_a_refusal_of_edns(network, *_others):
    server = await network.server(lambda query: [answer(query, code=dns.rcode.SERVFAIL)])
    network.use(server)
    await network.ask()
    assert network.counters["dns.upstream.without_edns"] == 0


@scenario
async def test_a_question_holds_so_many_sockets_at_most(network, monkeypatch, _):
    monkeypatch.setattr(upstream_dns, "UDP_TIMEOUT", 0.02)
    monkeypatch.setattr(upstream_dns, "DEADLINE", 1.0)
    opened = []
    most = []

    def open_socket(*arguments, opened_by_it=upstream_dns._opened):
        host_socket, address = opened_by_it(*arguments)
        opened.append(host_socket)
        most.append(sum(each.fileno() >= 0 for each in opened))
        return host_socket, address

    monkeypatch.setattr(upstream_dns, "_opened", open_socket)
    network.use(*[await network.server(lambda query: []) for _ in range(8)])
    assert await network.ask() is None
    assert len(opened) == 16
    assert max(most) == upstream_dns.MAX_OPEN


@scenario
async def test_a_closed_port_gives_way_at_once(network, *_others):
    closed = await network.server(lambda query: [])
    closed.transport.close()
    await asyncio.sleep(0)
    network.use(closed, await network.server(lambda query: [answer(query)]))
    assert addresses(await network.ask()) == ["192.0.2.1"]


@scenario
async def test_a_lost_datagram_is_sent_again(network, *_others):
    server: Any = await network.server(lambda query: [answer(query)] if len(server.queries) > 1 else [])
    network.use(server)
    assert addresses(await network.ask()) == ["192.0.2.1"]


@scenario
async def test_when_all_fail_their_failure_is_the_answer(network, *_others):
    network.use(
        await network.server(lambda query: [answer(query, code=dns.rcode.SERVFAIL)]),
        await network.server(lambda query: [answer(query, code=dns.rcode.REFUSED)]),
    )
    assert (await network.ask()).rcode() == dns.rcode.REFUSED


@scenario
async def test_that_there_is_no_such_name_is_final(network, *_others):
    other = await network.server(lambda query: [answer(query)])
    network.use(await network.server(lambda query: [answer(query, code=dns.rcode.NXDOMAIN)]), other)
    assert (await network.ask()).rcode() == dns.rcode.NXDOMAIN
    assert other.queries == []


def truncated(query):
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return [response.to_wire()]


@scenario
async def test_a_cut_answer_is_better_than_none_where_tcp_is_closed(network, *_others):
    network.use(await network.server(truncated))
    assert (await network.ask()).flags & dns.flags.TC


@scenario
async def test_a_cut_answer_is_passed_on_once_tcp_has_had_its_time(network, monkeypatch, _):
    """Where TCP is filtered; guests wait 5 s in all."""
    monkeypatch.setattr(upstream_dns, "UDP_TIMEOUT", 0.9)

    def silence(*_):
        return b""

    async def listen_only(_server, reader, writer):
        await reader.read()
        writer.close()

    monkeypatch.setattr(Server, "serve_stream", listen_only)
    server = await network.server(truncated, silence)
    network.use(server)
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await network.ask()).flags & dns.flags.TC
    assert loop.time() - before < 1.0 + 0.9, "the second attempt's time is not waited for"
    assert network.counters["dns.upstream.cut"] == 1


@scenario
async def test_a_cut_answer_does_not_keep_another_server_from_giving_the_whole_one(network, *_others):
    slow = asyncio.Event()

    def answer_slowly(query):
        asyncio.get_running_loop().call_later(0.05, slow.set)
        return []

    second = await network.server(answer_slowly)
    network.use(await network.server(truncated), second)
    asked = asyncio.create_task(network.ask())
    await slow.wait()
    second.transport.sendto(answer(second.queries[0]), second.clients[0])
    assert addresses(await asked) == ["192.0.2.1"]


@scenario
async def test_a_cut_answer_is_fetched_whole_by_tcp(network, *_others):
    network.use(await network.server(truncated, lambda query: framed(answer(query))))
    assert addresses(await network.ask()) == ["192.0.2.1"]


class Dripping(Server):
    """Sends a byte at a time."""

    async def serve_stream(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(2), "big")
        for byte in framed(answer(dns.message.from_wire(await reader.readexactly(length)))):
            await asyncio.sleep(0.002)
            writer.write(bytes([byte]))
        writer.close()


@scenario
async def test_an_answer_that_comes_byte_by_byte_wakes_nobody_before_it_is_there(network, monkeypatch, _):
    monkeypatch.setattr(upstream_dns, "UDP_TIMEOUT", 1.0)
    network.use(await network.server(truncated, by_tcp=True, kind=Dripping))
    loop = asyncio.get_running_loop()
    sizes, receive = [], loop.sock_recv

    async def sock_recv(host_socket, size):
        sizes.append(size)
        return await receive(host_socket, size)

    monkeypatch.setattr(loop, "sock_recv", sock_recv)
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert sizes[0] == upstream_dns.MAX_RESPONSE, "by UDP"
    assert len(sizes) <= 5, "each part once, and what was there of it before"


@pytest.mark.parametrize(
    "by_tcp",
    [
        lambda query: b"",
        lambda query: b"\0",
        lambda query: framed(answer(query))[:-1],
        lambda query: b"\0\2xx",
        lambda query: framed(answer(dns.message.make_query("evil.example.", "A"))),
        None,
    ],
    ids=["end", "half a length", "cut", "scrap", "other question", "closed"],
)
def test_a_stream_that_fails_gives_way_to_the_next(by_tcp, monkeypatch, tmp_path):
    @scenario
    async def attempt(network, *_others):
        bad = await network.server(truncated, by_tcp)
        network.use(bad, await network.server(lambda query: [answer(query)]))
        assert addresses(await network.ask()) == ["192.0.2.1"]

    attempt(monkeypatch, tmp_path)


@scenario
async def test_there_is_an_end_to_waiting(network, monkeypatch, _):
    monkeypatch.setattr(upstream_dns, "DEADLINE", 0.1)
    network.use(await network.server(lambda query: []))
    assert await network.ask() is None
    assert network.counters["dns.upstream.deadlines"] == 1


@scenario
async def test_a_name_with_a_zero_in_it(network, *_others):
    network.use(await network.server(lambda query: [dns.message.make_response(query).to_wire()]))
    odd = QUESTION._replace(name=dns.name.from_text(r"a\000b.example."))
    assert (await network.ask(odd)).question[0].name == odd.name


@scenario
async def test_addresses_that_cannot_be_asked_give_way(network, *_others):
    good = await network.server(lambda query: [answer(query)])
    network.use(NameServer("fe80::1%nosuchdevice"), NameServer("127.0.0.1", 0), good)
    assert addresses(await network.ask()) == ["192.0.2.1"]


@scenario
async def test_what_guests_may_be_shown_is_what_they_may_reach(network, *_others):
    network.use(allow=["192.168.7.0/24"])
    shown = {"192.168.7.1": True, "192.168.8.1": False, "127.0.0.1": False, "8.8.8.8": True, "fd00::1": False}
    assert {address: network.resolvers.may_show(ip_address(address).packed) for address in shown} == shown


@scenario
async def test_after_the_end_nobody_is_told(network, *_others):
    server = await network.server(lambda query: [])
    network.use(server)
    network.resolvers.ask(QUESTION.to_wire(), 1, network)
    await until(lambda: server.queries)
    network.resolvers.close()
    server.transport.sendto(answer(server.queries[0]), server.clients[0])
    # What comes of another question to the same server comes later.
    server.respond = lambda query: [answer(query)]
    network.use(server)
    assert addresses(await network.ask(token=2)) == ["192.0.2.1"]
    assert network.answers.empty()

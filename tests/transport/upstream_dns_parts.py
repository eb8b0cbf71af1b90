"""Name servers of a test's own on loopback, by UDP and TCP, and resolvers that ask them."""

from __future__ import annotations

import asyncio
import contextlib
import errno

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from netstack.counters import Counters
from netstack.dns_messages import Question
from netstack.egress import EgressPolicy
from netstack.name_servers import NameServer
from transport.host import upstream_dns
from transport.host.upstream_dns import HostResolvers

QUESTION = Question(dns.name.from_text("www.example."), dns.rdatatype.A, False, False)


def answer(query, address="192.0.2.1", code=dns.rcode.NOERROR):
    response = dns.message.make_response(query)
    response.set_rcode(code)
    if code == dns.rcode.NOERROR:
        response.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "A", address))
    return response.to_wire()


class Server(asyncio.DatagramProtocol):
    """A name server; ``respond`` makes the datagrams that answer a query, ``by_tcp`` the message."""

    def __init__(self, respond, by_tcp):
        self.respond = respond
        self.by_tcp = by_tcp
        self.queries = []
        self.clients = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        query = dns.message.from_wire(data)
        self.queries.append(query)
        self.clients.append(address)
        for response in self.respond(query):
            self.transport.sendto(response, address)

    async def serve_stream(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            writer.write(self.by_tcp(dns.message.from_wire(await reader.readexactly(length))))
        writer.close()


class Network:
    """Servers, resolvers that ask them, and what came of it."""

    def __init__(self):
        self.counters = Counters()
        self.answers = asyncio.Queue()
        self._cleanup = contextlib.AsyncExitStack()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.resolvers.close()
        await self._cleanup.aclose()
        await asyncio.sleep(0)

    async def server(self, respond, by_tcp=None, kind=Server):
        """Start a server; give it, with its address."""
        server = kind(respond, by_tcp)
        while not await self._bind(server):
            pass
        return server

    async def _bind(self, server):
        """Listen by UDP and, if wanted, TCP; False if someone else has the TCP port of that number."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
        self._cleanup.callback(transport.close)
        server.address = NameServer(*transport.get_extra_info("sockname"))
        if server.by_tcp is not None:
            try:
                listener = await asyncio.start_server(server.serve_stream, *server.address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
            self._cleanup.callback(listener.close)
        return True

    def use(self, *servers, **options):
        policy = EgressPolicy(options.pop("allow", ()))
        addresses = [getattr(server, "address", server) for server in servers]
        self.resolvers = HostResolvers(addresses, policy, self.counters, **options)

    def tell(self, message):
        self.answers.put_nowait(message)

    async def ask(self, question=QUESTION, token=1):
        self.resolvers.ask(question.to_wire(), token, self)
        answered = await asyncio.wait_for(self.answers.get(), 20)
        assert answered.token == token
        return None if answered.response is None else dns.message.from_wire(answered.response)


def scenario(test):
    """Run an async test on a loop of its own, with a network."""

    def run(monkeypatch, tmp_path):
        monkeypatch.setattr(upstream_dns, "UDP_TIMEOUT", 0.2)
        monkeypatch.setattr(upstream_dns, "TCP_TIMEOUT", 1.0)

        async def main():
            async with Network() as network:
                await test(network, monkeypatch, tmp_path)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


def addresses(response):
    return [rdata.address for rrset in response.answer for rdata in rrset]


def framed(wire):
    return len(wire).to_bytes(2, "big") + wire

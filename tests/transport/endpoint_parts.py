"""A relay's endpoint on loopback with sessions that are recorded and echoed, and clients of all manners."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from admission_parts import OpenDoor
from quic_parts import CERTIFICATES, Client, client_configuration

from actors.messages import DatagramsFromClient, SessionClosed
from actors.runtime import current_scheduler
from guest.target import Trust
from netstack.counters import Counters
from transport.origins import OriginPolicy
from transport.quic.aioquic_client import ClientQuicConnection
from transport.quic.endpoint import Endpoint

PATIENCE = 20
"""Seconds after which a test gives up waiting; nothing is expected to need them."""


def pinned(store=CERTIFICATES):
    return Trust(certificate_hash=bytes.fromhex(store.current.sha256))


class EchoPeer:
    """A session's actor that sends back what it gets."""

    def __init__(self, session):
        self.session = session
        self.datagrams = []
        self.closed = asyncio.get_running_loop().create_future()

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            self.datagrams += message.datagrams
            self.session.send(message.datagrams)
        elif isinstance(message, SessionClosed):
            self.closed.set_result((message.code, message.reason))


class FailingCounters(Counters):
    """Raise RuntimeError where one kind of drop is counted, as a fault would that nobody has thought of."""

    def __init__(self, where):
        super().__init__()
        self._where = where

    def add(self, name, count=1):
        super().add(name, count)
        if name == self._where:
            raise RuntimeError("a fault of the test's own")


def errors_of_the_loop():
    """Collect what callbacks of the running loop raise from now on."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    return errors


class RunningEndpoint:
    """An endpoint with the peers of its sessions."""

    def __init__(
        self,
        *,
        certificates=CERTIFICATES,
        make_peer=EchoPeer,
        host="127.0.0.1",
        allow_origin=(),
        client_share=0,
        port=0,
        reset_key=b"",
        counters=None,
        **shared,
    ):
        self.counters = Counters() if counters is None else counters
        self.peers = []
        self.make_peer = make_peer
        self.endpoint = Endpoint(
            host=host,
            port=port,
            certificates=certificates,
            admission=OpenDoor(self.open_session, OriginPolicy(allow_origin, certificates, on_loopback=True)),
            turns=current_scheduler(),
            counters=self.counters,
            client_share=client_share,
            reset_key=reset_key,
            **shared,
        )

    def open_session(self, session):
        self.peers.append(self.make_peer(session))
        return self.peers[-1]

    @property
    def address(self):
        return "127.0.0.1", self.endpoint.port

    @property
    def url(self):
        return f"https://127.0.0.1:{self.endpoint.port}/"


@contextlib.asynccontextmanager
async def running_endpoint(**options):
    running = RunningEndpoint(**options)
    await running.endpoint.start()
    try:
        yield running
    finally:
        running.endpoint.close(6, "the test is over")
        await running.endpoint.wait_closed()


class UdpClient(asyncio.DatagramProtocol):
    """An aioquic client that says what a test tells it to say, on a UDP socket."""

    def __init__(self, configuration, address):
        self.client = Client(ClientQuicConnection(configuration=configuration))
        self.quic = self.client.quic
        self.address = address
        self.transport = None
        self._loop = asyncio.get_running_loop()
        self._timer = None
        self._changed = asyncio.Event()
        self.versions_offered = []

    async def open(self):
        await self.open_socket(self.address)
        self.quic.connect(self.address, now=self._loop.time())
        self.flush()

    async def open_socket(self, remote, local=None):
        """Be at another address, or write to another of the relay's: nobody else is heard."""
        if self.transport is not None:
            self.transport.abort()
            await asyncio.sleep(0)
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=local, remote_addr=remote)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        # The client's side knows its server by the address that it was given.
        self.quic.receive_datagram(data, self.address, self._loop.time())
        self.client.receive([], self._loop.time())
        self._changed.set()
        self.flush()

    def error_received(self, error):
        pass

    def flush(self):
        for packet, _ in self.quic.datagrams_to_send(self._loop.time()):
            self.transport.sendto(packet)
        if self._timer is not None:
            self._timer.cancel()
        due = self.quic.get_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._fire)

    def _fire(self):
        self.quic.handle_timer(self._loop.time() + 1e-3)
        self.client.receive([], self._loop.time())
        self._changed.set()
        self.flush()

    def fall_silent(self):
        """Say nothing any more; return the packets that arrive nevertheless."""
        heard = []
        self.datagram_received = lambda data, _address: heard.append(data)
        if self._timer is not None:
            self._timer.cancel()
        return heard

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def close(self):
        if self._timer is not None:
            self._timer.cancel()
        self.transport.close()


class Crowd:
    """Many clients behind one socket, as behind one NAT that keeps their ports together."""

    def __init__(self, size, relay_address, headers):
        self.clients = [
            Client(ClientQuicConnection(configuration=client_configuration(connection_id_length=8)))
            for _ in range(size)
        ]
        self._relay_address = relay_address
        self._headers = headers
        self._clock = asyncio.get_running_loop().time
        self._by_cid = {client.quic.host_cid: client for client in self.clients}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        for client in self.clients:
            client.quic.connect(relay_address, now=self._clock())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._socket.close()

    @property
    def has_sessions(self):
        return all(client.status == b"200" for client in self.clients)

    def exchange(self):
        """Take what has arrived, ask for sessions, send what there is to send."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receive(self._socket.recv(2000))
        for client in self.clients:
            if client.h3 is not None and client.status is None:
                client.status = b""
                client.h3.send_headers(client.quic.get_next_available_stream_id(), self._headers)
            for packet, _ in client.quic.datagrams_to_send(self._clock()):
                self._socket.sendto(packet, self._relay_address)

    def _receive(self, packet):
        client = self._by_cid.get(packet[1:9] if packet[0] < 0x80 else packet[6:14])
        if client is not None:
            client.quic.receive_datagram(packet, self._relay_address, self._clock())
            client.receive([], self._clock())
            self._by_cid |= {own.cid: client for own in client.quic._host_cids}


@contextlib.asynccontextmanager
async def udp_client(configuration, address, make=UdpClient):
    client = make(configuration, address)
    await client.open()
    try:
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)


async def receive(client, count):
    """Return ``count`` datagrams or a few more."""
    datagrams = []
    async with asyncio.timeout(PATIENCE):
        while len(datagrams) < count:
            datagrams += await client.receive()
    return datagrams


# -- what clients send ---------------------------------------------------------------------------------


def run(scenario):
    asyncio.run(scenario())


def headers(method=b"CONNECT", protocol=b"webtransport", extra=()):
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
    if protocol is not None:
        fields.append((b":protocol", protocol))
    return [*fields, *extra]


async def ask(client, fields, *, end=False):
    """Send a request; return the status of the answer."""
    await client.until(lambda: client.client.h3 is not None)
    client.client.status = None
    stream = client.quic.get_next_available_stream_id()
    client.client.h3.send_headers(stream, fields, end_stream=end)
    client.flush()
    await client.until(lambda: client.client.status is not None or client.quic.ended is not None)
    return client.client.status


async def exchange(client, count):
    """Have ``count`` datagrams echoed, one after the other, if they were not before."""
    for turn in range(count):
        datagram = b"%d" % turn
        if datagram not in client.client.datagrams:
            client.client.send(datagram)
            client.flush()
            await client.until(lambda datagram=datagram: datagram in client.client.datagrams)


def first_packet(version=None):
    """A client's first packet."""
    configuration = client_configuration()
    if version is not None:
        configuration.supported_versions = [version]
        configuration.original_version = version
    quic = ClientQuicConnection(configuration=configuration)
    quic.connect(("127.0.0.1", 4433), now=0.0)
    return quic.datagrams_to_send(0.0)[0][0]


async def answer_to(packet, address, *, wait=5.0):
    """Send one packet from a fresh socket; return the first answer."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as raw:
        raw.setblocking(False)
        raw.connect(address)
        raw.send(packet)
        return await asyncio.wait_for(loop.sock_recv(raw, 2000), wait)

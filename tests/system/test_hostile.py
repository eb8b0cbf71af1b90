"""Clients that mean harm, or are broken: the relay's memory stays flat and a neighbour notices nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl

import pytest
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio import connect as quic_connect
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from guests import CHUNK, Guest, Neighbour
from processes import PATIENCE, Relay

GROWTH = 8 * 1024 * 1024
"""Bytes that the process may grow by while it is attacked: what allocators keep, not what attackers send."""


@pytest.fixture(scope="module")
def relay():
    relay = Relay()
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


def withstands(relay, attack, *, times=3):
    """Run ``attack`` once to warm up, then ``times`` more with the memory and a neighbour watched."""
    asyncio.run(attack())
    before = relay.memory
    with Neighbour(relay) as neighbour:
        for _ in range(times):
            asyncio.run(attack())
    assert neighbour.intact == neighbour.sent
    assert relay.memory - before < GROWTH
    assert relay.running


def quic_configuration():
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        verify_mode=ssl.CERT_NONE,
        max_datagram_frame_size=65536,
        server_name="127.0.0.1",
    )


def first_packet():
    """The first packet of a handshake that nobody will continue, or garbage made of it."""
    quic = QuicConnection(configuration=quic_configuration())
    quic.connect(("127.0.0.1", 1), now=0.0)
    return quic.datagrams_to_send(now=0.0)[0][0]


def udp_socket():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


async def send_all(packets, port):
    """Send from one socket, letting the loop turn so that nothing is merely lost in a full buffer."""
    with udp_socket() as sender:
        for number, packet in enumerate(packets):
            sender.sendto(packet, ("127.0.0.1", port))
            if number % 64 == 63:
                await asyncio.sleep(0.001)


def test_garbage_datagrams(relay):
    source = random.Random(4433)
    initial = first_packet()

    def garbage():
        for _ in range(2000):
            yield source.randbytes(source.randrange(1, 1500))
            # A long header with a known version and nonsense behind it.
            yield initial[:5] + source.randbytes(source.randrange(1, 1400))
            mutated = bytearray(initial)
            for _ in range(source.randrange(1, 20)):
                mutated[source.randrange(len(mutated))] = source.randrange(256)
            yield bytes(mutated[: source.randrange(1, len(mutated) + 1)])
            # A short header for a connection that does not exist.
            yield b"\x40" + source.randbytes(source.randrange(1, 1400))

    withstands(relay, lambda: send_all(garbage(), relay.port))


def test_half_sent_chunk_sets(relay):
    async def attack():
        guest = await Guest.join(relay)
        for number in range(20_000):
            head = CHUNK + (number & 0xFFFF).to_bytes(2, "big") + bytes((0, 255))
            guest.client.send([head + bytes(900)])
            await guest.client.wait_writable()
        guest.client.close()

    before = relay.counters()
    withstands(relay, attack)
    dropped = relay.counters() - before
    # All but the few sets that fitted into the session's buffer; that they came at all is the point.
    assert dropped["peer.drop.chunk_overflow"] > 4 * 19_000


def test_nonsense_in_every_datagram(relay):
    source = random.Random(933)

    async def attack():
        guest = await Guest.join(relay)
        for _ in range(3000):
            kind = source.choice(
                [b"", b"\0", b"\1", b"\2", b"\3", b'\0{"type":"', b'\0{"type":"Register","mac":']
            )
            guest.client.send([kind + source.randbytes(source.randrange(60))])
            await guest.client.wait_writable()
        guest.client.close()

    withstands(relay, attack)


def test_peer_that_stops_acknowledging(relay):
    async def attack():
        deaf, talker = await Guest.join(relay), await Guest.join(relay)
        deaf.send_frames([deaf.echo_request(1, b"here I am")])
        await deaf.next_frames()
        # From now on nothing is read from its socket: no acknowledgement ever leaves.
        asyncio.get_running_loop().remove_reader(deaf.client._socket)
        to_deaf = bytes.fromhex((deaf.mac + talker.mac).replace(":", "")) + b"\x88\xb5" + bytes(900)
        for _ in range(5_000):
            talker.send_frames([to_deaf])
            await talker.client.wait_writable()
        talker.client.close()
        deaf.client.close()

    withstands(relay, attack)


def test_abandoned_handshakes(relay):
    withstands(relay, lambda: send_all((first_packet() for _ in range(300)), relay.port))


class ClosedError(Exception):
    """The relay closed the connection; carries the HTTP/3 error code."""


class Http3Client(QuicConnectionProtocol):
    """HTTP/3 with nothing of WebTransport: sends requests, collects the statuses of the answers."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self._answers = {}

    async def request(self, *headers, body=None):
        """The status of the answer."""
        stream = self._quic.get_next_available_stream_id()
        self._answers[stream] = asyncio.get_running_loop().create_future()
        self.http.send_headers(stream, list(headers), end_stream=body is None)
        if body is not None:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        async with asyncio.timeout(PATIENCE):
            return await self._answers[stream]

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ClosedError(event.error_code))
        for answer in self.http.handle_event(event):
            if isinstance(answer, HeadersReceived):
                self._answers[answer.stream_id].set_result(int(dict(answer.headers)[b":status"]))


def request_headers(method, **pseudo):
    wanted = {"method": method, "scheme": "https", "authority": "127.0.0.1", "path": "/"} | pseudo
    return [(f":{name}".encode(), value.encode()) for name, value in wanted.items()]


def stuffing(size):
    """Header fields of about ``size`` bytes that no compression makes small."""
    return [(b"x-%d" % number, os.urandom(500).hex().encode()) for number in range(size // 1000)]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (request_headers("GET"), None, 405),
        (request_headers("POST"), b"a body", 405),
        (request_headers("CONNECT", protocol="websocket"), b"", 501),
        ([*request_headers("CONNECT", protocol="webtransport"), *stuffing(20_000)], b"", 431),
    ],
    ids=["GET", "POST", "another protocol", "large headers"],
)
def test_http_that_is_not_webtransport_gets_a_status(relay, headers, body, status):
    async def ask():
        async with quic_connect(
            "127.0.0.1", relay.port, configuration=quic_configuration(), create_protocol=Http3Client
        ) as client:
            assert isinstance(client, Http3Client)
            return await client.request(*headers, body=body)

    assert asyncio.run(ask()) == status


def test_many_plain_requests(relay):
    async def attack():
        async with quic_connect(
            "127.0.0.1", relay.port, configuration=quic_configuration(), create_protocol=Http3Client
        ) as client:
            assert isinstance(client, Http3Client)
            for _ in range(50):
                assert await client.request(*request_headers("GET")) == 405

    withstands(relay, attack)


def test_200_kilobytes_of_headers(relay):
    async def attack():
        async with quic_connect(
            "127.0.0.1", relay.port, configuration=quic_configuration(), create_protocol=Http3Client
        ) as client:
            assert isinstance(client, Http3Client)
            request = request_headers("CONNECT", protocol="webtransport")
            with pytest.raises(ClosedError) as closed:
                await client.request(*request, *stuffing(200_000))
            assert closed.value.args == (ErrorCode.H3_EXCESSIVE_LOAD,)

    withstands(relay, attack)

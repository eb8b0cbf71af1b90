"""A client of a running relay that writes its own packets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio import connect as quic_connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated
from processes import PATIENCE
from quic_parts import Forge


class Attacker(QuicConnectionProtocol):
    """An HTTP/3 client whose session stands, and that then sends whatever it is told to."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.status = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    @property
    def quic(self):
        return self._quic

    async def open_session(self, path=b"/"):
        stream = self._quic.get_next_available_stream_id()
        names = (b":method", b":protocol", b":scheme", b":authority", b":path")
        values = (b"CONNECT", b"webtransport", b"https", b"relay.test", path)
        self.http.send_headers(stream, list(zip(names, values, strict=True)))
        self.transmit()
        async with asyncio.timeout(PATIENCE):
            assert await self.status == 200
        # Until all is acknowledged: from now on this client's own numbers stay where they are.
        await self.ping()

    def send(self, packet):
        self._transport.sendto(packet, self._quic.get_peer_address())

    async def end(self):
        """The code and reason with which the relay closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.ended

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result((event.error_code, event.reason_phrase))
        for answer in self.http.handle_event(event):
            if isinstance(answer, HeadersReceived) and not self.status.done():
                self.status.set_result(int(dict(answer.headers)[b":status"]))


@contextlib.asynccontextmanager
async def attacker(relay, *, session=True):
    """``async with attacker(relay) as (client, forge):`` with a session, unless that is not wanted."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        verify_mode=ssl.CERT_NONE,
        max_datagram_frame_size=65536,
        server_name="127.0.0.1",
    )
    async with quic_connect(
        "127.0.0.1", relay.port, configuration=configuration, create_protocol=Attacker
    ) as client:
        assert isinstance(client, Attacker)
        if session:
            await client.open_session()
        yield client, Forge(client)


async def send_slowly(send, packets, *, at_a_time=16, pause=0.005):
    """Send packets in bursts, with pauses between them."""
    for number, packet in enumerate(packets, 1):
        send(packet)
        if number % at_a_time == 0:
            await asyncio.sleep(pause)


async def send_from_anywhere(packets, port, **pace):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        await send_slowly(lambda packet: sender.sendto(packet, ("127.0.0.1", port)), packets, **pace)

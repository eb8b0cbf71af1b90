"""A guest on aioquic with what current WebTransport clients do: it demands that the relay takes resets with
partial delivery, changes its connection ID right behind the handshake, and resets a stream in the new way.

    python aioquic_guest.py URL HASH      prints a line for each step
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
from typing import Any
from urllib.parse import urlsplit

import aioquic.asyncio.client
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import DatagramFrameReceived, HandshakeCompleted
from cryptography.hazmat.primitives.serialization import Encoding

PATIENCE = 20
RESET_STREAM_AT = 0x24
PARAMETERS = {0x1D, 0x17F7586D2CB571}
REGISTER = b'\0{"type":"Register","mac":[82,84,0,1,2,4]}'
BEAT = b'\0{"type":"Heartbeat"}'


class CurrentConnection(QuicConnection):
    """aioquic's, with the frame and the transport parameters that it does not know."""

    offered = frozenset()

    def _parse_transport_parameters(self, data, from_session_ticket=False):
        super()._parse_transport_parameters(data, from_session_ticket)
        buffer = Buffer(data=data)
        found = set()
        while not buffer.eof():
            parameter, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            buffer.pull_bytes(length)
            if not length:
                found.add(parameter)
        self.offered = frozenset(found)

    def _serialize_transport_parameters(self):
        offers = [encode_uint_var(parameter) + b"\0" for parameter in sorted(PARAMETERS)]
        return super()._serialize_transport_parameters() + b"".join(offers)

    def _write_reset_stream_frame(self, builder, stream):
        reset = stream.sender.get_reset_frame()
        buffer = builder.start_frame(
            RESET_STREAM_AT, capacity=33, handler=stream.sender.on_reset_delivery, handler_args=()
        )
        for value in (stream.stream_id, reset.error_code, reset.final_size, reset.final_size):
            buffer.push_uint_var(value)


class Guest(QuicConnectionProtocol):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.h3 = None
        self.events = asyncio.Queue()

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.h3 = H3Connection(self._quic, enable_webtransport=True)
        elif isinstance(event, DatagramFrameReceived):
            self.events.put_nowait(event.data)
        elif self.h3 is not None:
            for h3_event in self.h3.handle_event(event):
                self.events.put_nowait(h3_event)

    def datagram_received(self, data, address):
        # As quic-go does: the first word after the handshake is under another ID.
        self._quic.receive_datagram(data, address, self._loop.time())
        if self._quic._peer_cid_available:
            self._quic.change_connection_id()
        self._process_events()
        self.transmit()

    async def ask(self, message, answer):
        """Send a control message and wait for an answer of a type, whatever else comes before."""
        self._quic.send_datagram_frame(b"\0" + message)
        self.transmit()
        while True:
            event = await self.events.get()
            if isinstance(event, bytes) and event.startswith(b'\0\0{"type":"%s"' % answer):
                print(answer.decode())
                return


async def run(url, certificate_hash):
    target = urlsplit(url)
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65535
    )
    setattr(aioquic.asyncio.client, "QuicConnection", CurrentConnection)  # noqa: B010 - a class, to mypy a type
    async with aioquic.asyncio.client.connect(
        target.hostname, target.port, configuration=configuration, create_protocol=Guest
    ) as protocol:
        guest: Any = protocol
        quic = guest._quic
        assert quic.offered >= PARAMETERS, "the relay does not take resets with partial delivery"
        shown = quic.tls._peer_certificate.public_bytes(Encoding.DER)
        assert hashlib.sha256(shown).hexdigest() == certificate_hash
        stream = quic.get_next_available_stream_id()
        guest.h3.send_headers(
            stream,
            [
                (b":method", b"CONNECT"),
                (b":protocol", b"webtransport"),
                (b":scheme", b"https"),
                (b":authority", target.netloc.encode()),
                (b":path", (target.path or "/").encode()),
            ],
        )
        guest.transmit()
        while not isinstance(answer := await guest.events.get(), HeadersReceived):
            pass
        print("status", dict(answer.headers)[b":status"].decode())
        await guest.ask(REGISTER, b"Assigned")
        data = guest.h3.create_webtransport_stream(stream, is_unidirectional=True)
        quic.send_stream_data(data, b"what nobody reads")
        guest.transmit()
        quic.reset_stream(data, 7)
        guest.transmit()
        print("reset")
        await guest.ask(BEAT, b"HeartbeatAck")
        capsule = encode_uint_var(0x2843) + encode_uint_var(8) + (3).to_bytes(4, "big") + b"done"
        guest.h3.send_data(stream, capsule, end_stream=True)
        guest.transmit()
        print("closed")


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(run(sys.argv[1], sys.argv[2]), PATIENCE))

"""TLS connections of asyncio, whose records are read by turns with what else TCP clients have sent.

asyncio reads what came in to its end before it serves anybody else: of the smallest records 1,400 fit its
buffer here, which take 2 ms, and each of a thousand connections may send such. So a connection reads
RECORDS_PER_SLICE, and more of them when the others have had their turn (``transport.slices``); what is left
waits encrypted, and from TLS_BUFFER on it stays with the client.
"""

from __future__ import annotations

from asyncio import sslproto
from time import thread_time
from typing import TYPE_CHECKING, Any, Protocol

from transport.web.cycles import dissolve_transport

if TYPE_CHECKING:
    import asyncio
    import ssl

    from transport.slices import Slices
    from transport.web.client_sockets import ClientSockets

TLS_BUFFER = 32 * 1024
"""Bytes for what comes in on a TLS connection; two records of the longest. What asyncio has by itself is
256 KB each, held from the first byte on, half a gigabyte for all connections."""
RECORDS_PER_SLICE = 64
"""Records that are read before others are served: no more than 0.1 ms of the smallest, and all of a buffer's
that hold 500 bytes."""

_buffer = bytearray(TLS_BUFFER)
_view = memoryview(_buffer)


_SSLProtocol: Any = sslproto.SSLProtocol
"""What is overridden here is not told to type checkers."""


class TlsReader(Protocol):
    """Who gets what was read: as asyncio's protocols, and it is told what reading cost."""

    def note_reading(self, seconds: float) -> None:
        """Note processor time that was taken to read records."""

    def data_received(self, data: bytes) -> None:
        """Take what was in them."""


class TlsHost(Protocol):
    """What a connection needs of the listener that accepted it."""

    slices: Slices
    client_sockets: ClientSockets


class TlsConnection(_SSLProtocol):  # type: ignore[misc] # its class is Any
    """The server's side of TLS, between a transport of asyncio's and ``connection``.

    asyncio names no setting for any of this; the tests of this module fail where it ceases to work like this.
    """

    max_size = TLS_BUFFER

    def __init__(
        self,
        connection: asyncio.Protocol,
        context: ssl.SSLContext,
        host: TlsHost,
        *,
        loop: asyncio.AbstractEventLoop,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self._host = host
        self._has_more = False
        self.handshake: asyncio.Future[None] = loop.create_future()
        """Done when the handshake is; fails with OSError."""
        super().__init__(
            loop,
            connection,
            context,
            self.handshake,
            server_side=True,
            ssl_handshake_timeout=handshake_timeout,
            ssl_shutdown_timeout=shutdown_timeout,
        )
        # One buffer does for all: what was read into it is taken out of it at once.
        self._ssl_buffer, self._ssl_buffer_view = _buffer, _view
        self._set_read_buffer_limits(high=TLS_BUFFER)

    def work(self) -> bool:
        """Read some records; return whether there may be more."""
        self._has_more = False
        super()._do_read()
        return self._has_more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's first records."""
        self._host.client_sockets.adopt(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._host.slices.forget(self)
        dissolve_transport(self._transport)
        super().connection_lost(exc)

    def _do_read(self) -> None:
        if self._state is not sslproto.SSLProtocolState.WRAPPED:
            super()._do_read()
        elif self._host.slices.serve(self):
            self._control_ssl_reading()

    def _do_read__copied(self) -> None:
        records: list[bytes] = []
        has_ended = False
        read = self._sslobj.read
        started = thread_time()
        try:
            while len(records) < RECORDS_PER_SLICE:
                record = read(TLS_BUFFER)
                if not record:
                    has_ended = True
                    break
                records.append(record)
            else:
                self._has_more = True
        except sslproto.SSLAgainErrors:
            pass
        connection: TlsReader = self._app_protocol
        connection.note_reading(thread_time() - started)
        if records:
            connection.data_received(b"".join(records))
        if has_ended:
            self._call_eof_received()
            self._start_shutdown()

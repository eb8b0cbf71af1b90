"""TLS connections of asyncio, whose records are read by turns with what else TCP clients have sent.

asyncio has OpenSSL read what came in to its end before it serves anybody else: of the smallest records 1,400
fit its buffer here, which take 2 ms, and of KeyUpdates (RFC 8446, section 4.6.3), of which OpenSSL says
nothing, 1,200, which take 27 ms; and each of a thousand connections may send such. So OpenSSL gets one record
at a time, for their lengths are not encrypted, and RECORDS_PER_SLICE, whatever is in them, until the others
have had their turn (``transport.slices``). What is left waits encrypted, and from TLS_BUFFER on it stays with
the client. Who sends more records without content than anybody needs is dropped: they cost more than others,
and their answers wait without bound for a client that does not read.
"""

from __future__ import annotations

from asyncio import sslproto
from typing import TYPE_CHECKING, Any, Protocol

from actors.work_time import work_time
from transport.web.cycles import dissolve_transport

if TYPE_CHECKING:
    import asyncio
    import ssl

    from netstack.counters import Counters
    from transport.slices import Slices
    from transport.web.client_sockets import ClientSockets

TLS_BUFFER = 32 * 1024
"""Bytes for what comes in on a TLS connection; two records of the longest. What asyncio has by itself is
256 KB each, held from the first byte on, half a gigabyte for all connections."""
RECORDS_PER_SLICE = 64
"""Records that are read before others are served: no more than 0.1 ms of the smallest, and all of a buffer's
that hold 500 bytes."""
WITHOUT_CONTENT = 32
"""Records without content that a client may send at once; each costs some 20 us. Who sends KeyUpdates does so
after millions of records, or from time to time."""
WITHOUT_CONTENT_RATE = 0.5
"""How many more per second; none while its answers are not taken."""
MAX_AFTER_END = 2 * 1024
"""Bytes that are read of a client after the relay has ended the connection: its own end is waited for."""

_HEADER = 5
"""Bytes before a record's fragment: type, version and length (RFC 8446, section 5.1)."""
_MAX_FRAGMENT = 2**14 + 2048
"""Bytes (RFC 5246, section 6.2.3; in TLS 1.3 fewer); OpenSSL refuses a longer one by its header."""

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
    counters: Counters


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
        self._without_content = 0.0
        """Records without content of late."""
        self._without_content_at = loop.time()
        self._after_end = 0
        self._has_ended = False
        """Whether the client has said that it sends nothing more."""
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
        # A record that is not whole yet is no reason to read no more.
        self._set_read_buffer_limits(high=TLS_BUFFER, low=_HEADER + _MAX_FRAGMENT)

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

    def eof_received(self) -> bool:
        """Take the end of TCP; asyncio would drop the answers to what was not worked off yet."""
        if self._state is not sslproto.SSLProtocolState.WRAPPED:
            return bool(super().eof_received())
        self._eof_received = True
        self._do_read()
        return True

    def _do_read(self) -> None:
        if self._state is not sslproto.SSLProtocolState.WRAPPED:
            super()._do_read()
        elif self._host.slices.serve(self):
            self._control_ssl_reading()

    def _do_read__copied(self) -> None:
        if not self._has_ended:
            connection: TlsReader = self._app_protocol
            started = work_time()
            contents = self._read_records()
            connection.note_reading(work_time() - started)
            self._has_ended = self._eof_received and not self._has_more
            if contents[-1:] == [b""]:
                self._has_ended = True
                contents.pop()
            if contents:
                connection.data_received(b"".join(contents))
        # Who has not worked off what came before the end reads on once that is done.
        if self._has_ended and not self._app_reading_paused:
            self._call_eof_received()
            self._start_shutdown()

    def _read_records(self) -> list[bytes]:
        """Have OpenSSL read some records that are whole; the last content is empty at the client's end.

        OpenSSL takes from its BIO no more than the record that it reads, in the handshake too.
        """
        contents: list[bytes] = []
        received, begin = self._incoming.read(), 0
        for _ in range(RECORDS_PER_SLICE):
            end = _end_of_record(received, begin)
            if end is None:
                break
            self._incoming.write(received[begin:end])
            size, begin = end - begin, end
            try:
                contents.append(self._sslobj.read(size))
            except sslproto.SSLAgainErrors:
                if not self._may_come_without_content():
                    self._drop("without_content")
                    return []
            else:
                if not contents[-1]:
                    return contents  # nothing counts that comes behind the end
        else:
            self._has_more = True
        self._incoming.write(received[begin:])
        return contents

    def _may_come_without_content(self) -> bool:
        """Count a record without content; return whether that is no more than a client may send."""
        now = self._loop.time()
        if not self._app_writing_paused:
            renewed = (now - self._without_content_at) * WITHOUT_CONTENT_RATE
            self._without_content = max(0.0, self._without_content - renewed)
        self._without_content_at = now
        self._without_content += 1
        return self._without_content <= WITHOUT_CONTENT

    def _do_shutdown(self) -> None:
        """Wait for the client's end; OpenSSL reads what comes before it, KeyUpdates too, to its end."""
        if not self._eof_received:
            self._after_end += self._incoming.pending
            if self._after_end > MAX_AFTER_END:
                self._drop("after_end")
                return
        super()._do_shutdown()

    def _drop(self, why: str) -> None:
        self._host.counters.add(f"web.drop.tls_{why}")
        self._transport.abort()


def _end_of_record(received: bytes, begin: int) -> int | None:
    """Find the end of the record that begins there; None while it is not whole."""
    if len(received) < begin + _HEADER:
        return None
    size = received[begin + 3] << 8 | received[begin + 4]
    if size > _MAX_FRAGMENT:
        return len(received)
    end = begin + _HEADER + size
    return end if end <= len(received) else None

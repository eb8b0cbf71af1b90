"""A client's connection: QUIC, HTTP/3 and a single extended CONNECT that carries datagrams only.

The client's side of a :class:`carrier.Carrier` (RFC 9220, draft-ietf-webtrans-http3). It speaks to
every server that announces any of the WebTransport settings of drafts 02 to 15. Its host looks at ``end``
after each step, and flushes it one last time once that tells why the connection is over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic.events import HandshakeCompleted, StreamReset
from aioquic.quic.packet import QuicFrameType
from aioquic.tls import AlertDescription

from transport.quic import webtransport
from transport.quic.aioquic_client import ClientQuicConnection
from transport.quic.carrier import Carrier, CarrierHost
from transport.quic.session import WebTransportSession
from transport.tls_alerts import CRYPTO_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioquic.h3.events import H3Event
    from aioquic.quic.events import ConnectionTerminated, QuicEvent

    from guest.target import Target, Trust
    from transport.quic.udp import Address

WEBTRANSPORT_ANNOUNCED = (
    webtransport.SETTING_ENABLE_WEBTRANSPORT_DRAFT_02,
    webtransport.SETTING_MAX_SESSIONS_DRAFT_07,
    webtransport.SETTING_MAX_SESSIONS_DRAFT_13,
    webtransport.SETTING_ENABLED_DRAFT_15,
)
"""Settings of which any one, if not 0, says that the server speaks WebTransport."""

# RFC 9110, section 15, and RFC 6585.
_INFORMATIONAL = range(100, 200)
_SUCCESSFUL = range(200, 300)
_CLIENT_ERRORS = range(400, 500)
_TOO_MANY_REQUESTS = 429

MAX_EXPLANATION = 200
"""Bytes of what a server says with a refusal."""

FALLEN_SILENT = "the server has fallen silent"
"""How a connection ends over which nothing comes any more."""


class ClientHost(CarrierHost, Protocol):
    """What a client's connection needs of whoever has its socket."""

    def want_flush(self, connection: ClientConnection, /) -> None:
        """Call the connection's ``flush`` at the end of this turn."""

    def session_opened(self) -> None:
        """Take note that the server has granted the session."""

    def session_refused(self, problem: str, *, permanent: bool) -> None:
        """Take note that there will be no session; ``permanent``: nor would there be the next time."""


class ClientConnection(Carrier[ClientQuicConnection, ClientHost]):
    """One session with a server, from the handshake on."""

    def __init__(
        self,
        quic: ClientQuicConnection,
        host: ClientHost,
        address: Address,
        now: float,
        *,
        keep_alive: float,
        target: Target,
        trust: Trust,
    ) -> None:
        super().__init__(quic, host, address, now, keep_alive)
        self._target = target
        self._trust = trust
        self._h3: H3Connection | None = None
        self._capsules = webtransport.CapsuleReader()
        self._granted = False
        self._refused_with = 0
        """HTTP status with which the session was refused."""
        self._explanation = b""
        self._explained_at = 0
        """Bytes of the explanation that are waited for."""
        self.session: WebTransportSession | None = None
        """The session, from the request on."""
        self.end: str | None = None
        """Why the connection is over, in one line; None while it lives."""
        self.close_code: int | None = None
        """The code with which the server closed the session, if it did."""
        quic.connect(address, now)

    def take_arrived(self) -> list[bytes]:
        """Take the session's datagrams that have arrived."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def ask(self) -> None:
        """Have the server show that it is there: send a PING."""
        self._aioquic_is_idle = False
        self.quic.send_ping(0)
        self._host.want_flush(self)

    # -- SessionCarrier ---------------------------------------------------------------------------

    def want_flush(self) -> None:
        """Have the session's queue sent at the end of this turn."""
        self._host.want_flush(self)

    def close_session(self, code: int, reason: str) -> None:
        """Tell the server why (a capsule), then close the connection without waiting for an answer."""
        if self.end is None and self._h3 is not None and self.session is not None:
            # What waits goes first, a message that says goodbye above all; then the capsule.
            self.flush(self._host.clock())
            capsule = webtransport.encode_close_capsule(code, reason)
            self._h3.send_data(self._stream_id, capsule, end_stream=True)
            self._aioquic_is_idle = False
            self.flush(self._host.clock())
        self.abandon(reason or "closed")

    def abandon(self, reason: str, alert: AlertDescription | None = None) -> None:
        """Close the connection; the server is told the TLS alert, if there is one."""
        if self.end is not None:
            return
        self.end = reason
        if alert is None:
            self.quic.close(error_code=ErrorCode.H3_NO_ERROR)
        else:
            # The frame's type makes it an error of the transport's, not of HTTP/3.
            self.quic.close(error_code=CRYPTO_ERRORS.start + alert, frame_type=QuicFrameType.CRYPTO)
        if self.session is not None:
            self.session.queue.clear()
        self._aioquic_is_idle = False

    # -- QUIC and HTTP/3 events -------------------------------------------------------------------

    def _pump(self) -> None:
        super()._pump()
        if self.quic.ended is not None and self.end is None:
            self._on_connection_end(self.quic.ended)

    def _on_event(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted) and self.end is None:
            self._on_handshake()
        if self._h3 is None or self.end is not None:
            return
        for h3_event in self._h3.handle_event(event):
            self._on_h3_event(h3_event)
        if isinstance(event, StreamReset) and self.session is not None and event.stream_id == self._stream_id:
            self._closed_by_server("the server reset the session")
        if self.session is None and self._h3.received_settings is not None:
            self._request(self._h3, self._h3.received_settings)

    def _on_handshake(self) -> None:
        found = self.quic.certificate_hash
        if not self._trust.takes(found):
            self._refuse(
                f"the certificate's SHA-256 hash is {found.hex()}, not the one to be trusted: the relay has "
                "a new certificate, or this is another server",
                alert=AlertDescription.bad_certificate,
            )
        else:
            self._h3 = H3Connection(self.quic, enable_webtransport=True)

    def _request(self, h3: H3Connection, settings: dict[int, int]) -> None:
        """Ask for the session; not before the server's settings are known (draft-02, section 3.1)."""
        if not any(settings.get(setting) for setting in WEBTRANSPORT_ANNOUNCED):
            self._refuse("this is an HTTP/3 server without WebTransport")
            return
        self._stream_id = self.quic.get_next_available_stream_id()
        # RFC 9297, section 2.1: an HTTP datagram starts with a quarter of its stream's ID.
        self._prefix = encode_uint_var(self._stream_id // 4)
        path = self._target.path
        host = self._host
        self.session = self._session = WebTransportSession(0, path, self, host.clock, host.counters)
        headers = {
            b":method": b"CONNECT",
            b":protocol": b"webtransport",
            b":scheme": b"https",
            # The interface of a link-local address means nothing to the server (RFC 6874, section 3).
            b":authority": re.sub(r"%[^]]*", "", self._target.authority).encode(),
            b":path": path.encode(),
            b"sec-webtransport-http3-draft02": b"1",
        }
        headers |= {name.encode(): value.encode() for name, value in self._target.authorization.items()}
        h3.send_headers(self._stream_id, list(headers.items()))

    def _on_h3_event(self, event: H3Event) -> None:
        if self.session is None:
            return
        match event:
            case DatagramReceived() if event.stream_id == self._stream_id:
                self._arrived.append(event.data)
                return
            case DatagramReceived():
                self._host.counters.add("client.drop.unknown_session")
                return
            case HeadersReceived() if event.stream_id == self._stream_id:
                self._on_response(dict(event.headers))
            case DataReceived() if event.stream_id == self._stream_id and self._refused_with:
                self._explanation += event.data
            case DataReceived() if event.stream_id == self._stream_id:
                self._on_capsules(event.data)
            case _:
                return
        if self._refused_with:
            self._finish_refusal(is_whole=event.stream_ended)
        elif event.stream_ended:
            self._closed_by_server("the server closed the session")

    def _on_response(self, fields: Mapping[bytes, bytes]) -> None:
        status = int(fields[b":status"])
        if status in _INFORMATIONAL or self._granted:
            return
        if status in _SUCCESSFUL:
            self._granted = True
            self._host.session_opened()
        else:
            self._refused_with = status
            length = fields.get(b"content-length", b"")
            self._explained_at = min(int(length), MAX_EXPLANATION) if length.isdigit() else 0

    def _finish_refusal(self, *, is_whole: bool) -> None:
        """Give up once the server has told why, as far as that is short."""
        if not is_whole and len(self._explanation) < self._explained_at:
            return
        status, why = self._refused_with, one_line(self._explanation.decode("utf-8", "replace"))
        # The same request will not do better later, unless there were just too many of them.
        permanent = status in _CLIENT_ERRORS and status != _TOO_MANY_REQUESTS
        problem = f"the server answered HTTP status {status}{f': {why}' if why else ''}"
        self._refuse(problem, permanent=permanent)

    def _on_capsules(self, data: bytes) -> None:
        try:
            closure = self._capsules.feed(data)
        except ValueError as error:
            self._closed_by_server(str(error))
            return
        if closure is not None:
            self.close_code = closure.code
            self._closed_by_server(one_line(closure.reason) or "the server closed the session")

    # -- ends -------------------------------------------------------------------------------------

    def _refuse(self, problem: str, *, permanent: bool = True, alert: AlertDescription | None = None) -> None:
        """Give up on a server that is not what was asked for; it is told the TLS alert."""
        if not self._granted:
            self._host.session_refused(problem, permanent=permanent)
        self.abandon(problem, alert)

    def _closed_by_server(self, reason: str) -> None:
        if self._granted:
            self.close_session(0, reason)
        else:
            self._refuse(reason, permanent=False)

    def _on_connection_end(self, event: ConnectionTerminated) -> None:
        if self._refused_with:
            self._finish_refusal(is_whole=True)
            return
        reason = one_line(event.reason_phrase) or f"connection closed with code 0x{event.error_code:x}"
        if reason == "Idle timeout":
            reason = FALLEN_SILENT
        if not self._granted:
            failed_tls = event.frame_type is not None and event.error_code in CRYPTO_ERRORS
            message = f"{'TLS: ' * failed_tls}{reason}"
            if event.error_code == CRYPTO_ERRORS.start + AlertDescription.bad_certificate and failed_tls:
                message += "; trust the certificate by its hash, or by a file with its authority's"
            self._host.session_refused(message, permanent=failed_tls)
        self.abandon(reason)


def one_line(text: str) -> str:
    """Make a stranger's text fit for a terminal: one short line, nothing that controls it."""
    return "".join(character if character.isprintable() else " " for character in text).strip()[:200]

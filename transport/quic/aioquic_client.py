"""What a client uses of the pinned aioquic that aioquic keeps private; ``aioquic_internals`` has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode
from cryptography.hazmat.primitives.hashes import SHA256

from transport.quic.aioquic_internals import OpenQuicConnection
from transport.quic.stateless_reset import is_reset

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress

RESET_REASON = "the server no longer knows this connection"
"""What a client says of its end by a stateless reset."""


class ClientQuicConnection(OpenQuicConnection):
    """aioquic's connection as a client: it may pin the server's certificate, and knows stateless resets."""

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """Take what came; a stateless reset ends the connection at once (RFC 9000, 10.3.1)."""
        if not is_reset(data, self._reset_tokens()):
            super().receive_datagram(data, addr, now)
        elif self._close_event is None:
            self._close_event = ConnectionTerminated(
                error_code=QuicErrorCode.NO_ERROR, frame_type=None, reason_phrase=RESET_REASON
            )
            self._close_begin(is_initiator=False, now=now)

    def _reset_tokens(self) -> frozenset[bytes]:
        """Tokens of the server's connection IDs that are in use, as far as it has told them."""
        in_use = (self._peer_cid, *(path.peer_cid for path in self._network_paths))
        return frozenset(cid.stateless_reset_token for cid in in_use if cid and cid.stateless_reset_token)

    @property
    def certificate_hash(self) -> bytes:
        """SHA-256 of the server's leaf certificate (DER); empty until the server has shown it."""
        certificate = self.tls._peer_certificate
        return certificate.fingerprint(SHA256()) if certificate is not None else b""

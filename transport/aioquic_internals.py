"""The one place that uses names which the pinned aioquic keeps private.

``tests/transport/test_aioquic_internals.py`` names what moved when a new version of aioquic breaks this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch
from cryptography.hazmat.primitives.hashes import SHA256

from transport.webtransport import WEBTRANSPORT_SETTINGS

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated

CONNECTION_ID_LENGTH = 8
WORKER = 0
"""First byte of every connection ID, so that packets can be steered between processes later."""


def new_connection_id() -> bytes:
    """Return a connection ID of 8 bytes: the worker's number, then random."""
    return bytes((WORKER,)) + os.urandom(CONNECTION_ID_LENGTH - 1)


class OpenQuicConnection(QuicConnection):
    """aioquic's connection with what both sides need to see of its state."""

    @property
    def datagrams_waiting(self) -> int:
        """DATAGRAM frames that aioquic has accepted but not sent; it sets no limit itself."""
        return len(self._datagrams_pending)

    @property
    def ended(self) -> ConnectionTerminated | None:
        """How the connection ended, as soon as that is known; the event itself comes after draining."""
        return self._close_event

    @property
    def peer_datagram_limit(self) -> int:
        """Largest DATAGRAM frame that the other side accepts; 0 where it accepts none."""
        return self._remote_max_datagram_frame_size or 0


class RelayQuicConnection(OpenQuicConnection):
    """aioquic's connection with the relay's own connection IDs."""

    def __init__(
        self, configuration: QuicConfiguration, original_cid: bytes, retry_source_cid: bytes | None = None
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_cid,
            retry_source_connection_id=retry_source_cid,
        )
        first = self._host_cids[0]
        first.cid = new_connection_id()
        self.host_cid = first.cid
        self._local_initial_source_connection_id = first.cid

    def _replenish_connection_ids(self) -> None:
        known = len(self._host_cids)
        super()._replenish_connection_ids()
        for connection_id in self._host_cids[known:]:
            connection_id.cid = new_connection_id()

    @property
    def last_received_at(self) -> float:
        """Time of the newest authentic 1-RTT packet; 0 before the first."""
        if Epoch.ONE_RTT not in self._spaces:
            return 0.0
        return self._spaces[Epoch.ONE_RTT].largest_received_time or 0.0


class ClientQuicConnection(OpenQuicConnection):
    """aioquic's connection as a client that may pin the server's certificate."""

    @property
    def certificate_hash(self) -> bytes:
        """SHA-256 of the server's leaf certificate (DER); empty until the server has shown it."""
        certificate = self.tls._peer_certificate
        return certificate.fingerprint(SHA256()) if certificate is not None else b""


class RelayH3Connection(H3Connection):
    """aioquic's HTTP/3 with the settings of every WebTransport dialect."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic, enable_webtransport=True)

    def _get_local_settings(self) -> dict[int, int]:
        return super()._get_local_settings() | WEBTRANSPORT_SETTINGS

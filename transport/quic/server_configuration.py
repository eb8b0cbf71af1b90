"""What the relay's side of each connection is like: aioquic's configuration for clients' handshakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

from transport.quic.aioquic_internals import CONNECTION_ID_LENGTH

if TYPE_CHECKING:
    from transport.certificates import Certificate

IDLE_TIMEOUT = 180.0
"""Seconds without a packet after which QUIC gives a connection up."""
MAX_DATAGRAM_FRAME = 65535
"""Announced in the transport parameters; a packet bounds what really arrives."""
MAX_STREAM_WINDOW = 64 * 1024
"""Flow control window of a stream and of all streams: a request fits, a flood does not."""


def server_configuration(certificate: Certificate, congestion: str) -> QuicConfiguration:
    """Build it with a certificate and the name of a congestion control."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        supported_versions=[QuicProtocolVersion.VERSION_1],
        # Cheapest first where the client accepts it: AES-128 costs a third less than AES-256.
        cipher_suites=[
            CipherSuite.AES_128_GCM_SHA256,
            CipherSuite.AES_256_GCM_SHA384,
            CipherSuite.CHACHA20_POLY1305_SHA256,
        ],
        connection_id_length=CONNECTION_ID_LENGTH,
        idle_timeout=IDLE_TIMEOUT,
        max_data=MAX_STREAM_WINDOW,
        max_stream_data=MAX_STREAM_WINDOW,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        congestion_control_algorithm=congestion,
    )
    configuration.certificate = certificate.chain[0]
    configuration.certificate_chain = list(certificate.chain[1:])
    configuration.private_key = certificate.private_key
    return configuration

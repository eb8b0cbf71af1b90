"""What the log says of TLS handshakes that fail, over QUIC and over TCP (RFC 8446, section 6).

A client that does not accept the relay's certificate says so in an alert, and nobody else learns of it: a
browser that pins the hash of an earlier certificate shows its page no more than that there is no connection.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from aioquic.tls import AlertDescription
from loguru import logger

if TYPE_CHECKING:
    from transport.certificates import Certificate

CRYPTO_ERRORS = range(0x100, 0x200)
"""TLS alerts as QUIC error codes of the transport (RFC 9001, section 4.8)."""

_ABOUT_CERTIFICATES = frozenset(
    {
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
        "bad certificate status response",
    }
)
_ALERT = re.compile(r".*ALERT_([A-Z_]+)")


def alert_of_quic(error_code: int) -> str:
    """Name of the alert in a QUIC error code."""
    number = error_code - CRYPTO_ERRORS.start
    try:
        return AlertDescription(number).name.replace("_", " ")
    except ValueError:
        return f"alert {number}"


def log_alert(remote: str, alert: str, certificate: Certificate) -> None:
    """Log that a client ended the handshake with an alert, and what it may mean."""
    said = logger.bind(reason=f"TLS alert: {alert}")
    if alert in _ABOUT_CERTIFICATES:
        trust = (
            "pins the hash of another one, or trusts authorities only"
            if certificate.is_self_signed
            else "does not know the authority, or asked for another name"
        )
        said.warning(
            "{} does not accept the relay's certificate ({}): perhaps it {}; the present hash is {}",
            *(remote, alert, trust, certificate.sha256),
        )
    else:
        said.warning("{} ended the TLS handshake: {}", remote, alert)


def log_refusal(remote: str, reason: str) -> None:
    """Log that the relay could not agree with a client on how to speak TLS."""
    logger.bind(reason=f"TLS refusal: {reason}").warning(
        "{} was refused in the TLS handshake: {}", remote, reason
    )


def log_handshake_error(remote: str, error: OSError, certificate: Certificate) -> None:
    """Log what ended a handshake over TCP: the client's alert, OpenSSL's refusal, or just the connection."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        # Python's asyncio, for one, closes the connection without the alert.
        logger.info(
            "{} left in the TLS handshake: perhaps it does not accept the relay's certificate", remote
        )
        return
    reason = error.reason or "unknown"
    found = _ALERT.fullmatch(reason)
    if found is not None:
        log_alert(remote, found[1].lower().replace("_", " "), certificate)
    else:
        log_refusal(remote, reason.lower().replace("_", " "))

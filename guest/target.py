"""Where a client connects to and which certificate it accepts there."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from transport.admission import TOKEN_FIELD, without_secrets

_HTTPS_PORT = 443
TOKEN = re.compile(r"[A-Za-z0-9_.+/=~-]{1,4096}", re.ASCII)
"""What may stand behind ``Bearer`` (RFC 6750 section 2.1); relays take no longer ones."""
_SHA256_TEXT = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)


def parse_certificate_hash(text: str) -> bytes:
    """Read a SHA-256 written as 64 hex digits, colons between bytes allowed. Raises ValueError."""
    digits = text.replace(":", "")
    if not _SHA256_TEXT.fullmatch(digits):
        raise ValueError(f"{text[:80]!r} is not a SHA-256 hash of 64 hexadecimal digits")
    return bytes.fromhex(digits)


MAX_HASHES = 16


def parse_certificate_hashes(text: str) -> tuple[bytes, ...]:
    """Read one or more of them, with commas between. Raises ValueError."""
    hashes = tuple(parse_certificate_hash(each.strip()) for each in text.split(","))
    if len(hashes) > MAX_HASHES:
        raise ValueError(f"must be at most {MAX_HASHES} hashes")
    return hashes


@dataclass(frozen=True, slots=True)
class Trust:
    """Which server certificate is accepted.

    ``certificate_hash`` (SHA-256 of the leaf's DER, as in a browser's ``serverCertificateHashes``) pins one
    certificate and nothing else counts, but for those of ``further_hashes``: other relays of the LAN;
    ``insecure`` accepts any; otherwise the chain must lead to a CA of ``ca`` (a PEM file) or, without it, to
    one that the system trusts.
    """

    certificate_hash: bytes | None = None
    ca: Path | None = None
    insecure: bool = False
    further_hashes: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, cert_hash: str | None, ca: str | Path | None, insecure: bool) -> Trust:
        """Make it of what a user says; see ``parse_certificate_hashes``. Raises ValueError."""
        first, *others = parse_certificate_hashes(cert_hash) if cert_hash else (None,)
        further = tuple(each for each in others if each is not None)
        return cls(first, None if ca is None else Path(ca), insecure, further)

    def takes(self, found: bytes) -> bool:
        """Whether a certificate with this hash is none but one that is pinned, if any is."""
        if self.certificate_hash is None:
            return True
        return any(hmac.compare_digest(found, each) for each in (self.certificate_hash, *self.further_hashes))

    def __post_init__(self) -> None:
        if self.certificate_hash is not None and len(self.certificate_hash) != hashlib.sha256().digest_size:
            raise ValueError("a certificate hash has 32 bytes")


@dataclass(frozen=True, slots=True)
class Target:
    """A checked ``https://HOST[:PORT][/PATH][?QUERY]``."""

    host: str
    port: int
    path: str
    token: str = field(default="", repr=False)
    """What lets the client in, where it is not in the query; sent as ``Authorization: Bearer``."""

    def __post_init__(self) -> None:
        if self.token and not TOKEN.fullmatch(self.token):
            raise ValueError("the token is none: it has other characters than such have, or too many")

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read ``url``. Raises ValueError with one line that says what is wrong."""
        shown = repr(without_secrets(url)[:200])
        try:
            parts = urlsplit(url)
            port = _HTTPS_PORT if parts.port is None else parts.port
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"{shown} is not a WebTransport address such as https://HOST:PORT/")
        if parts.username is not None or parts.fragment or port == 0:
            raise ValueError(f"{shown}: a WebTransport address has a host, a port, a path and a query only")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not (path.isascii() and path.isprintable()) or " " in path:
            raise ValueError(f"{shown}: what is not printable ASCII must be percent-encoded")
        # The interface of a link-local address stands behind %25 in a URL (RFC 6874), elsewhere behind %.
        host = parts.hostname.replace("%25", "%", 1) if ":" in parts.hostname else parts.hostname
        return cls(host, port, path)

    @property
    def has_token(self) -> bool:
        """Whether there is a token in the query."""
        return any(name == TOKEN_FIELD for name, _ in parse_qsl(self.path.partition("?")[2]))

    @property
    def authorization(self) -> dict[str, str]:
        """The header field that shows the token."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def authority(self) -> str:
        """Host and port as they stand in a request and in messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

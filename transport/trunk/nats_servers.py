"""The NATS servers of a cluster, and how its messages are told from others'.

Apart from their client (``nats_trunk``), which is loaded where there is a cluster.
"""

from __future__ import annotations

import hmac
import ssl
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.parse import ParseResult

TAG_LENGTH: Final = 16
"""Bytes of a keyed BLAKE2b digest (RFC 7693)."""
MOST_CREDENTIALS: Final = 64 * 1024
"""Bytes of a file with credentials that are read: an account's JWT may list many subjects."""


class Login(NamedTuple):
    """Who one is for a server: user and password of its URL, or a token in the place of both."""

    user: str | None = None
    password: str | None = None
    token: str | None = None


class NatsServers(NamedTuple):
    """The servers of a cluster, and how they are used."""

    urls: tuple[str, ...]
    name: str
    """Of the cluster: the first part of its subjects."""
    key: bytes
    """What messages are tagged by, up to 64 bytes."""
    credentials: Path | None = None
    """A file with an account's JWT and seed, as ``nsc`` writes it."""
    authority: Path | None = None
    """Certificates by which servers' are checked (PEM), where those of the system do not do."""

    def read_credentials(self) -> str | None:
        """Read the account's JWT and seed; None where there are none. Raises OSError, ValueError.

        The client looks for the first line of a JWT for ever, and the event loop stands still meanwhile.
        """
        if self.credentials is None:
            return None
        with self.credentials.open("rb") as opened:
            text = opened.read(MOST_CREDENTIALS).decode(errors="replace")
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise ValueError("credentials must have a NATS USER JWT and a USER NKEY SEED, as nsc writes them")
        return text

    def login(self) -> Login:
        """Tell what all URLs have of that; nothing where they differ."""
        found = {(parts.username, parts.password) for parts in map(urlsplit, self.urls)}
        said = found.pop() if len(found) == 1 else (None, None)
        user, password = (None if each is None else unquote(each) for each in said)
        return Login(user, password) if password is not None else Login(token=user)

    def tls_context(self) -> ssl.SSLContext | None:
        """Make what servers are checked by; None where they need no TLS. Raises OSError, ssl.SSLError."""
        if self.authority is not None:
            return ssl.create_default_context(cafile=str(self.authority))
        return ssl.create_default_context() if any(url.startswith("tls:") for url in self.urls) else None


class Seal:
    """Tells messages of the cluster from those of others."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def close(self, message: bytes) -> bytes:
        """Put a tag behind a message."""
        return message + self._tag(message)

    def open(self, sealed: bytes) -> bytes | None:
        """Take the tag off; None where it is not the right one."""
        message, tag = sealed[:-TAG_LENGTH], sealed[-TAG_LENGTH:]
        return message if hmac.compare_digest(tag, self._tag(message)) else None

    def _tag(self, message: bytes) -> bytes:
        return blake2b(message, digest_size=TAG_LENGTH, key=self._key).digest()


def shown(url: str | ParseResult) -> str:
    """Write a URL without the user and password that may be in it."""
    parts = urlsplit(url) if isinstance(url, str) else url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

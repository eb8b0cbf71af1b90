"""A listener for tests, with lists in place of actors, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from typing import NamedTuple

from admission_parts import OpenDoor
from raw_clients import RawTls
from waiting import until
from websockets.asyncio.client import connect

from actors.messages import DatagramsFromClient, DatagramsLost, SessionClosed
from actors.runtime import current_scheduler
from netstack.counters import Counters
from transport.certificates import EphemeralCertificateStore
from transport.origins import OriginPolicy
from transport.web.web_listener import WebListener
from transport.work_shares import LastTurns

PATIENCE = 30.0
CERTIFICATES = EphemeralCertificateStore(["127.0.0.1", "localhost"], datetime.now(UTC))
PAGES = {
    "/": ("text/plain", b"a page", {"X-Test": "yes"}),
    "/cert-hash": ("application/json", b"{}", {}),
}


class Peer:
    """Stands for a session's actor."""

    def __init__(self, session):
        self.session = session
        self.datagrams = []
        self.lost = []
        self.closed = None

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            self.datagrams += message.datagrams
        elif isinstance(message, DatagramsLost):
            self.lost += message.datagrams
        elif isinstance(message, SessionClosed):
            self.closed = message


class Web:
    """A running listener."""

    def __init__(
        self,
        *,
        host="127.0.0.1",
        plain=True,
        peer=Peer,
        certificates=CERTIFICATES,
        allow_origin=(),
        **limits,
    ):
        self.peers = []
        self.counters = Counters()
        self.certificates = certificates
        self._peer = peer
        origins = OriginPolicy(allow_origin, certificates, on_loopback=True)
        self.door = OpenDoor(self._open, origins, paths=True, first=100)
        self.listener = WebListener(
            host=host,
            port=0,
            plain=plain,
            certificates=certificates,
            pages=PAGES.get,
            admission=self.door,
            turns=current_scheduler(),
            last_turns=LastTurns(),
            counters=self.counters,
            **limits,
        )

    @property
    def port(self):
        return self.listener.port

    def _open(self, session):
        self.peers.append(self._peer(session))
        return self.peers[-1]

    async def peer(self):
        """The first session's."""
        await until(lambda: self.peers)
        return self.peers[0]

    async def fill(self):
        """Send to the only session until its client takes no more."""
        (connection,) = self.listener._connections
        while not connection._paused:
            self.peers[0].session.send([bytes(4000)] * 60)
            await asyncio.sleep(0)

    def trust(self):
        """TLS that takes this listener's certificate and no other."""
        return ssl.create_default_context(cadata=self.certificates.current.chain_pem().decode())

    def client(self, path, scheme="ws", **options):
        """A client of the library, which on leaving waits no longer for an answer that it does not read."""
        options |= {"ssl": self.trust()} if scheme == "wss" else {}
        return connect(f"{scheme}://127.0.0.1:{self.port}{path}", proxy=None, close_timeout=0.5, **options)


class Answered(NamedTuple):
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(reader, *, head_only=False):
    """Read one answer, whose length it says itself; None when the connection ends instead."""
    head = b""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    status, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    length = 0 if head_only else int(headers.get("Content-Length", "0"))
    return Answered(int(status.split()[1]), headers, await reader.readexactly(length))


@contextlib.asynccontextmanager
async def connected(web, *, secure=False):
    """A connection for raw bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.trust() if secure else None)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(web, request, *, secure=False, head_only=False):
    """Send raw bytes; give the first answer."""
    async with connected(web, secure=secure) as (reader, writer):
        writer.write(request)
        return await read_answer(reader, head_only=head_only)


def get(path="/", host="127.0.0.1", method="GET", more=""):
    """A request."""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def upgrade(path="/", **changes):
    """A request for a WebSocket; fields that are None are left out."""
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return get(
        path, more="".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    )


@contextlib.asynccontextmanager
async def raw(web, kind=RawTls):
    """One of ``raw_clients``; the listener has its handshake meanwhile."""
    with await asyncio.to_thread(kind, web.port) as client:
        yield client


@contextlib.asynccontextmanager
async def serving(**options):
    web = Web(**options)
    web.listener.start()
    try:
        yield web
    finally:
        await web.listener.close()


def run(scenario, **options):
    """Run a scenario beside a listener, which it is given."""

    async def main():
        async with asyncio.timeout(PATIENCE), serving(**options) as web:
            await scenario(web)

    asyncio.run(main())

"""A listener for tests, with lists in place of actors, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from itertools import count

from websockets.asyncio.client import connect

from actors.messages import DatagramsFromClient, SessionClosed
from actors.runtime import current_scheduler
from netstack.counters import Counters
from transport.certificates import EphemeralCertificateStore
from transport.web_listener import WebListener

PATIENCE = 30.0
CERTIFICATES = EphemeralCertificateStore(["127.0.0.1", "localhost"], datetime.now(UTC))
PAGES = {"/": ("text/plain", b"a page", {"X-Test": "yes"})}


class Peer:
    """Stands for a session's actor."""

    def __init__(self, session):
        self.session = session
        self.datagrams = []
        self.closed = None

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            self.datagrams += message.datagrams
        elif isinstance(message, SessionClosed):
            self.closed = message


class Web:
    """A running listener."""

    def __init__(self, *, plain=True, peer=Peer, certificates=CERTIFICATES):
        self.peers = []
        self.counters = Counters()
        self.certificates = certificates
        self._peer = peer
        self.listener = WebListener(
            host="127.0.0.1",
            port=0,
            plain=plain,
            certificates=certificates,
            pages=PAGES.get,
            open_session=self._open,
            next_session_number=count(100).__next__,
            turns=current_scheduler(),
            counters=self.counters,
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

    def trust(self):
        """TLS that takes this listener's certificate and no other."""
        return ssl.create_default_context(cadata=self.certificates.current.chain_pem().decode())

    def client(self, path, scheme="ws"):
        options = {"ssl": self.trust()} if scheme == "wss" else {}
        return connect(f"{scheme}://127.0.0.1:{self.port}{path}", proxy=None, **options)


@contextlib.asynccontextmanager
async def serving(**options):
    web = Web(**options)
    web.listener.start()
    try:
        yield web
    finally:
        await web.listener.close()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)

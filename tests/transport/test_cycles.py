"""Connections that have ended are freed at once: the garbage collector takes 30 ms for a thousand of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct

import pytest
from waiting import until
from web_parts import PATIENCE, get, serving

OF_A_CONNECTION = {
    "HttpConnection",
    "RequestReader",
    "SSLObject",
    "ServerProtocol",
    "TlsConnection",
    "WebSocketConnection",
    "_SelectorSocketTransport",
    "_SSLProtocolTransport",
}
UPGRADE = get(
    "/raw",
    more="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)
CLOSE = b"\x88\x80mask"
RESET = struct.pack("ii", 1, 0)


def hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


HELLO = hello()
SENT = {
    "nothing": b"",
    "half a request": get()[:20],
    "a bad request": b"GET\r\n\r\n",
    "a request": get(),
    "a last request": get(more="Connection: close\r\n"),
    "a WebSocket": UPGRADE,
    "a WebSocket that is closed": UPGRADE + CLOSE,
    "half a hello": HELLO[:100],
    "a hello": HELLO,
    "a hello and no TLS behind it": HELLO + b"\x16\3\3\0\4abcd",
}
SENT_BY_TLS = {name: SENT[name] for name in SENT if "hello" not in name}
CASES = [(name, sent, False) for name, sent in SENT.items()] + [
    (f"{name} by TLS", sent, True) for name, sent in SENT_BY_TLS.items()
]


def of_connections():
    return [type(found).__name__ for found in gc.get_objects() if type(found).__name__ in OF_A_CONNECTION]


def talk(web, sent, *, secure, is_reset):
    """Send something, take an answer to it if there is one, and leave."""
    with socket.create_connection(("127.0.0.1", web.port), PATIENCE) as plain:
        client = web.trust().wrap_socket(plain, server_hostname="localhost") if secure else plain
        client.sendall(sent)
        if b"\r\n\r\n" in sent or HELLO in sent:
            client.recv(4096)
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(("sent", "secure"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_ended_connections_are_freed_without_the_garbage_collector(sent, secure, is_reset):
    async def scenario():
        async with asyncio.timeout(PATIENCE), serving() as web:
            gc.collect()
            assert of_connections() == []
            gc.disable()
            try:
                await asyncio.to_thread(talk, web, sent, secure=secure, is_reset=is_reset)
                # Whoever is answered has been accepted later.
                await asyncio.to_thread(talk, web, get(), secure=False, is_reset=False)
                web.peers.clear()
                await until(lambda: not of_connections(), every=0.02)
            finally:
                gc.enable()

    asyncio.run(scenario())

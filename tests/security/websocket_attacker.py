"""Clients of a running relay that write their own WebSocket frames, and as many as TCP takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CONTINUED, PING = 0x1, 0x2, 0x0, 0x9
KILOBYTES_256 = 256 * 1024


def upgrade(path, *fields):
    """The request for a WebSocket at a path, with further header fields."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *fields,
    )
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode, payload=b"", *, fin=True):
    """A frame as a client sends it (RFC 6455, section 5.2), masked with zeros; 64 KB at most."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    return bytes([opcode | 0x80 * fin]) + size + bytes(4) + payload


def many(one):
    """256 KB of frames, about."""
    return one * (KILOBYTES_256 // len(one))


async def send_on(relay, data, seconds, *, path="/"):
    """Send the same again and again, and read what comes, until time is up or the relay ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(upgrade(path))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    reading = asyncio.create_task(_read_all(reader))
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            while not reading.done():
                writer.write(data)
                await writer.drain()
    writer.transport.abort()
    await reading


async def _read_all(reader):
    with contextlib.suppress(OSError):
        while await reader.read(KILOBYTES_256):
            pass


class TinyRecords:
    """A WebSocket over TLS with a record for each byte: ``many`` of them, encrypted before."""

    def __init__(self, relay, data, many):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._socket = socket.create_connection(("127.0.0.1", relay.port))
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._incoming.write(self._socket.recv(65536))
        self._tls.write(upgrade("/"))
        self._socket.sendall(self._outgoing.read())
        self._records = []
        for number in range(many):
            at = number % len(data)
            self._tls.write(data[at : at + 1])
            self._records.append(self._outgoing.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, number=None):
        """Send them all, as fast as TCP takes them, or one of them."""
        data = b"".join(self._records) if number is None else self._records[number]
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

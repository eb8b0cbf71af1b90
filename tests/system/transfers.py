"""Transfers between a guest and the servers of tcp_server.py, and what must arrive."""

from __future__ import annotations

import contextlib
import hashlib
import socket

BLOCK = bytes(range(251)) * 261
PATIENCE = 60.0


def blocks(size):
    """The first ``size`` bytes of the servers' pattern, in pieces."""
    for at in range(0, size, len(BLOCK)):
        yield BLOCK[: size - at]


def stream(size):
    return b"".join(blocks(size))


def told(pieces):
    """Length and SHA-256 of all of them together."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def tell(size):
    """What arrives when the first ``size`` bytes of the servers' pattern do."""
    return told(blocks(size))


@contextlib.contextmanager
def connection(guest, server):
    """Connect from a guest to ``server``, an address and a port."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with guest.namespace.socket(socket.SOCK_STREAM, family=family) as opened:
        opened.settimeout(PATIENCE)
        opened.connect(server)
        yield opened


def read_all(opened):
    return told(iter(lambda: opened.recv(1 << 18), b""))


def download(guest, source, size):
    with connection(guest, source) as opened:
        opened.sendall(f"{size}\n".encode())
        return read_all(opened)


def upload(guest, sink, size):
    """Give the SHA-256 that the server says."""
    with connection(guest, sink) as opened:
        opened.sendall(stream(size))
        opened.shutdown(socket.SHUT_WR)
        return opened.recv(100).decode()

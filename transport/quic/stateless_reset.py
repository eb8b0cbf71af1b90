"""Stateless resets: how a relay that has lost a connection tells its client so at once (RFC 9000, 10.3).

Every connection ID that the relay issues comes with a token made of it by a key. Whoever has the key can make
the token again when all else is lost, so a relay that was killed sends its clients back as soon as it runs.
A reset looks like a packet with a short header, ends with the token, and is shorter than the packet that
it answers: it amplifies nothing, and two endpoints that answer each other's resets soon stop.
"""

from __future__ import annotations

import os
from hashlib import blake2b

from netstack.shares import HALF, Shares

RESET_KEY_LENGTH = 32
TOKEN_LENGTH = 16
SHORTEST_RESET = 21
"""Bytes below which nobody takes a packet for a reset (RFC 9000, 10.3)."""
LONGEST_RESET = 43
"""Bytes beyond which a reset need not go: packets of every kind are as long."""
RESETS_PER_SECOND = 1000
"""Resets in a second, half of them to one client address at most; each costs 10 µs, a client needs one."""

_FIXED = 0x40
_RANDOM_FLAGS = 0x3F

CONNECTION_ID_START, CONNECTION_ID_END = 1, 9
"""Where a short header has our connection ID (RFC 9000, 17.3.1)."""


class StatelessResets:
    """Answers packets of connections that are not known any more."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._window_ends = 0.0
        self._sent = Shares(RESETS_PER_SECOND, HALF)

    def token_of(self, connection_id: bytes) -> bytes:
        """Return the token of a connection ID (RFC 9000, 10.3.2)."""
        return blake2b(connection_id, key=self._key, digest_size=TOKEN_LENGTH).digest()

    def answer(self, packet: bytes, client: str, now: float) -> bytes | None:
        """Return the reset that answers a short-header packet from ``client``; None where there is none."""
        length = min(len(packet) - 1, LONGEST_RESET)
        if length < SHORTEST_RESET:
            return None
        if now >= self._window_ends:
            self._window_ends = now + 1.0
            self._sent = Shares(RESETS_PER_SECOND, HALF)
        if not self._sent.take(client):
            return None
        token = self.token_of(packet[CONNECTION_ID_START:CONNECTION_ID_END])
        noise = os.urandom(length - TOKEN_LENGTH)
        return bytes((_FIXED | noise[0] & _RANDOM_FLAGS,)) + noise[1:] + token


def is_reset(packet: bytes, tokens: frozenset[bytes]) -> bool:
    """Whether a packet is the reset of a connection whose server has told these ``tokens``."""
    return len(packet) >= SHORTEST_RESET and packet[0] & 0xC0 == _FIXED and packet[-TOKEN_LENGTH:] in tokens

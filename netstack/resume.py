"""The secret by which a client shows that a MAC is its own: told in Assigned, said again with Register.

It is the MAC's message authentication code under a key of the LAN's, so nothing has to be kept for it. A
client that has lost its connection takes its MAC back with it, from whatever address; others have to wait
until the session that has the MAC is silent.
"""

from __future__ import annotations

import hmac

SECRET_LENGTH = 16
"""Bytes: as many as nobody can guess."""


def secret_of(key: bytes, mac: bytes) -> str:
    """Give the secret of ``mac`` (6 bytes) as hexadecimal digits."""
    return hmac.digest(key, mac, "sha256")[:SECRET_LENGTH].hex()


def is_secret_of(key: bytes, mac: bytes, said: str) -> bool:
    """Whether a client said the secret of ``mac``; takes the same time whatever it said."""
    return hmac.compare_digest(secret_of(key, mac).encode(), said.encode("utf-8", "replace"))

"""The secret by which a client shows that a MAC is its own: told in Assigned, said again with Register.

It is the message authentication code of the MAC and its switch port under a key of the LAN's, so nothing has
to be kept for it. A client that has lost its connection takes the MAC back with it, from whatever address,
and the port with all that is on it; others have to wait until the session that has the MAC is silent or gone.
Who had the MAC earlier, on a port that has ended, knows nothing that helps.
"""

from __future__ import annotations

import hmac

SECRET_LENGTH = 16
"""Bytes: as many as nobody can guess."""
PORT_LENGTH = 8


def secret_of(key: bytes, mac: bytes, port: int) -> str:
    """Give the secret of ``mac`` (6 bytes) on a port as hexadecimal digits."""
    return hmac.digest(key, mac + port.to_bytes(PORT_LENGTH, "big"), "sha256")[:SECRET_LENGTH].hex()


def is_secret_of(key: bytes, mac: bytes, port: int, said: str) -> bool:
    """Whether a client said the secret of ``mac`` on a port; takes the same time whatever it said."""
    return hmac.compare_digest(secret_of(key, mac, port).encode(), said.encode("utf-8", "replace"))

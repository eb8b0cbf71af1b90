"""How the process's file descriptors are shared out: clients must not take those of the guests' flows.

Theory of operation. RLIMIT_NOFILE bounds sockets of every kind together, and whoever reaches the TCP port
could take all of them. So connections get half at most, flows the rest, and OWN is kept for what the relay
itself opens: listeners, files, questions to name servers. QUIC clients need none: all share one socket.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

OWN = 64
"""Descriptors for the relay itself; a quarter where there are few."""
UNLIMITED = 1 << 20
"""What stands for a limit that is infinite."""
SOCKETS_PER_QUESTION = 4
"""Sockets of one question to name servers: those that are silent are listened to while others are asked."""


class Budget(NamedTuple):
    """Sockets at a time, by what they are for."""

    connections: int
    """TCP connections of clients."""
    flows: int
    """Flows of all guests, and connections through forwards."""
    questions: int
    """Questions to name servers, each of which has a few sockets."""


def budget(limit: int) -> Budget:
    """Share ``limit`` descriptors out."""
    if limit == resource.RLIM_INFINITY or limit > UNLIMITED:
        limit = UNLIMITED
    own = min(OWN, limit // 4)
    questions = max(1, limit // 8 // SOCKETS_PER_QUESTION)
    connections = max(1, (limit - own) // 2)
    flows = limit - own - connections - questions * SOCKETS_PER_QUESTION
    return Budget(connections, max(1, flows), questions)


def own_budget() -> Budget:
    """Share out what this process may open."""
    return budget(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

"""How the process's file descriptors are shared out: clients must not take those of the guests' flows.

Theory of operation. RLIMIT_NOFILE bounds sockets of every kind together, and whoever reaches the TCP port
could take all of them. So connections get half at most, flows the rest, and OWN is kept for what the relay
itself opens: listeners, files, questions to name servers. QUIC clients need none: all share one socket.
"""

from __future__ import annotations

import fcntl
import os
import resource
from typing import NamedTuple

OWN = 64
"""Descriptors for the relay itself; a quarter where there are few."""
UNLIMITED = 1 << 20
"""What stands for a limit that is infinite."""
SOCKETS_PER_QUESTION = 4
"""Sockets of one question to name servers: those that are silent are listened to while others are asked."""


TABLE = 1 << 16
"""Descriptors for which the kernel makes room at the start; 8 bytes each."""


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


def grow_table() -> None:
    """Have the kernel make room for TABLE descriptors now, as far as the limit allows.

    Linux doubles the table as descriptors come, and in a process with threads ``socket()`` waits for an RCU
    grace period then (``expand_fdtable``): 10 to 400 ms on a busy machine, in which the event loop stands.
    """
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], TABLE)
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        os.close(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, most - 1))
    except OSError:
        pass  # somebody has the last one; the table is as large as it gets
    finally:
        os.close(null)

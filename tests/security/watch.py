"""A watch over the neighbour of those who attack a relay."""

from __future__ import annotations

import asyncio
import inspect
import time

from guests import Neighbour

AFTERMATH = 0.5
"""Seconds for which the neighbour is watched after an attack."""
WATCHED_SECONDS = 105 * Neighbour.INTERVAL
"""How long it is watched at least with an attack: of fewer than 100 pings none would be the one of 100."""
P99_ALLOWED = 0.02
"""Seconds that an attack may add to 99 of 100 pings, the kernel's doing aside (see ``Neighbour``)."""


class LatenessError(AssertionError):
    """An attack made a neighbour's pings late, or the machine did: an attack does it each time."""


def spares_the_neighbour(relay, attack):
    """Run ``attack`` with a neighbour's pings watched: none is lost, and 99 of 100 are hardly later.

    ``attack`` is a function, or one that gives a coroutine; what it returns is returned. ``LatenessError``
    has the test run again, see ``conftest.py``.
    """
    quiet = p99_of_a_quiet_relay(relay)
    with Neighbour(relay) as neighbour:
        began = time.monotonic()
        result = attack()
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        # Whatever the attack left to be done is done meanwhile.
        time.sleep(max(AFTERMATH, began + WATCHED_SECONDS - time.monotonic()))
    assert neighbour.intact == neighbour.sent > 0
    measured = f"p99 {neighbour.p99 * 1000:.1f} ms ({neighbour.p99_with_waits * 1000:.1f} with waits)"
    told = f"{measured}, {quiet * 1000:.1f} ms without an attack"
    if neighbour.p99 >= P99_ALLOWED + quiet:
        raise LatenessError(told)
    print(told)
    return result


_quiet: list[float] = []


def p99_of_a_quiet_relay(relay):
    """What this machine's noise alone does to the pings; measured once, for relays do not differ in it."""
    if not _quiet:
        with Neighbour(relay) as neighbour:
            time.sleep(WATCHED_SECONDS)
        _quiet.append(neighbour.p99)
    return _quiet[0]

"""Addresses that one guest holds and another uses: who has one is found out by asking its holder.

A guest may give an address up without a word, and another may take it: a container that restarts with another
MAC, a second server that takes over a service address. So when a guest uses an address that is another's, the
gateway asks the holder, by ARP (RFC 5227 section 2.4) or neighbour solicitation (RFC 4861 section 7.3). An
answer settles it for a while, silence gives the address to the challenger.

Sans I/O: times are monotonic seconds, and :meth:`Contests.due` says what to send and what was decided.
"""

from __future__ import annotations

from typing import NamedTuple

from netstack.shares import Shares

PROBES = 3
PROBE_INTERVAL = 0.5
"""Seconds between probes, and after the last: paths of 200 ms answer in time, silence costs 1.5 s."""

SETTLED_AT_FIRST = 2.0
"""Seconds for which a holder that answered is not asked again about the same address. The answer may have
been its last before it gave the address up, as where a service goes back to the machine that had it."""

SETTLED_FOR = 10.0
"""The same of one that answers again and again (RFC 5227's DEFEND_INTERVAL): twice as long each time until
then. After as long without a contest it begins anew."""

MAX_CONTESTS = 256
"""Running ones of one LAN, of which ports get less the more there are; and settled ones, the latest."""

MAX_PER_PORT = 8
"""Running ones of one challenger's port: a guest that claims all addresses makes others answer this often."""

NEVER = float("inf")


class Contest(NamedTuple):
    """``challenger``, behind switch port ``port``, uses an address of ``holder`` (MACs are 6 bytes)."""

    address: bytes
    holder: bytes
    challenger: bytes
    port: int


class Due(NamedTuple):
    """What is to be done now: ask the holders of these, and give the addresses of those to the challenger."""

    probes: list[Contest]
    lost: list[Contest]


class Contests:
    """Contests of one LAN, by address (4 or 16 bytes)."""

    def __init__(self) -> None:
        self._running: dict[bytes, tuple[Contest, int, float]] = {}
        """Each with its probes left and the time of the next step."""
        self._shares = Shares(MAX_CONTESTS)
        """These by the challengers' ports."""
        self._settled: dict[bytes, tuple[float, float]] = {}
        """Addresses whose holder has answered, until when that counts and since when; the oldest first."""

    @property
    def poll_at(self) -> float:
        """When :meth:`due` has something to say next."""
        if not self._running:  # as mostly; the gateway asks after each batch of frames
            return NEVER
        return min(at for _, _, at in self._running.values())

    def begin(self, contest: Contest, now: float) -> bool:
        """Start to find out; False when that runs, is settled, or when there are too many."""
        address = contest.address
        if address in self._running or self._settled.get(address, (now, now))[0] > now:
            return False
        if self._shares.held_by(contest.port) >= MAX_PER_PORT or not self._shares.take(contest.port):
            return False
        self._running[address] = (contest, PROBES, now)
        return True

    def answered(self, address: bytes, mac: bytes, now: float) -> bool:
        """Note that ``mac`` says that it has ``address``; True when that ends a contest."""
        running = self._running.get(address)
        if running is None or running[0].holder != mac:
            return False
        self._end(address)
        until, since = self._settled.pop(address, (-NEVER, -NEVER))
        is_anew = now >= until + SETTLED_FOR
        pause = SETTLED_AT_FIRST if is_anew else min(2 * (until - since), SETTLED_FOR)
        self._settled[address] = now + pause, now
        self._forget_settled(now)
        return True

    def due(self, now: float) -> Due:
        """Take the steps whose time has come."""
        due = Due([], [])
        for address, (contest, probes, at) in list(self._running.items()):
            if at > now:
                continue
            if probes:
                due.probes.append(contest)
                self._running[address] = (contest, probes - 1, now + PROBE_INTERVAL)
            else:
                due.lost.append(contest)
                self._end(address)
        return due

    def forget(self, mac: bytes) -> None:
        """End the contests of a guest that left, as holder or as challenger."""
        for address, (contest, _, _) in list(self._running.items()):
            if mac in (contest.holder, contest.challenger):
                self._end(address)

    def _end(self, address: bytes) -> None:
        contest, _, _ = self._running.pop(address)
        self._shares.give_back(contest.port)

    def _forget_settled(self, now: float) -> None:
        while self._settled:
            oldest = next(iter(self._settled))
            if self._settled[oldest][0] + SETTLED_FOR > now and len(self._settled) <= MAX_CONTESTS:
                return
            del self._settled[oldest]

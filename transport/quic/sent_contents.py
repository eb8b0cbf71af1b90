"""What was in packets that are on their way, so that who sent it can be told when they are lost.

The payloads are those that were sealed, kept in the runs in which they were sent: that costs a tuple per run,
and memory for no more than lies between the oldest and the newest packet in flight.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SentContents:
    """Payloads by packet number."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: deque[tuple[int, Sequence[bytes]]] = deque()

    def __len__(self) -> int:
        return sum(len(run) for _, run in self._runs)

    def add(self, first: int, plains: Sequence[bytes]) -> None:
        """Keep the payloads of packets ``first``, ``first + 1``, …, which follow all others."""
        self._runs.append((first, plains))

    def forget_before(self, number: int) -> None:
        """Forget runs that end before packet ``number``."""
        runs = self._runs
        while runs and runs[0][0] + len(runs[0][1]) <= number:
            runs.popleft()

    def of(self, number: int) -> bytes:
        """Give the payload of a packet; empty when it is not known."""
        index = bisect_right(self._runs, number, key=lambda run: run[0]) - 1
        if index < 0:
            return b""
        first, plains = self._runs[index]
        return plains[number - first] if number - first < len(plains) else b""

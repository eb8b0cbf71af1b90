"""What the two ends of a carried session have in common (``relay.carrying``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Worker(NamedTuple):
    """A worker's life."""

    number: int
    incarnation: int


class End(Protocol):
    """One end: a passage, or a session that is carried."""

    @property
    def other(self) -> Worker:
        """Who has the other end."""

    def messages(self) -> Iterator[bytes]:
        """Give up what the other end is to be told."""


class Ends(Protocol):
    """Who keeps account of a worker's ends."""

    def now(self) -> float:
        """Tell the monotonic time."""

    def work_for(self, end: End) -> None:
        """Take up at the end of the turn what there is to be told."""

    def forget(self, end: End) -> bool:
        """Forget one that has ended; whether it was known."""

    def fitting(self, datagrams: list[bytes]) -> list[bytes]:
        """Leave out datagrams that no message takes."""

    def drop(self, reason: str, datagrams: int) -> None:
        """Count datagrams that are dropped."""

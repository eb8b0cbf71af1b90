"""At which rate the path delivers what is sent (draft-ietf-ccwg-bbr, 4.1).

Each acknowledged packet tells how much was delivered between its sending and its acknowledgement; the longer
of the time that sending and that acknowledging took is what it is divided by, so bursts of neither fool it.
Samples of times in which there was not enough to send are marked: they show the application's rate.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Flight:
    """Packets that left at the same time, and what held then (the draft's per-packet state)."""

    __slots__ = (
        "app_limited",
        "delivered",
        "delivered_at",
        "first_sent_at",
        "in_flight",
        "lost",
        "sent_at",
    )

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.first_sent_at = sent_at
        """When the packet was sent whose acknowledgement was the last before."""
        self.delivered = 0
        """Bytes that had been delivered."""
        self.delivered_at = sent_at
        """When they had been."""
        self.lost = 0
        """Bytes that had been lost."""
        self.in_flight = 0
        """Bytes that were on their way, these packets included."""
        self.app_limited = False


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class DeliveryRate:
    """The state of a connection, and the newest sample."""

    def __init__(self) -> None:
        self.delivered = 0
        """Bytes acknowledged in the life of the connection."""
        self.lost = 0
        """Bytes lost in the life of the connection."""
        self.rate = 0.0
        """The newest sample in bytes per second; 0 where it is none."""
        self.sampled = 0
        """Bytes delivered in the sample's time."""
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._app_limited_until = 0

    def flight(self, now: float, in_flight: int) -> Flight:
        """Note the state for packets that leave ``now``; ``in_flight`` bytes are on their way already."""
        if in_flight <= 0:
            self._first_sent_at = self._delivered_at = now
        flight = Flight(now)
        flight.first_sent_at = self._first_sent_at
        flight.delivered = self.delivered
        flight.delivered_at = self._delivered_at
        flight.lost = self.lost
        flight.app_limited = self._app_limited_until > 0
        return flight

    def acknowledged(self, size: int, now: float) -> None:
        """Take ``size`` bytes as delivered."""
        self.delivered += size
        self._delivered_at = now
        if self._app_limited_until and self.delivered > self._app_limited_until:
            self._app_limited_until = 0

    def sample(self, newest: Flight, min_rtt: float) -> None:
        """Take a sample; ``newest`` is of the packet that was sent last of those acknowledged now."""
        self._first_sent_at = newest.sent_at
        self.sampled = self.delivered - newest.delivered
        interval = max(newest.sent_at - newest.first_sent_at, self._delivered_at - newest.delivered_at)
        # Less than a round trip: an acknowledgement that tells of too little time to tell anything.
        self.rate = self.sampled / interval if interval > 0 and interval >= min_rtt else 0.0

    def note_app_limited(self, in_flight: int) -> None:
        """Mark the packets that are on their way and those that follow until they have arrived."""
        self._app_limited_until = self.delivered + in_flight or 1

    @property
    def app_limited(self) -> bool:
        """Whether what is sent now has the application's rate, not the path's."""
        return self._app_limited_until > 0

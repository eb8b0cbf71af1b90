"""How much may be on its way to a client, and how fast it may leave: what a connection asks.

aioquic tells its controller of every packet; the datagram path tells of batches. ``Congestion`` is what the
path asks, whichever controller there is: BBR (``bbr``) implements it and what aioquic asks, and
``WindowCongestion`` puts aioquic's own controllers, Reno and CUBIC, behind it and paces them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from mypy_extensions import mypyc_attr

from transport.quic.delivery_rate import Flight
from transport.quic.ledger import SentPacket
from transport.quic.pacing import Pacer

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_IN_FLIGHT: Final = 16 * 1024 * 1024
"""Bytes on their way to one client, whatever the window: what is in them is kept until it acknowledges them,
and one that does so late, on purpose, has a window as large as it likes. As much as 1 Gbit/s in 134 ms."""
SLOW_START_PACING: Final = 2.0
"""Windows per round trip at which packets leave while the window doubles in each."""
PACING: Final = 1.25
"""Windows per round trip afterwards: more than one, so that pacing does not limit (RFC 9002, 7.7)."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Congestion(ABC):
    """Congestion control of one connection. Sizes are bytes, times are seconds."""

    def __init__(self) -> None:
        self.pacer = Pacer()

    @property
    @abstractmethod
    def window(self) -> int:
        """What may be sent; negative while too much is on its way. MOST_IN_FLIGHT at most."""

    @abstractmethod
    def flight(self, now: float) -> Flight:
        """Begin to send packets that leave together; ``sent`` tells their size."""

    @abstractmethod
    def sent(self, flight: Flight, newest: int, size: int) -> None:
        """Take ``size`` bytes as on their way; ``newest`` is the last packet's number."""

    @abstractmethod
    def acknowledged(self, newest: SentPacket, now: float) -> None:
        """Take packets as arrived, ``newest.sent_bytes`` together."""

    @abstractmethod
    def sample_round_trip(self, seconds: float, now: float) -> None:
        """Take a sample of the round-trip time, delay of acknowledgements included."""

    @abstractmethod
    def packets_lost(self, packets: Sequence[SentPacket], now: float) -> None:
        """Take packets as lost, oldest first."""

    @abstractmethod
    def expired(self, packet: SentPacket) -> None:
        """Take a packet off what is on its way, whose loss is no congestion."""

    @abstractmethod
    def persistent_congestion(self) -> None:
        """Take note that nothing came through for long (RFC 9002, 7.6)."""

    def update(self, now: float) -> None:  # noqa: B027 - most have none to draw
        """Draw the conclusions from all that was acknowledged and lost; before ``window`` is asked."""

    def note_app_limited(self) -> None:  # noqa: B027 - most do without
        """Take note that there is nothing more to send although it would be allowed."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class WindowCongestion(Congestion):
    """One of aioquic's controllers, which knows a window only, paced by the round-trip time."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        self._controller = controller
        self._round_trip = 0.0

    @property
    def window(self) -> int:
        """What the window leaves."""
        controller = self._controller
        return int(min(controller.congestion_window, MOST_IN_FLIGHT) - controller.bytes_in_flight)

    def flight(self, now: float) -> Flight:
        """Begin to send packets."""
        return Flight(now)

    def sent(self, flight: Flight, newest: int, size: int) -> None:
        """Tell the controller."""
        self._controller.on_packet_sent(packet=SentPacket(newest, size, flight.sent_at))

    def acknowledged(self, newest: SentPacket, now: float) -> None:
        """Tell the controller; a window that is not used shows nothing and does not grow (RFC 9002, 7.8)."""
        controller = self._controller
        window: int = controller.congestion_window
        is_used = 2 * controller.bytes_in_flight > window or self.pacer.waiting
        controller.on_packet_acked(packet=newest, now=now)
        if not is_used and controller.congestion_window > window:
            controller.congestion_window = window

    def sample_round_trip(self, seconds: float, now: float) -> None:
        """Tell the controller, and smooth the time as RFC 9002, 5.3 does."""
        self._controller.on_rtt_measurement(now=now, rtt=seconds)
        self._round_trip += (seconds - self._round_trip) / 8 if self._round_trip else seconds

    def packets_lost(self, packets: Sequence[SentPacket], now: float) -> None:
        """Tell the controller."""
        self._controller.on_packets_lost(now=now, packets=packets)

    def expired(self, packet: SentPacket) -> None:
        """Tell the controller."""
        self._controller.on_packets_expired(packets=[packet])

    def persistent_congestion(self) -> None:
        """Tell the controller."""
        self._controller.on_persistent_congestion()

    def update(self, _now: float) -> None:
        """Set the pacing rate."""
        if self._round_trip:
            controller = self._controller
            window: int = controller.congestion_window
            slow_start = controller.ssthresh is None or window < controller.ssthresh
            gain = SLOW_START_PACING if slow_start else PACING
            self.pacer.set_rate(gain * window / self._round_trip)


def congestion_of(controller: Any) -> Congestion:
    """Return what the datagram path asks of the controller that a connection of aioquic has."""
    return controller if isinstance(controller, Congestion) else WindowCongestion(controller)

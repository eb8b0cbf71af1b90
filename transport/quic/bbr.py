"""BBR, version 3: congestion control by a model of the path (draft-ietf-ccwg-bbr).

The model is the path's rate (the largest delivery rate of late) and its round-trip time without queues (the
smallest of late). Packets leave at the modelled rate, and at most twice what the path holds is on its way.
So a loss by chance does not slow a session down, as it does with Reno and CUBIC, and a large buffer on the
way is not filled. Every few seconds a little more is tried (UP), preceded by a drain (DOWN) so that others
find room; what losses show to be too much bounds the model, for long (``_inflight_high``) or until the next
trial (``_rate_low``, ``_inflight_low``).

Here differently from the draft:

- All acknowledgements of one turn of the event loop, which have the same time, are one event.
- Up to LOSS_BY_CHANCE of lost packets is not taken for congestion while the round trips show no queue:
  radio links lose so much on their own. With a queue it is the draft's 2 %.
- The path is taken to hold what the rate brings in ``TIMER_SLACK`` more than its round trip: on loopback and
  in a LAN both ends' timers and turns take longer than the path.
- On a path that short the window is never small but for losses: a busy machine delays acknowledgements by far
  more than the path does, and twice what the path holds, the draft's window, would stop the flow meanwhile.
- A trial ends as soon as what it sent shows a queue (UP_QUEUE_SHARE): more would only make it longer, for us
  and for whoever shares the path. A queue that stood before it, seconds after ours was drained, is that of
  others (CUBIC fills the buffer), who would get our share if each trial ended by it: it does not count.
- Between trials less is sent while there is a queue of our own (CRUISE_WITH_QUEUE): the draft leaves that to
  the rate's margin of 1 %, and the largest of many measured rates is above the path's by more.
- A round trip close to the smallest shows that there is no queue, so a session without one, as most are,
  never drains its path (PROBE_RTT) to find out.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aioquic.quic.congestion.base import register_congestion_control
from mypy_extensions import mypyc_attr

from transport.quic.bbr_signals import AckAggregation, FullPath
from transport.quic.congestion import MOST_IN_FLIGHT, Congestion
from transport.quic.delivery_rate import DeliveryRate, Flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from transport.quic.ledger import SentPacket

BBR = "bbr"
"""Its name in aioquic's registry."""

# Phases. Those from DOWN to UP are the draft's ProbeBW.
STARTUP, DRAIN, DOWN, CRUISE, REFILL, UP, PROBE_RTT = range(7)
PHASE_NAMES = ("startup", "drain", "down", "cruise", "refill", "up", "probe_rtt")
PACING_GAINS = (2.77, 0.5, 0.9, 1.0, 1.0, 1.25, 1.0)
CRUISE_WITH_QUEUE = 0.95
"""In place of the gain of CRUISE while there is a queue of ours. Where acknowledgements come unevenly, rates
are measured a little too high, which in the seconds between trials makes a queue that stays."""
WINDOW_GAINS = (2.0, 2.0, 2.0, 2.0, 2.0, 2.25, 0.5)

# Which acknowledgements are those of a trial (the draft's ack_phase).
NO_TRIAL, STARTING, FEEDBACK, STOPPING = range(4)

INITIAL_PACKETS = 10
MINIMUM_PACKETS = 4
"""Packets that may always be on their way: acknowledgements of every second one must not stop the flow."""
PACING_MARGIN = 0.99
"""Share of the modelled rate that is sent, so that a queue does not stay for ever."""
LOSS_THRESHOLD = 0.02
"""Share of lost packets that is too much where there is a queue."""
LOSS_BY_CHANCE = 0.08
"""And where there is none."""
FEWEST_LOST = 3
"""Packets that must be lost of one flight to say anything."""
STARTUP_LOST = 6
"""Packets that must be lost of one round trip to end STARTUP."""
BETA = 0.7
"""What is left of the short bounds after a round trip with losses, and of the long one after a trial."""
HEADROOM = 0.85
"""Share of the long bound that is used while others shall find room."""
LONGEST_DRAIN = 3
"""Round trips of DRAIN at most."""
PROBE_WAIT = 2.0
"""Seconds between two trials, and up to one more."""
RENO_ROUNDS = 63
"""Round trips between two trials at most; fewer where less is on its way, as Reno would grow."""
MIN_RTT_SECONDS = 10.0
"""Seconds for which the smallest round trip holds."""
PROBE_RTT_INTERVAL = 5.0
"""Seconds without a small round trip after which the path is drained to measure one."""
PROBE_RTT_SECONDS = 0.2
TIMER_SLACK = 0.002
SHORT_PATH = 0.005
"""Round trip below which what delays packets most is the machines at the ends."""
SHORT_PATH_WINDOW = 64 * 1024
"""Bytes that may always be on their way there, as far as losses do not forbid it; pacing bounds the queue."""
QUEUE_SHARE = 0.125
QUEUE_SECONDS = 0.002
"""A round trip is of a path without a queue up to these beyond the smallest."""
UP_QUEUE_SHARE = 0.35
"""Share of the smallest round trip that the queue of a trial may add. By simulation: with more, CUBIC beside
us gets too little where the buffer is small, with less, we where it is large."""
INFINITE = 1 << 60


# mypyc 2.4 never calls the __init__ of a serializable class with a native base unless it is open to others.
@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Bbr(Congestion):
    """The controller of one connection; sizes are bytes, rates bytes per second, times seconds."""

    def __init__(self, *, max_datagram_size: int, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives a number from 0 to 1: connections are not to try for more in step."""
        super().__init__()
        self.congestion_window = INITIAL_PACKETS * max_datagram_size
        self.bytes_in_flight = 0
        self.ssthresh: int | None = None
        self.phase = STARTUP
        self.max_rate = 0.0
        """The path's rate: the largest sample of this trial and the one before."""
        self.min_rtt = 0.0
        """The smallest round trip of late; 0 before the first."""
        self._packet = max_datagram_size
        self._minimum = MINIMUM_PACKETS * max_datagram_size
        self._initial = self.congestion_window
        self._chance = chance
        self._rate = DeliveryRate()
        self._flights: dict[int, Flight] = {}
        """Of the packets that aioquic sends itself."""
        # What this turn has brought.
        self._acked = self._lost = 0
        self._newest: Flight | None = None
        self._newest_lost: Flight | None = None
        self._newest_number = -1
        self._rtt = 0.0
        # Round trips, counted by packets.
        self._round = self._round_end = 0
        self._round_start = False
        self._round_rtt = self._last_round_rtt = 0.0
        # The long model.
        self._rates = [0.0, 0.0]
        self._inflight_high = INFINITE
        self._full = FullPath()
        self._drain_round = 0
        # The short model.
        self._rate_low, self._inflight_low = float(INFINITE), INFINITE
        self._rate_latest, self._inflight_latest = 0.0, 0
        self._loss_in_round = self._loss_round_end = 0
        # Trials.
        self._trial = NO_TRIAL
        self._trial_samples = False
        self._phase_since = self._probe_wait = 0.0
        self._rtt_before_trial = 0.0
        self._least_since_drain = float(INFINITE)
        self._rounds_since_trial = self._up_rounds = self._up_acked = 0
        self._up_step = INFINITE
        self._window_limited = False
        # The smallest round trip.
        self._min_rtt_at = 0.0
        self._recent_rtt = self._recent_rtt_at = 0.0
        self._probe_rtt_done_at = 0.0
        self._probe_rtt_round_done = False
        self._window_before = 0
        self._idle_restart = False
        self._round_trip_known = False
        self._aggregation = AckAggregation()
        self.pacer.set_rate(PACING_GAINS[STARTUP] * self._initial / 0.001)

    # -- what the datagram path tells and asks ----------------------------------------------------

    @property
    def window(self) -> int:
        """What may be sent; negative while too much is on its way."""
        return min(self.congestion_window, MOST_IN_FLIGHT) - self.bytes_in_flight

    def flight(self, now: float) -> Flight:
        """Begin to send packets that leave together."""
        in_flight = self.bytes_in_flight
        if in_flight <= 0 and self._rate.app_limited:
            self._idle_restart = True
            self._aggregation.restart(now)
            if DOWN <= self.phase <= UP and self.max_rate:
                self.pacer.set_rate(PACING_MARGIN * self._safe_rate())
            elif self.phase == PROBE_RTT:
                self._end_probe_rtt_when_due(now)
        return self._rate.flight(now, in_flight)

    def sent(self, flight: Flight, _newest: int, size: int) -> None:
        """Take ``size`` bytes as on their way."""
        in_flight = self.bytes_in_flight + size
        self.bytes_in_flight = flight.in_flight = in_flight
        if in_flight + self._packet > self.congestion_window:
            self._window_limited = True

    def acknowledged(self, newest: SentPacket, now: float) -> None:
        """Take packets as arrived."""
        size = newest.sent_bytes
        self.bytes_in_flight -= size
        self._acked += size
        self._rate.acknowledged(size, now)
        if newest.packet_number > self._newest_number:
            self._newest_number = newest.packet_number
            self._newest = newest.flight

    def sample_round_trip(self, seconds: float, _now: float) -> None:
        """Take a sample of the round-trip time."""
        if not 0 < self._rtt <= seconds:
            self._rtt = seconds

    def packets_lost(self, packets: Sequence[SentPacket], _now: float) -> None:
        """Take packets as lost, oldest first."""
        size = 0
        for packet in packets:
            size += packet.sent_bytes
            if packet.flight is not None:
                self._newest_lost = packet.flight
        self._take_lost(size)

    def _take_lost(self, size: int) -> None:
        self.bytes_in_flight -= size
        self._lost += size
        self._rate.lost += size

    def expired(self, packet: SentPacket) -> None:
        """Take a packet off what is on its way."""
        self.bytes_in_flight -= packet.sent_bytes

    def persistent_congestion(self) -> None:
        """Start again from the smallest window; the model stays, and the window returns with what arrives."""
        self._save_window()
        self.congestion_window = self._minimum

    def note_app_limited(self) -> None:
        """Take note that there is nothing more to send although it would be allowed."""
        if self.bytes_in_flight < self.congestion_window:
            self._rate.note_app_limited(self.bytes_in_flight)

    # -- what aioquic tells of its own packets ----------------------------------------------------

    def on_packet_sent(self, *, packet: Any) -> None:
        """Take aioquic's packet as on its way."""
        flight = self.flight(packet.sent_time)
        self._flights[packet.packet_number] = flight
        self.sent(flight, packet.packet_number, packet.sent_bytes)

    def on_packet_acked(self, *, now: float, packet: Any) -> None:
        """Take aioquic's packet as arrived."""
        size: int = packet.sent_bytes
        self.bytes_in_flight -= size
        self._acked += size
        self._rate.acknowledged(size, now)
        flight = self._flights.pop(packet.packet_number, None)
        if flight is not None and packet.packet_number > self._newest_number:
            self._newest_number = packet.packet_number
            self._newest = flight

    def on_packets_lost(self, *, now: float, packets: Iterable[Any]) -> None:
        """Take aioquic's packets as lost."""
        size = 0
        for packet in packets:
            size += packet.sent_bytes
            self._newest_lost = self._flights.pop(packet.packet_number, self._newest_lost)
        self._take_lost(size)
        self.update(now)

    def on_packets_expired(self, *, packets: Iterable[Any]) -> None:
        """Take aioquic's packets off what is on its way."""
        for packet in packets:
            self._flights.pop(packet.packet_number, None)
            self.bytes_in_flight -= packet.sent_bytes

    def on_persistent_congestion(self) -> None:
        """See ``persistent_congestion``."""
        self.persistent_congestion()

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Take a sample of the round-trip time, the last word on an acknowledgement."""
        self.sample_round_trip(rtt, now)
        self.update(now)

    def get_log_data(self) -> dict[str, Any]:
        """Describe the state for aioquic's log."""
        return {
            "cwnd": self.congestion_window,
            "bytes_in_flight": self.bytes_in_flight,
            "bbr-phase": PHASE_NAMES[self.phase],
        }

    # -- the model --------------------------------------------------------------------------------

    def update(self, now: float) -> None:
        """Draw the conclusions from all that was acknowledged and lost since the last time."""
        newest, lost = self._newest, self._lost
        if newest is None and not lost:
            return
        acked, rtt = self._acked, self._rtt
        flight = newest or self._newest_lost
        self._acked = self._lost = 0
        self._newest = self._newest_lost = None
        self._rtt = 0.0
        rate = self._rate
        rate.rate, rate.sampled = 0.0, 0
        self._round_start = False
        if newest is not None:
            rate.sample(newest, self.min_rtt)
            self._count_rounds(newest, rtt)
        app_limited = flight is None or flight.app_limited
        if app_limited and not lost and self._learns_nothing(rate.rate):
            self._learn_min_rtt(rtt, now)
            self._idle_restart = False
            return
        self._learn_rate(newest, lost, app_limited)
        if newest is not None:
            if self._round_start:
                self._aggregation.round_ended(growing=not self._full.ever)
            self._aggregation.acknowledged(acked, self._safe_rate(), self.congestion_window, now)
        if not app_limited:
            self._full.sample(rate.rate, round_start=self._round_start)
        if not self._full.ever:
            self._check_startup_losses(flight)
        self._advance(flight, acked, app_limited, rtt, now)
        self._learn_min_rtt(rtt, now)
        self._check_probe_rtt(now)
        if newest is not None:
            self._idle_restart = False
        self._set_rate()
        self._set_window(acked)
        if self._round_start:
            self._window_limited = False

    def _learns_nothing(self, sample: float) -> bool:
        """Tell whether a sample of the application's rate changes nothing: most of most sessions' lives."""
        return (
            self.phase == STARTUP
            and self._round_trip_known
            and not self._window_limited
            and sample <= self.max_rate
        )

    def _count_rounds(self, newest: Flight, rtt: float) -> None:
        if rtt > 0 and not 0 < self._round_rtt <= rtt:
            self._round_rtt = rtt
        if newest.delivered >= self._round_end:
            self._start_round()
            self._round_start = True
            self._round += 1
            self._rounds_since_trial += 1
            self._last_round_rtt, self._round_rtt = self._round_rtt, 0.0
            if self.phase == CRUISE and self._last_round_rtt > 0:
                self._least_since_drain = min(self._least_since_drain, self._last_round_rtt)

    def _start_round(self) -> None:
        self._round_end = self._rate.delivered

    def _learn_rate(self, newest: Flight | None, lost: int, app_limited: bool) -> None:
        """Learn the rate, and the short bounds, which follow losses (the draft's 5.5.5 and 5.5.10)."""
        rate = self._rate
        sample = rate.rate
        self._rate_latest = max(self._rate_latest, sample)
        self._inflight_latest = max(self._inflight_latest, rate.sampled)
        loss_round_start = newest is not None and newest.delivered >= self._loss_round_end
        if loss_round_start:
            self._loss_round_end = rate.delivered
        if sample > 0 and (sample >= self.max_rate or not app_limited):
            self._rates[1] = max(self._rates[1], sample)
            self.max_rate = max(self._rates)
        self._loss_in_round += lost
        if loss_round_start:
            if self._loss_in_round and self.phase in (DRAIN, DOWN, CRUISE, PROBE_RTT):
                if self._rate_low >= INFINITE:
                    self._rate_low, self._inflight_low = self.max_rate, self.congestion_window
                self._rate_low = max(self._rate_latest, BETA * self._rate_low)
                self._inflight_low = max(self._inflight_latest, int(BETA * self._inflight_low))
            self._loss_in_round = 0
            self._rate_latest, self._inflight_latest = sample, rate.sampled

    def _forget_short_bounds(self) -> None:
        self._rate_low, self._inflight_low = float(INFINITE), INFINITE
        self._rate_latest, self._inflight_latest, self._loss_in_round = 0.0, 0, 0

    def _check_startup_losses(self, flight: Flight | None) -> None:
        if (
            flight is not None
            and self._loss_in_round >= STARTUP_LOST * self._packet
            and self._too_much_lost(flight)
        ):
            self._full.ever = True
            self._inflight_high = max(self._holds(1.0), self._inflight_latest, self._rate.sampled)

    @property
    def _queue_seen(self) -> bool:
        return self._last_round_rtt > self.min_rtt * (1 + QUEUE_SHARE) + QUEUE_SECONDS

    @property
    def _queue_of_others(self) -> bool:
        """Whether a queue has stood ever since ours was drained, and is longer than what we make."""
        least = min(self._last_round_rtt, self._least_since_drain)
        return least > self.min_rtt * (1 + UP_QUEUE_SHARE) + QUEUE_SECONDS

    def _too_much_lost(self, flight: Flight) -> bool:
        lost = self._rate.lost - flight.lost
        if lost < FEWEST_LOST * self._packet:
            return False
        return lost > flight.in_flight * (LOSS_THRESHOLD if self._queue_seen else LOSS_BY_CHANCE)

    # -- phases -----------------------------------------------------------------------------------

    def _advance(self, flight: Flight | None, acked: int, app_limited: bool, rtt: float, now: float) -> None:
        if self.phase == STARTUP and self._full.ever:
            self.phase = DRAIN
            self._drain_round = self._round
        if self.phase == DRAIN and (
            self.bytes_in_flight <= self._holds(1.0) or self._round > self._drain_round + LONGEST_DRAIN
        ):
            self._start_down(now)
        if not self._full.ever:
            return
        self._learn_long_bound(flight, acked, app_limited, now)
        phase = self.phase
        if phase in (DOWN, CRUISE):
            if self._is_time_for_trial(now):
                self._start_refill()
            elif phase == DOWN and self.bytes_in_flight <= min(self._with_headroom(), self._holds(1.0)):
                self.phase = CRUISE
        elif phase == REFILL:
            if self._round_start:
                self._start_up(now)
        elif phase == UP and (self._queue_of_trial(rtt) or self._is_time_to_go_down()):
            self._start_down(now)

    def _learn_long_bound(self, flight: Flight | None, acked: int, app_limited: bool, now: float) -> None:
        """Learn from a trial what may be on its way (the draft's 5.3.3.6)."""
        if self._round_start:
            if self._trial == STARTING:
                self._trial = FEEDBACK
            elif self._trial == STOPPING:
                self._trial = NO_TRIAL
                # A trial without a sample has told nothing that could take the place of what is known.
                if DOWN <= self.phase <= UP and not app_limited and self._rates[1]:
                    self._rates = [self._rates[1], 0.0]
                    self.max_rate = max(self._rates)
        if flight is None:
            return
        if self._too_much_lost(flight):
            if self._trial_samples:
                self._trial_samples = False
                if not app_limited:
                    target = min(self._holds(1.0), self.congestion_window)
                    self._inflight_high = max(flight.in_flight, int(BETA * target))
                if self.phase == UP:
                    self._start_down(now)
        elif self._inflight_high < INFINITE:
            self._inflight_high = max(self._inflight_high, flight.in_flight)
            if self.phase == UP:
                self._raise_long_bound(acked)

    def _raise_long_bound(self, acked: int) -> None:
        if self._window_limited and self.congestion_window >= self._inflight_high:
            self._up_acked += acked
            if self._up_acked >= self._up_step:
                steps = self._up_acked // self._up_step
                self._up_acked -= steps * self._up_step
                self._inflight_high += steps * self._packet
        if self._round_start:
            self._steepen()

    def _steepen(self) -> None:
        """Double how fast the long bound grows."""
        growth = 1 << self._up_rounds
        self._up_rounds = min(self._up_rounds + 1, 30)
        self._up_step = max(self.congestion_window // growth, 1)

    def _is_time_for_trial(self, now: float) -> bool:
        packets = min(self._holds(1.0), self.congestion_window) // self._packet
        return now > self._phase_since + self._probe_wait or self._rounds_since_trial >= min(
            packets, RENO_ROUNDS
        )

    def _queue_of_trial(self, rtt: float) -> bool:
        """Whether a round trip of what the trial has sent shows a queue that was not there before."""
        added = rtt - self._rtt_before_trial
        return self._trial == FEEDBACK and added > self.min_rtt * UP_QUEUE_SHARE + QUEUE_SECONDS

    def _is_time_to_go_down(self) -> bool:
        if self._window_limited and self.congestion_window >= self._inflight_high:
            self._full.look_again(self._rate.rate)
            return False
        return self._full.now

    def _start_down(self, now: float) -> None:
        self.phase = DOWN
        self._rate_latest, self._inflight_latest, self._loss_in_round = 0.0, 0, 0
        self._up_step = INFINITE
        self._rounds_since_trial = int(self._chance() * 2)
        self._probe_wait = PROBE_WAIT + self._chance()
        self._phase_since = now
        self._trial = STOPPING
        self._start_round()

    def _start_refill(self) -> None:
        self.phase = REFILL
        self._rtt_before_trial = self._last_round_rtt if self._queue_of_others else self.min_rtt
        self._least_since_drain = float(INFINITE)
        self._forget_short_bounds()
        self._up_rounds = self._up_acked = 0
        self._trial_samples = True
        self._start_round()

    def _start_up(self, now: float) -> None:
        self.phase = UP
        self._trial = STARTING
        self._start_round()
        self._full.look_again(self._rate.rate)
        self._phase_since = now
        self._steepen()

    # -- the smallest round trip ------------------------------------------------------------------

    def _learn_min_rtt(self, rtt: float, now: float) -> None:
        if rtt <= 0:
            return
        smallest = self._recent_rtt
        if smallest <= 0 or rtt <= smallest or now > self._recent_rtt_at + PROBE_RTT_INTERVAL:
            if self.phase == PROBE_RTT or rtt <= smallest or smallest <= 0:
                self._recent_rtt, self._recent_rtt_at = rtt, now
        elif rtt <= smallest * (1 + QUEUE_SHARE) + QUEUE_SECONDS:
            self._recent_rtt_at = now
        if self.min_rtt <= 0 or rtt <= self.min_rtt or now > self._min_rtt_at + MIN_RTT_SECONDS:
            self.min_rtt, self._min_rtt_at = rtt, now

    def _check_probe_rtt(self, now: float) -> None:
        if self.phase != PROBE_RTT:
            expired = now > self._recent_rtt_at + PROBE_RTT_INTERVAL
            if expired and self._recent_rtt > 0 and not self._idle_restart:
                self._save_window()
                self.phase = PROBE_RTT
                self._probe_rtt_done_at = 0.0
                self._trial = STOPPING
                self._start_round()
            return
        self._rate.note_app_limited(self.bytes_in_flight)
        if not self._probe_rtt_done_at:
            if self.bytes_in_flight <= self._probe_rtt_window():
                self._probe_rtt_done_at = now + PROBE_RTT_SECONDS
                self._probe_rtt_round_done = False
                # What this phase measures is the smallest of the next interval, whatever was before.
                self._recent_rtt = 0.0
                self._start_round()
        else:
            self._probe_rtt_round_done |= self._round_start
            if self._probe_rtt_round_done:
                self._end_probe_rtt_when_due(now)

    def _end_probe_rtt_when_due(self, now: float) -> None:
        if self._probe_rtt_done_at and now > self._probe_rtt_done_at:
            if self._recent_rtt > 0:
                self.min_rtt, self._min_rtt_at = self._recent_rtt, now
            self._recent_rtt_at = now
            self.congestion_window = max(self.congestion_window, self._window_before)
            self._forget_short_bounds()
            if self._full.ever:
                self._start_down(now)
                self.phase = CRUISE
            else:
                self.phase = STARTUP

    def _save_window(self) -> None:
        self._window_before = self.congestion_window

    # -- what follows from the model --------------------------------------------------------------

    def _safe_rate(self) -> float:
        return min(self.max_rate, self._rate_low)

    def _holds(self, gain: float) -> int:
        """``gain`` times what the path holds, never less than what bursts and acknowledgements need."""
        if self.min_rtt <= 0:
            return self._initial
        path = int(gain * self.max_rate * (self.min_rtt + TIMER_SLACK))
        return max(path, 3 * self.pacer.burst, self._minimum)

    @property
    def _smallest_window(self) -> int:
        return SHORT_PATH_WINDOW if self.min_rtt < SHORT_PATH else self._minimum

    def _with_headroom(self) -> int:
        if self._inflight_high >= INFINITE:
            return INFINITE
        return max(int(HEADROOM * self._inflight_high), self._minimum)

    def _probe_rtt_window(self) -> int:
        path = WINDOW_GAINS[PROBE_RTT] * self._safe_rate() * (self.min_rtt + TIMER_SLACK)
        return max(int(path), self._smallest_window)

    def _set_rate(self) -> None:
        if not self._round_trip_known:
            if self.min_rtt > 0:
                self._round_trip_known = True
                self.pacer.set_rate(PACING_GAINS[STARTUP] * self._initial / max(self.min_rtt, 0.001))
            return
        gain = PACING_GAINS[self.phase]
        if self.phase == CRUISE and self._queue_seen and not self._queue_of_others:
            gain = CRUISE_WITH_QUEUE
        rate = gain * PACING_MARGIN * self._safe_rate()
        # What the path takes may be unknown still, or again: all samples were shorter than a round trip.
        if self.max_rate and (self._full.ever or rate > self.pacer.rate):
            self.pacer.set_rate(rate)

    def _set_window(self, acked: int) -> None:
        phase = self.phase
        most = max(self._holds(WINDOW_GAINS[phase]), self._smallest_window) + self._aggregation.extra
        if phase == UP:
            most += 2 * self._packet
        window = self.congestion_window
        if self._full.ever:
            window = min(window + acked, most)
        elif window < most or self._rate.delivered < self._initial:
            window += acked
        if phase == PROBE_RTT:
            window = min(window, self._probe_rtt_window())
        cap = INFINITE
        if phase in (CRUISE, PROBE_RTT):
            cap = self._with_headroom()
        elif DOWN <= phase <= UP:
            cap = self._inflight_high
        self.congestion_window = max(min(window, cap, self._inflight_low), self._minimum)


# Any: aioquic asks for a subclass of its own class, whose methods are all that it calls.
_REGISTER: Any = register_congestion_control
_REGISTER(BBR, Bbr)

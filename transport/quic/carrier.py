"""A QUIC connection of either side: aioquic, and beside it the path for the session's datagrams.

A carrier does no I/O. Its host hands it packets and time, and takes packets from it. What the two sides do
with streams and events is theirs: ``transport.quic.connection`` is the relay's, ``guest.client_connection`` a
client's.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from mypy_extensions import mypyc_attr

from actors.descriptions import PathState
from actors.work_time import work_time
from transport.quic.aioquic_internals import OpenQuicConnection
from transport.quic.datagram_path import MOST_ARRIVED, DatagramPath
from transport.quic.path_mtu import BASE, NEVER
from transport.quic.session import remote_text
from transport.work_shares import WorkAccount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioquic.quic.events import ConnectionTerminated, QuicEvent

    from netstack.counters import Counters
    from transport.quic.session import DatagramQueue, WebTransportSession
    from transport.quic.udp import Address

DATAGRAMS_IN_AIOQUIC: Final = 64
"""Datagrams handed to aioquic ahead of its window; the rest waits in the session's bounded queue."""
PACKET_OVERHEAD: Final = 1 + 20 + 4 + 16 + 3
"""Bytes of a 1-RTT packet around a datagram at most: flags, connection ID, number, tag, frame header."""

SHARE = 0.004
"""Seconds that a connection's packets may take of a turn; what is left waits until the others were served."""
SLICE: Final = 64
"""Packets between two looks at the clock."""
SLOW_SHARE: Final = 0.001
"""Seconds beyond what the packets ordinarily cost after which the share is used up too."""
ORDINARY_COST: Final = 0.0005
"""Seconds that a packet may cost on the slow way: TLS aside, an ordinary one takes a fifth of it."""
AIOQUIC: Final = "aioquic"
KEEP_ALIVE: Final = "keep-alive"
"""Names of deadlines: what aioquic has timers for; asking whether the silent other side is there."""

LEAST_KEEP_ALIVE: Final = 0.5
"""Seconds of silence before the other side is asked, however early it would give up."""

SUSPICION: Final = 1e-6
"""Seconds that are charged to whose packets took long for the first time."""


class CarrierHost(Protocol):
    """What a carrier needs of whoever has its socket."""

    @property
    def counters(self) -> Counters:
        """Where drops are counted."""

    def clock(self) -> float:
        """Return the event loop's time in seconds."""

    def send_packets(self, packets: Sequence[bytes], address: Address) -> None:
        """Send packets to the other side."""


Quic = TypeVar("Quic", bound=OpenQuicConnection)
HostOfRole = TypeVar("HostOfRole", bound=CarrierHost)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Carrier(Generic[Quic, HostOfRole]):
    """Carries at most one WebTransport session. Implements ``session.SessionCarrier`` in part."""

    def __init__(self, quic: Quic, host: HostOfRole, address: Address, now: float, keep_alive: float) -> None:
        """``keep_alive``: seconds of silence after which a PING asks whether the other side is there.

        Or half of the idle timeout, of which the shorter one holds for both sides, where that is less.
        """
        self.quic = quic
        self._host = host
        self._keep_alive = keep_alive
        self._address = address
        self._heard_by_aioquic = now
        self._session: WebTransportSession | None = None
        self._stream_id = 0
        self._prefix = b""
        """What begins the session's datagrams; empty until there was a session."""
        self._arrived: list[bytes] = []
        self._deadlines: dict[str, float] = {}
        """By when what has to be done that the role waits for, by name: then ``_on_deadline`` is called."""
        self._asked_at = now
        self._path: DatagramPath | None = None
        self._aioquic_is_idle = False
        self._has_ended = False
        self._slow_deadline: float | None = None
        self.work = WorkAccount(now)
        self.ordinary_cost = ORDINARY_COST
        """Seconds that a packet may cost here without being charged."""
        self.share = SHARE
        """Seconds that its packets may take of a turn."""
        self.watched_until = 0.0
        """Until when its work is charged, whether or not its packets take long."""

    @property
    def address(self) -> Address:
        """The other side's present address."""
        return self._address

    @property
    def remote(self) -> str:
        """The other side's present address as text."""
        return remote_text(self._address)

    @property
    def datagram_limit(self) -> int:
        """Bytes of one session datagram that fit one QUIC packet and the other side's limit."""
        size = BASE if self._path is None else self._path.mtu.size
        room = size - PACKET_OVERHEAD
        return min(room, self.quic.peer_datagram_limit - 3) - len(self._prefix)

    @property
    def last_heard(self) -> float:
        """Time of the other side's last authentic packet."""
        if self._path is None:
            return self._heard_by_aioquic
        return max(self._path.last_received, self._heard_by_aioquic)

    def path_state(self) -> PathState:
        """Tell how the session's packets fare."""
        if self._path is None:
            return PathState("webtransport")
        return self._path.state()

    # -- called by the host ----------------------------------------------------------------------

    def receive(self, packets: Sequence[bytes], address: Address, now: float) -> int:
        """Take a run of packets from one address, as far as the share of a turn goes; return how many."""
        # Asking for the processor time costs as much as a small frame: only whose packets took long is asked.
        is_suspect = self.work.excess > 0.0 or self.watched_until > now
        work_started = work_time() if is_suspect else 0.0
        started = perf_counter()
        taken, count = 0, len(packets)
        while True:
            path = self._path
            if path is None:
                self._receive_by_aioquic(packets[taken], address, now)
                taken += 1
            else:
                part = packets[taken : taken + SLICE] if taken or count > SLICE else packets
                taken += path.receive(part, address, now, self._arrived)
                if path.aioquic_has_news:
                    path.aioquic_has_news = False
                    self._aioquic_is_idle = False
            spent = perf_counter() - started
            ordinary = taken * self.ordinary_cost
            if taken >= count or spent > self.share or spent > ordinary + SLOW_SHARE:
                break
            if len(self._arrived) >= MOST_ARRIVED:
                break
        if is_suspect:
            self._charge(work_time() - work_started, ordinary, now)
        elif spent > ordinary:
            # Its packets, or the machine that had something else to do; the next ones show.
            self._charge(ordinary + SUSPICION, ordinary, now)
        return taken

    def _receive_by_aioquic(self, packet: bytes, address: Address, now: float) -> None:
        self._aioquic_is_idle = False
        quic = self.quic
        quic.receive_datagram(packet, address, now)
        self._pump()
        self._heard_by_aioquic = max(self._heard_by_aioquic, quic.last_received_at)
        if quic.ended is not None and not self._has_ended:
            self._has_ended = True
            self._on_end(quic.ended)

    def flush(self, now: float) -> None:
        """Send what waits: what aioquic has, then the session's datagrams and acknowledgements."""
        session, path = self._session, self._path
        if not self._aioquic_is_idle:
            started = work_time()
            if session is not None and path is None:
                path = self._path = self._open_path()
                if path is None:
                    self._queue_in_aioquic(session, now)
            self._aioquic_is_idle = path is not None
            self._slow_deadline = None
            self._send(now)
            if path is not None:
                path.refresh()
            self._charge(work_time() - started, self.ordinary_cost, now)
        if session is not None and path is not None:
            self._drop_stale(session.queue, now)
            packets = path.flush(session.queue, now)
            if packets:
                self._host.send_packets(packets, self._address)
            self._tell_lost(path)
        if session is not None:
            session.sent()

    def _queue_in_aioquic(self, session: WebTransportSession, now: float) -> None:
        """Send the session's datagrams with aioquic's own means."""
        queue = session.queue
        self._drop_stale(queue, now)
        most = self.datagram_limit
        for _ in range(min(len(queue), DATAGRAMS_IN_AIOQUIC - self.quic.datagrams_waiting)):
            datagram = queue.pop()
            if len(datagram) > most:
                self._host.counters.add("session.drop.too_big")
            else:
                self.quic.send_datagram_frame(self._prefix + datagram)

    def _drop_stale(self, queue: DatagramQueue, now: float) -> None:
        """Send no more what has waited for too long."""
        stale = queue.drop_stale(now)
        if stale:
            self._on_dropped(stale)

    def _tell_lost(self, path: DatagramPath) -> None:
        if path.lost:
            lost, path.lost = path.lost, []
            self._on_dropped(lost)

    def _open_path(self) -> DatagramPath | None:
        state = self.quic.one_rtt()
        if state is None:
            return None
        path = DatagramPath(
            state,
            self._prefix,
            self._receive_by_aioquic,
            self._host.counters,
        )
        self.quic.on_ack = path.on_ack
        return path

    def next_timer(self) -> float:
        """Return when ``handle_timer`` is due, at the latest.

        Asking aioquic is expensive, so that is done again only after aioquic had something to do; what the
        datagram path makes due is cheap to tell.
        """
        if self._slow_deadline is None:
            self._slow_deadline = min(self._timers().values())
        if self._path is None:
            return self._slow_deadline
        return min(self._path.deadline(), self._slow_deadline)

    def _timers(self) -> dict[str, float]:
        """Tell by name when what is due; nobody is asked for a sign of life while the role waits anyway."""
        timer = self.quic.get_timer()
        timers = {} if timer is None else {AIOQUIC: timer}
        return timers | (
            self._deadlines or {KEEP_ALIVE: max(self.last_heard, self._asked_at) + self._patience()}
        )

    def _patience(self) -> float:
        """Seconds of silence after which to ask: in time also where the other side gives up early."""
        return min(self._keep_alive, max(self.quic.idle_timeout / 2, LEAST_KEEP_ALIVE))

    def handle_timer(self, now: float) -> None:
        """Do what is due: losses and what the path holds back, then what has a name."""
        path = self._path
        if path is not None:
            if path.send_at <= now:
                path.send_at = NEVER  # the flush that follows sends, if the session still stands
            if path.loss_at is not None and path.loss_at <= now:
                path.detect_lost(now)
            if self._slow_deadline is not None and now < self._slow_deadline and not path.probe_is_due(now):
                return
        self._aioquic_is_idle = False
        timers = self._timers()
        if timers.get(AIOQUIC, NEVER) <= now:
            if path is not None and path.probe_is_due(now):
                path.write_off_oldest(now)
            self.quic.handle_timer(now)
            self._pump()
        if timers.get(KEEP_ALIVE, NEVER) <= now:
            self._asked_at = now
            self.quic.send_ping(0)
        for name in [name for name, due in self._deadlines.items() if due <= now]:
            del self._deadlines[name]
            self._on_deadline(name)

    def dissolve(self) -> None:
        """Let go of the parts that lead back here, once the connection has ended and nobody is in it."""
        self._path = None
        self.quic.dissolve()

    def _send(self, now: float) -> None:
        if self._path is not None:
            self._path.before_aioquic_sends()
        run: list[bytes] = []
        to: Address = self._address
        packets = self.quic.datagrams_to_send(now)
        # Connection IDs that these packets issue: a client may use one in its very next packet.
        self._pump()
        for packet, address in packets:
            if run and address != to:
                self._host.send_packets(run, to)
                run = []
            to = address
            run.append(packet)
        if run:
            self._host.send_packets(run, to)
        # Also when there was nothing to send: back on a path that it knows aioquic need not ask anything.
        self._address = self.quic.get_peer_address() or to

    def _pump(self) -> None:
        """Act on what aioquic has to say."""
        while (event := self.quic.next_event()) is not None:
            self._on_event(event)

    # -- what the role does ------------------------------------------------------------------------

    def _on_event(self, event: QuicEvent) -> None:
        """Act on an event of aioquic's."""

    def _on_end(self, end: ConnectionTerminated) -> None:
        """Take note of the connection's end as soon as a packet has shown it; aioquic's event comes later."""

    def _on_dropped(self, datagrams: list[tuple[bytes, float]]) -> None:
        """Take note of datagrams that are lost, or waited for too long, or are too large by now.

        Each comes with a time at which it had not been replaced by another try.
        """

    def _on_deadline(self, name: str) -> None:
        """Do what is to be done when a deadline of the role's has passed, which is over then."""

    def _charge(self, spent: float, ordinary: float, now: float) -> None:
        """Take note of seconds of processor time, and of how many would be ordinary."""

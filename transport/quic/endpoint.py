"""The relay's UDP port: routes packets to connections, runs their timers, sends what they have.

One turn: drain the socket, hand each connection its packets, tell the actors (one batch per session), let
the actors run until they are done, then flush every connection that has something to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from aioquic.buffer import Buffer
from aioquic.h3.connection import ErrorCode
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.packet import (
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from loguru import logger

from actors.work_time import work_time
from netstack.shares import HALF, Shares, client_network
from transport import tls_alerts
from transport.admission import NoRoom
from transport.end_of_turn import EndOfTurn
from transport.quic.aioquic_internals import (
    CONNECTION_ID_LENGTH,
    RelayQuicConnection,
    RetryTokens,
    new_connection_id,
)
from transport.quic.bbr import BBR
from transport.quic.connection import Connection
from transport.quic.draining import Draining
from transport.quic.invariants import NEGOTIATION, connection_ids_of, version_of
from transport.quic.path_mtu import LARGEST_PACKET
from transport.quic.server_configuration import server_configuration
from transport.quic.session import remote_text
from transport.quic.stateless_reset import RESET_KEY_LENGTH, StatelessResets
from transport.quic.udp import ENOUGH_BUFFER, READS_PER_TURN, ServerUdpSocket
from transport.work_shares import (
    BEHIND_SHARE_OF_SMALL,
    LONG_TURN,
    MOST_BEHIND,
    SLOW_TURN,
    USUAL_COST,
    WATCH,
    LastTurns,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated
    from aioquic.quic.packet import QuicHeader

    from netstack.counters import Counters
    from transport.admission import Admission
    from transport.certificates import Certificate, CertificateStore
    from transport.quic.siblings import Siblings
    from transport.quic.udp import Address, Run
    from transport.turns import Turns

LONG_HEADER: Final = 0x80
"""Bit of the first byte; in short-header packets our connection ID follows (RFC 9000, 17.2, 17.3.1)."""
SHORTEST_FIRST_ID: Final = 8
"""Bytes of the connection ID that a client makes up for its first packet, at least (RFC 9000, 7.2)."""
MAX_CONNECTIONS = 4096
"""Connections in every state; one costs 50 to 100 KB. Clients of one address get ``client_share`` of them."""
RETRY_HANDSHAKES = 64
"""Handshakes in progress above which a client must first show that its address is its own (Retry)."""
MAX_HANDSHAKES = 512
"""Handshakes in progress at most, half of them from one address; each costs about 3 ms of CPU and 100 KB."""
CLOSE_PAUSE = 0.25
"""Seconds between the last word to the clients and the end of their connections."""

STRANGERS_SHARE = 0.004
"""Seconds of a turn for packets of strangers. Those that the socket holds are 85 ms of work (Retry), and what
is dropped comes again, or was a flood."""
FEW_STRANGERS = 128
"""How many of them are looked at however long it takes."""

MOST_READS = 1024
"""Reads of a turn while somebody waits: what the kernel has no room for may be anybody's."""

FEW_RUNS: Final = 2
"""Runs of packets up to which a turn is for speed; above, for what a batch saves."""
FEW_PACKETS: Final = 8
"""Packets that may wait of a connection that is behind others for their work, and not for its own."""
LONGEST_BARE_ACK: Final = 64
"""Bytes of a packet that is likely to carry an acknowledgement and nothing else."""


def carries_frames(run: Run) -> bool:
    """Whether the run has more than a bare acknowledgement."""
    packets, _ = run
    return len(packets) > 1 or len(packets[0]) > LONGEST_BARE_ACK


def _place(connection: Connection) -> int:
    """Who has few packets is served first, and handshakes, which cost some milliseconds each, come last."""
    packets = len(connection.pending)
    return packets if connection.has_session else packets + MOST_BEHIND


class Endpoint:
    """Listens for WebTransport clients. Implements ``transport.quic.connection.Host``."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        certificates: CertificateStore,
        admission: Admission,
        turns: Turns,
        counters: Counters,
        client_share: int = 0,
        congestion: str = BBR,
        reset_key: bytes = b"",
        retry_key: bytes = b"",
        sockets: Sequence[socket.socket] = (),
        siblings: Siblings | None = None,
    ) -> None:
        """``client_share`` is what one client address may have of the connections, in percent; 0: all.

        ``congestion`` names the congestion control: ``bbr``, ``cubic`` or ``reno``. Clients of an earlier
        endpoint that had the same ``reset_key`` are told at once that it is gone, and those that it told to
        come with a token are let in by the same ``retry_key``; empty for random ones. ``sockets`` are bound
        already; where they share the port with others, ``siblings`` are those.
        """
        self.counters = counters
        self.admit = admission.admit
        self._bind = (host, port)
        self._opened = sockets
        self._siblings = siblings
        self._new_id = new_connection_id if siblings is None else siblings.new_connection_id
        self._is_passed_on = False
        """Whether the packets of this turn come from siblings."""
        self._certificates = certificates
        self._congestion = congestion
        self._configured: tuple[Certificate, QuicConfiguration] | None = None
        self._turns = turns
        self._connections: dict[bytes, Connection] = {}
        self._live: set[Connection] = set()
        self._draining = Draining(counters)
        self._handshakes: set[Connection] = set()
        self._clients: dict[Connection, str] = {}
        """By which address each connection is counted: that of its first packet."""
        self._handshake_shares = Shares(MAX_HANDSHAKES, client_share and HALF)
        self._shares = Shares(MAX_CONNECTIONS, client_share)
        self._flushes = EndOfTurn[Connection](turns.at_end, self._flush)
        self.want_flush = self._flushes.ask
        self._ended: list[Connection] = []
        self._measured_until = 0.0
        """Until when turns are measured in processor time, since one took long."""
        self.last_turns = LastTurns()
        """Has those whose pending packets wait until the others were served; WebSockets wait there, too."""
        self._lone = False
        """Whether the socket last brought few packets at a time."""
        self._retry = RetryTokens(retry_key)
        self._resets = StatelessResets(reset_key or secrets.token_bytes(RESET_KEY_LENGTH))
        self._closed = asyncio.Event()
        self._closing = False
        self._no_room = NoRoom("webtransport")

    async def start(self) -> None:
        """Bind and listen. Raises OSError when the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self._socket = ServerUdpSocket(*self._bind, self.counters, self._opened)
        if self._socket.receive_buffer < ENOUGH_BUFFER:
            self.last_turns.share = BEHIND_SHARE_OF_SMALL
        for descriptor in self._socket.filenos():
            self._loop.add_reader(descriptor, self._on_readable)
        if self._siblings is not None:
            self._loop.add_reader(self._siblings.fileno(), self._on_passed_on)

    @property
    def port(self) -> int:
        """The UDP port that is listened on."""
        return self._socket.port

    @property
    def connection_count(self) -> int:
        """Connections, from the first packet until the client closes or the relay has closed."""
        return len(self._live)

    def go_away(self) -> None:
        """Tell every client that no new requests are taken; what stands goes on."""
        self._tell_all(Connection.go_away)

    def close(self, code: int, reason: str) -> None:
        """Close every session with ``code`` and ``reason``, then the socket; see ``wait_closed``."""
        if self._closing:
            return
        self._closing = True
        self.go_away()
        self._tell_all(lambda connection: connection.close_session(code, reason, tell=True))
        # Browsers forget a closing capsule when the end of the connection comes right behind it.
        self._loop.call_later(CLOSE_PAUSE if self._live else 0, partial(self._release, reason))

    def _release(self, reason: str) -> None:
        self._tell_all(lambda connection: connection.close(ErrorCode.H3_NO_ERROR, reason))
        for descriptor in self._socket.filenos():
            self._loop.remove_reader(descriptor)
        for connection in list(self._live):
            self.connection_ended(connection)
        self._socket.close()
        if self._siblings is not None:
            self._loop.remove_reader(self._siblings.fileno())
            self._siblings.close()
        self._closed.set()

    def _tell_all(self, close: Callable[[Connection], None]) -> None:
        self._for_each(list(self._live), close)
        self._flushes.end()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has sent everything and released the port."""
        await self._closed.wait()

    # -- Host: what connections need --------------------------------------------------------------

    def add_connection_id(self, connection_id: bytes, connection: Connection) -> None:
        """Route packets with this connection ID to the connection."""
        connection.connection_ids.add(connection_id)
        self._connections[connection_id] = connection

    def remove_connection_id(self, connection_id: bytes) -> None:
        """Stop routing this connection ID."""
        connection = self._connections.pop(connection_id, None)
        if connection is not None:
            connection.connection_ids.discard(connection_id)

    def handshake_ended(self, connection: Connection) -> None:
        """Take note that the connection no longer counts as a handshake in progress."""
        if connection in self._handshakes:
            self._handshakes.discard(connection)
            self._handshake_shares.give_back(self._clients[connection])

    def handshake_failed(self, connection: Connection, end: ConnectionTerminated) -> None:
        """Log that client and relay did not come together."""
        self.counters.add("endpoint.handshakes_failed")
        alert = tls_alerts.alert_of_quic(end.error_code)
        if connection.quic.ended_by_peer:
            tls_alerts.log_alert(connection.remote, alert, self._certificates.current)
        else:
            tls_alerts.log_refusal(connection.remote, f"{alert} ({end.reason_phrase})")

    def connection_drains(self, connection: Connection, until: float) -> None:
        """Forget the connection, but for its IDs until then."""
        if connection in self._live:
            self._draining.add(connection.connection_ids, until, self.clock())
            self.connection_ended(connection)

    def connection_ended(self, connection: Connection) -> None:
        """Forget the connection."""
        if connection in self._live:
            self._ended.append(connection)
        for connection_id in connection.connection_ids:
            self._connections.pop(connection_id, None)
        connection.connection_ids.clear()
        self._live.discard(connection)
        self.handshake_ended(connection)
        client = self._clients.pop(connection, None)
        if client is not None:
            self._shares.give_back(client)
        self._flushes.discard(connection)
        self.last_turns.discard(connection)
        if connection.timer is not None:
            connection.timer.cancel()

    def send_packets(self, packets: Sequence[bytes], address: Address) -> None:
        """Send packets to a client."""
        self._socket.send(packets, address)

    # -- one turn ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        runs: list[Run] = []
        if self._lone:
            # Where packets come one at a time, a frame is on its way before the socket is asked for more.
            runs = self._socket.drain(1)
            if runs and carries_frames(runs[0]):
                self._turn(runs)
                runs = []
        runs += self._socket.drain(MOST_READS if self.last_turns else READS_PER_TURN)
        self._lone = len(runs) <= FEW_RUNS
        if self._lone and len({address for _, address in runs}) == len(runs):
            # Acknowledgements cost as much as frames, and nobody waits for them. One client's stay in order.
            first = [run for run in runs if carries_frames(run)]
            if first:
                self._turn(first)
            runs = [run for run in runs if not carries_frames(run)]
        if runs:
            self._turn(runs)

    def _on_passed_on(self) -> None:
        """Serve packets that came to a sibling."""
        if self._siblings is None:
            return
        runs = self._siblings.drain()
        if runs:
            self._is_passed_on = True
            try:
                self._turn(runs)
            finally:
                self._is_passed_on = False

    def _turn(self, runs: list[Run]) -> None:
        """Serve all who have sent something: those whose work is not charged together, then the others.

        Who is to wait, waits for its last turn.
        """
        started, now = perf_counter(), self.clock()
        is_measured = self._measured_until > now
        work_started = work_time() if is_measured else 0.0
        self._flushes.begin()
        together: list[Connection] = []
        apart: list[Connection] = []
        served: list[Connection] = []
        packets = 0
        try:
            for connection in self._route(runs, now):
                if connection.watched_until > now or connection.work.excess > 0.0:
                    apart.append(connection)
                else:
                    together.append(connection)
                    packets += len(connection.pending)
            if len(together) > FEW_RUNS:
                together.sort(key=_place)
            for connection in together:
                if served and perf_counter() - started > self.last_turns.share:
                    self._leave_behind(connection, now)
                else:
                    self._receive(connection, now)
                    served.append(connection)
            self._turns.turn(partial(self._deliver, served))
        finally:
            self._flushes.end(served)
        usual = min(LONG_TURN, max(SLOW_TURN, packets * USUAL_COST))
        if perf_counter() - started > usual:
            worked = work_time() - work_started if is_measured else 0.0
            self._watch(together if worked > usual else (), now)
        apart.sort(key=_place)
        for connection in apart:
            if connection.work.is_heavy(now) or perf_counter() - started > LONG_TURN:
                self._leave_behind(connection, now)
            else:
                self.serve_alone(connection)

    def _watch(self, connections: Iterable[Connection], now: float) -> None:
        """Watch who was in a turn that took long for its work.

        Perhaps the machine had something else to do: the processor time of the next turns shows, which costs
        too much to ask for in each.
        """
        self._measured_until = now + WATCH
        for connection in connections:
            connection.watched_until = now + WATCH

    def serve_alone(self, connection: Connection) -> None:
        """Give a connection a turn of its own, and charge the processor time to it."""
        pending = connection.pending
        if not pending or connection not in self._live:
            return
        now = self.clock()
        allowance = self.last_turns.allowance(now)
        connection.begin_own_turn(allowance)
        started = work_time()
        self._flushes.begin()
        try:
            taken = self._receive(connection, now)
            self._turns.turn(partial(self._deliver, [connection]))
        finally:
            self._flushes.end([connection])
        spent = work_time() - started
        if connection not in self._live:
            return
        connection.end_own_turn(spent, taken, sum(map(len, pending[:taken])), allowance, now)
        if connection.work.is_heavy(now):
            connection.watched_until = now + WATCH

    def _deliver(self, connections: list[Connection]) -> None:
        """Tell the actors what has arrived."""
        for connection in connections:
            try:
                connection.deliver()
            except Exception:  # noqa: BLE001
                self._drop_failed(connection)

    def _route(self, runs: list[Run], now: float) -> list[Connection]:
        """Let packets pend at their connections; return the connections that got any."""
        find = self._connections.get
        arrived: list[Connection] = []
        strangers, strangers_until = 0, perf_counter() + STRANGERS_SHARE
        for packets, address in runs:
            size = len(packets[0])  # the largest of the run
            if not 0 < size <= LARGEST_PACKET:
                kind = "too_large" if size else "malformed"
                self.counters.add(f"endpoint.drop.{kind}", len(packets))
                continue
            for packet in packets:
                try:
                    connection = find(packet[1:9])
                    if connection is None or packet[0] >= LONG_HEADER:
                        strangers += 1
                        if strangers <= FEW_STRANGERS or perf_counter() < strangers_until:
                            connection = self._route_other(packet, address, now)
                        else:
                            connection = self._route_known(packet)
                        if connection is None:
                            continue
                    pending = connection.pending
                    if not pending:
                        arrived.append(connection)
                        connection.pending_address = address
                    elif connection.pending_address != address:
                        if not self._moves(connection, address, now):
                            self.counters.add("endpoint.drop.moving")
                            continue
                        pending = connection.pending
                    pending.append(packet)
                except Exception:  # noqa: BLE001
                    self.counters.add("endpoint.drop.failed")
                    logger.exception("A packet that cannot be routed is dropped")
        return arrived

    def _moves(self, connection: Connection, address: Address, now: float) -> bool:
        """Have packets from another address pend in place of the last one's; return whether they may.

        A client that migrates in this very turn does so once, and what came from its old address goes first.
        That is work ahead of everybody's turn, which nobody is charged for. So those whose work is charged,
        and those who move again, are heard only from the address where they were before this turn.
        """
        is_charged = connection.watched_until > now or connection.work.excess > 0.0
        if is_charged or connection.moved_at == now:
            if address != connection.address:
                return False
        else:
            connection.moved_at = now
            self._receive(connection, now)
        self.drop_pending(connection, 0)
        connection.pending_address = address
        return True

    def _receive(self, connection: Connection, now: float) -> int:
        """Hand a connection its packets; return how many it took, the others wait."""
        packets, connection.pending = connection.pending, []
        try:
            taken = connection.receive(packets, connection.pending_address, now)
        except Exception:  # noqa: BLE001
            self._drop_failed(connection)
            return 0
        if taken < len(packets) and connection in self._live:
            connection.pending = packets[taken:]
            self._leave_behind(connection, now)
        return taken

    def _leave_behind(self, connection: Connection, now: float) -> None:
        """Have what is pending served after all others."""
        address = self._clients.get(connection, "")
        is_small = connection.has_session and len(connection.pending) <= FEW_PACKETS
        is_light = is_small and not connection.work.is_heavy(now)
        self.last_turns.add(connection, address, now, is_light=is_light)

    def drop_pending(self, connection: Connection, room: int) -> None:
        """Keep no more than the first ``room`` pending packets."""
        excess = len(connection.pending) - room
        if excess > 0:
            self.counters.add("endpoint.drop.behind", excess)
            connection.left_out += excess
            del connection.pending[room:]

    def _flush(self, connections: dict[Connection, None]) -> None:
        now = self.clock()
        for connection in connections:
            try:
                connection.flush(now)
            except Exception:  # noqa: BLE001
                self._drop_failed(connection)
        # Timers once all is on its way: nobody's frame waits for them.
        for connection in connections:
            try:
                self._arm(connection)
            except Exception:  # noqa: BLE001
                self._drop_failed(connection)
        # Only now, for what ends a connection may be one of its own methods.
        while self._ended:
            self._ended.pop().dissolve()

    def _for_each(self, connections: Iterable[Connection], step: Callable[[Connection], None]) -> None:
        """Take a step with each connection; one that fails is dropped and the others go on."""
        for connection in connections:
            try:
                step(connection)
            except Exception:  # noqa: BLE001
                self._drop_failed(connection)

    def _drop_failed(self, connection: Connection) -> None:
        """Whatever goes wrong in one connection ends that connection only. Call from an except clause."""
        self.counters.add("connection.failed")
        logger.exception("A connection failed and is dropped")
        self.connection_ended(connection)
        with contextlib.suppress(Exception):
            connection.abandon()

    # -- timers -----------------------------------------------------------------------------------

    def _arm(self, connection: Connection) -> None:
        """See to it that a timer runs no later than the connection needs.

        A timer that is set earlier stays: when it fires it finds nothing due and is set anew. So deadlines
        that move with every packet cost nothing.
        """
        if connection not in self._live:
            return
        when = connection.next_timer()
        timer = connection.timer
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        connection.timer = self._loop.call_at(when, self._on_timer, connection)

    def _on_timer(self, connection: Connection) -> None:
        connection.timer = None
        now = self.clock()
        try:
            if connection.next_timer() > now:
                self._arm(connection)  # what was due has moved on meanwhile
                return
            connection.handle_timer(now)
            connection.deliver()
        except Exception:  # noqa: BLE001
            self._drop_failed(connection)
        else:
            self.want_flush(connection)

    # -- new connections --------------------------------------------------------------------------

    def _route_other(self, packet: bytes, address: Address, now: float) -> Connection | None:
        """Find or make the connection of a packet that is no short header of a known connection."""
        if packet[0] < LONG_HEADER:
            if self._draining.has(packet[1:9], now):
                self.counters.add("endpoint.drop.draining")
            elif not self._is_of_sibling(packet, address):
                self._reset(packet, address, now)
            return None
        configuration = self._configuration()
        if version_of(packet) not in {NEGOTIATION, *configuration.supported_versions}:
            self._negotiate_version(packet, address, configuration.supported_versions)
            return None
        try:
            header = pull_quic_header(Buffer(data=packet), host_cid_length=CONNECTION_ID_LENGTH)
        except ValueError:
            self.counters.add("endpoint.drop.malformed")
            return None
        connection = self._connections.get(header.destination_cid)
        return connection or self._begin(header, packet, address, now)

    def _begin(self, header: QuicHeader, packet: bytes, address: Address, now: float) -> Connection | None:
        """Make the connection that a packet with a long header begins, which is for none that there is."""
        if self._draining.has(header.destination_cid, now):
            self.counters.add("endpoint.drop.draining")
            return None
        if (
            header.packet_type == QuicPacketType.VERSION_NEGOTIATION
            or len(packet) < SMALLEST_MAX_DATAGRAM_SIZE
        ):
            # Answering small packets would let a forged sender address turn the relay into an amplifier.
            self.counters.add("endpoint.drop.unsolicited")
            return None
        is_new = header.packet_type == QuicPacketType.INITIAL
        if self._is_of_sibling(packet, address, is_new=is_new):
            return None
        if not is_new:
            self.counters.add("endpoint.drop.unknown_connection")
            return None
        return self._accept(header, address, now)

    def _route_known(self, packet: bytes) -> Connection | None:
        """Find the connection of a packet with a long header; of strangers there were enough in this turn."""
        ids = connection_ids_of(packet) if packet[0] >= LONG_HEADER else None
        connection = None if ids is None else self._connections.get(ids.destination)
        if connection is None:
            self.counters.add("endpoint.drop.crowd")
        return connection

    def _negotiate_version(self, packet: bytes, address: Address, supported: list[int]) -> None:
        """Tell a client that speaks another version which are spoken here (RFC 9000, 6.1)."""
        ids = connection_ids_of(packet)
        if ids is None:
            self.counters.add("endpoint.drop.malformed")
        elif len(packet) < SMALLEST_MAX_DATAGRAM_SIZE or ids.destination in self._connections:
            self.counters.add("endpoint.drop.unsolicited")
        else:
            self.counters.add("endpoint.version_negotiation")
            answer = encode_quic_version_negotiation(
                source_cid=ids.destination, destination_cid=ids.source, supported_versions=supported
            )
            self._socket.send([answer], address)

    def _reset(self, packet: bytes, address: Address, now: float) -> None:
        """Tell who sent a packet with a short header that its connection is gone."""
        self.counters.add("endpoint.drop.unknown_connection")
        reset = self._resets.answer(packet, client_network(address[0]), now)
        if reset is not None:
            self.counters.add("endpoint.stateless_resets")
            self._socket.send([reset], address)

    def _is_of_sibling(self, packet: bytes, address: Address, *, is_new: bool = False) -> bool:
        """Give the packet to the worker that it is for, if that is another one."""
        if self._siblings is None or self._is_passed_on:
            return False
        return self._siblings.pass_on(packet, address, is_new=is_new)

    def _accept(self, header: QuicHeader, address: Address, now: float) -> Connection | None:
        if len(header.destination_cid) < SHORTEST_FIRST_ID:
            self.counters.add("endpoint.drop.malformed")
            return None
        client = client_network(address[0])
        if self._closing:
            self.counters.add("endpoint.drop.closing")
            return None
        if not (self._handshake_shares.may_take(client) and self._shares.may_take(client)):
            self._refuse(address, now)
            return None
        original_cid, retry_source_cid = header.destination_cid, None
        if header.token:
            try:
                original_cid = self._retry.validate_token(
                    address=address, destination_cid=header.destination_cid, token=header.token, now=now
                )
                retry_source_cid = header.destination_cid
            except ValueError:
                # A token of another kind (NEW_TOKEN of an earlier life) must not hurt (RFC 9000, 8.1.3).
                self.counters.add("endpoint.invalid_token")
        if retry_source_cid is None and len(self._handshakes) >= RETRY_HANDSHAKES:
            self._send_retry(header, address, now)
            return None
        quic = RelayQuicConnection(
            self._configuration(), original_cid, retry_source_cid, self._resets.token_of, self._new_id
        )
        connection = Connection(quic, self, address, now)
        self._live.add(connection)
        self._handshakes.add(connection)
        self._clients[connection] = client
        self._handshake_shares.add(client)
        self._shares.add(client)
        self.add_connection_id(header.destination_cid, connection)
        self.add_connection_id(quic.host_cid, connection)
        self.counters.add("endpoint.accepted")
        return connection

    def _refuse(self, address: Address, now: float) -> None:
        """Count a client that finds no room, and say whether that is its own address's doing."""
        full = self._shares.total >= MAX_CONNECTIONS or self._handshake_shares.total >= MAX_HANDSHAKES
        self.counters.add(f"endpoint.drop.too_many_{'connections' if full else 'of_one_address'}")
        reason = "too many connections" if full else "too many connections of one address"
        self._no_room.tell(remote_text(address), reason, now)

    def _send_retry(self, header: QuicHeader, address: Address, now: float) -> None:
        source_cid = self._new_id()
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        packet = encode_quic_retry(
            version=header.version or 0,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self.counters.add("endpoint.retry")
        self._socket.send([packet], address)

    def _configuration(self) -> QuicConfiguration:
        """Aioquic's configuration with the certificate of the moment."""
        certificate = self._certificates.current
        if self._configured is None or self._configured[0] is not certificate:
            self._configured = certificate, server_configuration(certificate, self._congestion)
        return self._configured[1]

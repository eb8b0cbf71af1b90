"""TCP through the NAT (RFC 5382): a connection with the guest on one side, one of the host on the other.

Theory of operation
-------------------
The guest's SYN is held while the host connects; only when that has worked is it answered. A refused port is
a RST, an unreachable host an ICMP error, a forbidden one too, and a time-out silence: what the guest would
see without a NAT.

From then on bytes move as both sides take them, and nothing is kept but what ``netstack.tcp_connection``
bounds. The guest's data go to the host socket and are acknowledged when that took them; its window is the
room of the socket. Host data are read from the socket when the guest's window, the congestion window and
the peer's line have room, and stay in the kernel else. A FIN of one side ends that direction of the other.

A RST of one side is one of the other, behind what came before it. A server that answers early and closes
resets the connection while its answer is under way: the host socket fails at writing, and is read to its end
all the same; the guest gets all of that, then the RST, and what it still sends goes nowhere. It is the same
the other way round, where the server is the guest: the host socket is closed when it has nothing unsent.

When both directions have ended the flow does too, and gives its socket back. What TIME-WAIT asks for is
kept in a table of the session's (``netstack.tcp_time_wait``). Segments that come for a flow that has ended
go back to the gateway, which starts another one for a SYN.

Liveness: whoever has something to send has a timer or is registered with whoever will wake it. That is the
connection's timer, the line (``actors.line``), or the host socket for either direction; after each step
``_is_stalled`` looks whether one of them will.

Timeouts: ``tcp_idle_timeout`` while both directions are open, ``tcp_transitory_timeout`` before and after
(RFC 5382 REQ-5). While the host connects: CONNECT_TIMEOUT, or until the guest should have repeated its SYN
and has not. An ICMP error never ends a connection (REQ-10): the host's kernel sees to that, and of what the
guest says by ICMP only "too big" is heard, about a segment that is on its way (RFC 5927 section 7).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from actors.descriptions import Describe, FlowDescription
from actors.flows.flow import ICMP_ERRORS
from actors.flows.host_drain import HostDrain
from actors.line import LineReplaced, LineWritable, SegmentsLost
from actors.messages import (
    ConnectionFailed,
    ConnectionForbidden,
    ConnectionMade,
    FlowClosed,
    FlowEstablished,
    FlowOpened,
    FlowRests,
    FramesFromGateway,
    FramesReturned,
    FramesToFlow,
    SegmentTooBig,
    SocketReadable,
    SocketWritable,
)
from actors.ports import SendResult
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from actors.upload import UploadAllowed
from netstack.ethernet import LAN_MTU
from netstack.family import endpoint_text, family_of
from netstack.tcp_connection import Ending, Offer, TcpConnection
from netstack.tcp_receiver import MAX_WINDOW
from netstack.tcp_segment import (
    ACK,
    RST,
    SYN,
    TCP_HEADER_LENGTH,
    TcpFrameTemplate,
    read_tcp,
    reset_for,
)
from netstack.tcp_states import OPENING, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from actors.flows.flow import FlowContext, Guest, Remote
    from actors.line import Line
    from actors.messages import FlowKey
    from actors.ports import TcpSocket
    from actors.runtime import Mailbox
    from netstack.buffer_budget import BufferBudget
    from netstack.tcp_segment import Segment

    Dial = Callable[[Mailbox], TcpSocket]
    """Connects a flow to what its guest wants to reach; raises OSError when there is no socket for it."""

CONNECT_TIMEOUT = 60.0
"""Seconds that the host may take to connect; guests give up after about as long."""

SYN_PATIENCE = 4.0
"""Seconds within which a guest repeats its SYN if it still waits: the first time after 1 s (RFC 6298), or 3 s
with older systems."""

SYN_MARGIN = 2.0
"""Seconds by which the next SYN may be later than twice the time between the last two."""

CHALLENGED_FOR = 3.0
"""Seconds for which a SYN is kept that was challenged: a guest that began anew answers at once with a RST,
and need not wait until it repeats the SYN."""

DISCARDING_ROOM = 64 * 1024
"""Bytes of window for a guest whose data nobody takes any more, until it is reset."""

LOW_WINDOW = MAX_WINDOW // 4
"""Bytes of the guest's window below which it is looked whether the host socket has more room."""

LITTLE_ROOM = 3 * 1460
"""Bytes of room in the host socket below which the flow waits for more. With this much, a window too small
for one segment can be moved by two, as it must be to be told (RFC 9293 section 3.8.6.2.2). Systems say that a
socket is writable when a third of its buffer is free, which is more."""

STALL_RETRY = 1.0
"""Seconds after which a flow tries again that has something to do and nobody to wake it. That is a bug, which
``tcp.stalled`` counts; the connection goes on slowly instead of hanging until it is idle for too long."""

_IP_HEADER_LENGTHS = {4: 20, 16: 40}


class Link(NamedTuple):
    """The guest's link: the line of its peer, the largest IP packet it takes at present, and its memory."""

    line: Line
    mtu: Callable[[], int]
    buffers: BufferBudget


class TcpFlowActor(EventLoopActor):
    """One connection that a guest opened."""

    def __init__(
        self,
        key: FlowKey,
        guest: Guest,
        context: FlowContext,
        remote: Remote,
        *,
        syn: bytes = b"",
        first: int | None = None,
        link: Link,
        dial: Dial,
    ) -> None:
        """``syn`` is the frame with which the guest began, if it did; ``first`` our first sequence number.

        ``dial`` connects to what the guest wants to reach: a host outside, or a service of the gateway.

        Raises OSError when the host gives no socket.
        """
        super().__init__()
        self._key = key
        self._guest = guest
        self._context = context
        self._counters = context.counters
        self._remote = remote
        self._ends = remote.ip + guest.ip + remote.port.to_bytes(2, "big") + guest.port.to_bytes(2, "big")
        """Addresses and ports as they stand in segments to the guest."""
        self._link = link
        self._path_mtu = LAN_MTU
        """Largest IP packet that passes behind the guest's link, as the guest has said."""
        self._connection: TcpConnection | None = None
        self._syn = syn
        self._first = secrets.randbits(32) if first is None else first
        self._headers = _IP_HEADER_LENGTHS[len(remote.ip)] + TCP_HEADER_LENGTH
        self._half_open = True
        self._host_ended = False
        """Whether everything that the host sends has been read."""
        self._shut_down = False
        """Whether the host was told that the guest has ended."""
        self._discards = False
        """Whether the host takes nothing any more, and what the guest sends goes nowhere."""
        self._drain: HostDrain | None = None
        """Set when the guest has reset the connection, and the host has not delivered everything."""
        self._challenged: tuple[bytes, float] | None = None
        """The SYN that was challenged last, and when."""
        self._waits_for_line = self._waits_to_read = self._waits_to_write = self._waits_for_rate = False
        """Who has been asked to wake this flow: its line, the host socket for either direction, its rate."""
        self._turn = 0
        """Bytes of the line that are kept for this flow."""
        self._held = 0
        """Bytes of the session's memory that this flow has taken."""
        self._dropped = self._refused = 0
        """Of the segments that were dropped, out of order and in order, those that have been counted."""
        self._is_short = False
        """Whether memory is so scarce that this connection may hold less than it otherwise could."""
        self._ended = False
        self._idle_timeout = CONNECT_TIMEOUT
        now = self.now()
        self._opened_at = self._syn_at = now
        self._give_up_at = now + CONNECT_TIMEOUT
        self._idle_at = self.poll_at = now + SYN_PATIENCE
        self._socket = dial(self.actor_ref)
        if context.journals and not (syn and remote.ip in context.settings.services):
            context.tell_journals(self._opened(is_forwarded=not syn))

    @property
    def port(self) -> int:
        """The port of the switch that its guest is behind."""
        return self._key.port

    def on_stop(self) -> None:
        """Give the socket back; a connection that has not ended is reset outside."""
        self._ended = True
        self._let_go()

    def on_failure(
        self,
        _exception_type: type[BaseException] | None,
        _exception_value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Reset the connection outside; segments that still come find no flow and are reset too."""
        self._end()

    @handles(Describe)
    def _describe(self, _: Describe) -> FlowDescription:
        now, guest, remote, connection = self.now(), self._guest, self._remote, self._connection
        text = family_of(guest.ip).format
        taken, acknowledged = (None, None) if connection is None else connection.progress
        return FlowDescription(
            protocol="tcp",
            port=self._key.port,
            guest=endpoint_text(text(guest.ip), guest.port),
            remote=endpoint_text(text(remote.ip), remote.port),
            state="connecting" if connection is None else connection.state.name.lower(),
            age=now - self._opened_at,
            ends_in=max(0.0, self._idle_at - now),
            bytes_out=taken,
            bytes_in=acknowledged,
        )

    def _opened(self, *, is_forwarded: bool) -> FlowOpened:
        guest, remote, family = self._guest, self._remote, family_of(self._remote.ip)
        # The guest may see a client at the gateway's address; a journal is told where it is.
        client = self._socket.far_end if is_forwarded else None
        return FlowOpened(
            self._key.port,
            guest.mac,
            "tcp",
            endpoint_text(family.format(guest.ip), guest.port),
            endpoint_text(*(client or (family.format(remote.ip), remote.port))),
            self._socket.local_port,
            "in" if is_forwarded else "out",
        )

    # -- opening --------------------------------------------------------------------------------------

    @handles(ConnectionMade)
    def _connection_made(self, _: ConnectionMade) -> None:
        if self._ended:
            return
        guest, remote, settings = self._guest, self._remote, self._context.settings
        self._socket.keep_alive(settings.tcp_keep_alive)
        macs = guest.mac + settings.gateway_mac
        template = TcpFrameTemplate(macs, remote.ip, remote.port, guest.ip, guest.port)
        now = self.now()
        offer = Offer(self._mss(), self._room, settings.tcp_buffer)
        connection = TcpConnection(template, self._first, offer, now)
        self._connection = connection
        self._link.line.follow(self._ends, self.actor_ref)
        self._begin(connection, now)
        self._idle_timeout = settings.tcp_transitory_timeout
        self._idle_at = now + CONNECT_TIMEOUT
        self._advance(connection, now)

    def _begin(self, connection: TcpConnection, now: float) -> None:
        connection.accept(read_tcp(self._syn), now)

    @handles(ConnectionFailed)
    def _connection_failed(self, message: ConnectionFailed) -> None:
        if self._ended:
            return
        result = message.result
        self._counters.add(f"tcp.failed.{result.value}")
        if result is SendResult.REFUSED:
            reply = reset_for(self._syn)
        elif result in ICMP_ERRORS:
            reply = self._context.replies.icmp_error(self._syn, ICMP_ERRORS[result])
        else:
            reply = None
        if reply is not None:
            tell_alive(self._context.switch, FramesFromGateway([reply]))
        self._end()

    @handles(ConnectionForbidden)
    def _forbidden(self, _: ConnectionForbidden) -> None:
        """End, and say so: a guest that only waits for data would not notice before its keep-alive."""
        if self._connection is None:
            self._connection_failed(ConnectionFailed(SendResult.DENIED))
        elif not self._ended:
            self._abort(self._connection)

    def _before_connection(self, frames: list[bytes]) -> None:
        """Keep the SYN, which the guest repeats while the host connects; a RST takes it back.

        The last one, where there are several: what was begun between them was taken back, too. Each of these
        would have all that is behind it looked at by the gateway and another flow.
        """
        flags = [read_tcp(frame).flags for frame in frames]
        resets = [index for index, said in enumerate(flags) if said & RST]
        if resets:
            self._counters.add("tcp.given_up")
            self._syn = b""  # a SYN behind the RST is meant anew, whatever its number
            self._end(frames[resets[-1] + 1 :])
            return
        for frame, said in zip(frames, flags, strict=True):
            if said & SYN:
                now = self.now()
                patience = max(SYN_PATIENCE, 2 * (now - self._syn_at) + SYN_MARGIN)
                self._syn, self._syn_at = frame, now
                self._idle_at = self.poll_at = min(now + patience, self._give_up_at)

    def _mss(self) -> int:
        """Bytes of data that fit the guest's link at present, so that no frame has to travel in chunks."""
        return min(self._link.mtu(), self._path_mtu) - self._headers

    # -- data -----------------------------------------------------------------------------------------

    @handles(FramesToFlow)
    def _to_net(self, message: FramesToFlow) -> None:
        frames = message.frames
        if self._ended:
            self._give_back(frames)
            return
        self._counters.add("tcp.frames_from_guest", len(frames))
        connection = self._connection
        if connection is None:
            self._before_connection(frames)
            return
        now = self.now()
        segments = list(map(read_tcp, frames))
        taken = len(segments)
        if any(segment.flags & (SYN | ACK) == SYN for segment in segments):
            taken = self._process_openings(connection, frames, segments, now)
        else:
            connection.process(segments, now)
        self._idle_at = now + self._idle_timeout
        self._advance(connection, now)
        if taken < len(frames):
            self._end(frames[taken:])

    def _process_openings(
        self, connection: TcpConnection, frames: list[bytes], segments: list[Segment], now: float
    ) -> int:
        """Process segments up to a SYN that opens another connection in this one's place; return how many."""
        for index, segment in enumerate(segments):
            if segment.flags & (SYN | ACK | RST) == SYN:
                # The host's port is needed again: what the guest sent before its FIN must have been taken.
                is_over = connection.state is State.CLOSED or not connection.received
                if is_over and connection.gives_way_to(segment):
                    self._syn = b""  # so this is none that was repeated, whatever its number
                    return index
                if not self._began_with(segment):
                    self._challenged = (frames[index], now)
            connection.process((segment,), now)
        return len(segments)

    def _began_with(self, segment: Segment) -> bool:
        """Whether this is the SYN with which the guest opened the connection."""
        if not self._syn or not segment.flags & SYN:
            return False
        return segment.sequence == read_tcp(self._syn).sequence

    def _give_back(self, frames: Sequence[bytes]) -> None:
        """Let the gateway see to segments that came after this flow's end.

        A repeated SYN, which this flow has answered already, does not begin it again.
        """
        returned = [frame for frame in frames if not self._began_with(read_tcp(frame))]
        if returned:
            tell_alive(self._context.gateway, FramesReturned(self._key.port, returned))

    @handles(SocketReadable)
    def _socket_readable(self, _: SocketReadable) -> None:
        self._waits_to_read = False
        if self._connection is not None:
            self._advance(self._connection, self.now())

    @handles(SocketWritable)
    def _socket_writable(self, _: SocketWritable) -> None:
        self._waits_to_write = False
        if self._connection is not None:
            self._advance(self._connection, self.now())

    @handles(SegmentsLost)
    def _segments_lost(self, message: SegmentsLost) -> None:
        connection = self._connection
        if connection is None or self._ended:
            return
        again = connection.lost_on_path(message.segments)
        if again:
            self._counters.add("tcp.lost_on_path", again)
            self._advance(connection, self.now())

    @handles(SegmentTooBig)
    def _segment_too_big(self, message: SegmentTooBig) -> None:
        connection, mtu = self._connection, message.mtu
        if connection is None or self._ended or mtu >= min(self._link.mtu(), self._path_mtu):
            return
        if connection.path_narrowed(message.sequence, mtu - self._headers):
            self._path_mtu = mtu
            self._counters.add("tcp.path_narrowed")
            self._advance(connection, self.now())

    @handles(UploadAllowed)
    def _upload_allowed(self, _: UploadAllowed) -> None:
        self._waits_for_rate = False
        if self._connection is not None:
            self._advance(self._connection, self.now())

    @handles(LineReplaced)
    def _line_replaced(self, _: LineReplaced) -> None:
        connection = self._connection
        if connection is not None and not self._ended:
            now = self.now()
            connection.path_replaced(now)
            self._advance(connection, now)

    @handles(LineWritable)
    def _line_writable(self, message: LineWritable) -> None:
        self._waits_for_line = False
        self._turn += message.room
        if self._connection is None or self._ended:
            self._give_turn_back()
        else:
            self._advance(self._connection, self.now())

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        connection, now = self._connection, self.now()
        if now >= self._idle_at:
            self._counters.add("tcp.idle_timeouts" if connection else "tcp.connect_timeouts")
            if connection is None:
                self._end()
            else:
                self._abort(connection)
        elif connection is None or (self._link.line.is_away and self._drain is None):
            # Time-outs say nothing of a guest whose client is away: LineReplaced tells that it is back.
            self.poll_at = self._idle_at
        else:
            self._advance(connection, now)

    def _advance(self, connection: TcpConnection, now: float) -> None:
        """Move what can be moved, send what may be sent."""
        if self._ended:
            return
        self._limit_buffers(connection)
        if self._drain is None:
            if connection.received or connection.guest_finished or connection.window_left < LOW_WINDOW:
                self._write_to_host(connection)
            if not self._host_ended:
                self._read_from_host(connection)
        self._send(connection, now)
        self._note_memory(connection)
        self._follow(connection, now)

    def _limit_buffers(self, connection: TcpConnection) -> None:
        most = self._context.settings.tcp_buffer
        limit = self._link.buffers.limit(most)
        connection.limit_buffers(limit)
        if (limit < most) != self._is_short:
            self._is_short = not self._is_short
            if self._is_short:
                self._counters.add("tcp.buffers_limited")

    def _note_memory(self, connection: TcpConnection) -> None:
        held = connection.held
        if connection.dropped > self._dropped:
            self._counters.add("tcp.drop.out_of_order", connection.dropped - self._dropped)
            self._dropped = connection.dropped
        if connection.refused > self._refused:
            self._counters.add("tcp.drop.buffers_full", connection.refused - self._refused)
            self._refused = connection.refused
        if held != self._held:
            self._link.buffers.add(held - self._held)
            self._held = held

    def _write_to_host(self, connection: TcpConnection) -> None:
        if self._shut_down:
            return
        try:
            if not self._discards:
                self._write(connection)
                return
        except OSError:
            self._counters.add("tcp.write_failures")
            self._discards = True
            if self._host_ended:
                connection.reset_after_data()
        # What the host sent before it failed is read to its end, and then the guest is reset.
        connection.host_took(sum(map(len, connection.received)), DISCARDING_ROOM)

    def _write(self, connection: TcpConnection) -> None:
        """Let the host socket take what it can. Raises OSError."""
        taken, is_full = 0, False
        socket, upload = self._socket, self._link.line.upload
        if connection.received:
            admitted = connection.received
            if upload is not None:
                admitted = upload.admit(self.actor_ref, admitted)
            taken = socket.write(admitted) if admitted else 0
            self._counters.add("tcp.bytes_to_net", taken)
            is_full = taken < sum(map(len, admitted))
            if upload is not None:
                upload.took(self.actor_ref, taken)
        connection.host_took(taken, self._room)
        if is_full or socket.room < LITTLE_ROOM:
            self._waits_to_write = True
            socket.wait_for_room()
        if upload is not None and connection.received and not self._waits_for_rate:
            self._waits_for_rate = True
            upload.wait(self.actor_ref)
        if connection.guest_finished:
            socket.shut_down()
            self._shut_down = True

    @property
    def _room(self) -> int:
        """Bytes that the guest may send at present: what the host socket takes, within the session's rate."""
        upload = self._link.line.upload
        room = self._socket.room
        return room if upload is None else min(room, upload.window(self._mss()))

    def _read_from_host(self, connection: TcpConnection) -> None:
        total = 0
        read = self._socket.read
        try:
            while (room := connection.room) > 0:
                data = read(room)
                if data:
                    connection.write(data)
                    total += len(data)
                elif data is None and (self._waits_to_read or not self._discards):
                    self._waits_to_read = True
                    break
                elif self._discards:  # nothing more comes of a connection that has failed
                    self._host_ended = True
                    connection.reset_after_data()
                else:
                    self._host_ended = True
                    connection.finish()
        except OSError:
            self._counters.add("tcp.reset_by_host")
            self._host_ended = self._discards = True
            connection.reset_after_data()
        if total:
            self._counters.add("tcp.bytes_from_net", total)

    def _send(self, connection: TcpConnection, now: float) -> None:
        line = self._link.line
        connection.limit_segments(self._mss())
        frames = connection.dispatch(now, self._turn + line.room)
        if frames:
            size = sum(map(len, frames))
            line.grant(size)
            if self._turn:
                used = min(size, self._turn)
                self._turn -= used
                line.give_back(used)
            tell_alive(self._context.switch, FramesFromGateway(frames))
        if self._turn and not connection.is_paced:
            self._give_turn_back()
        if connection.waits_for_budget and not self._waits_for_line:
            self._waits_for_line = True
            line.wait(self.actor_ref)

    def _give_turn_back(self) -> None:
        turn, self._turn = self._turn, 0
        self._link.line.give_back(turn)

    def _follow(self, connection: TcpConnection, now: float) -> None:
        """Do what the connection's state asks for, and set the timer."""
        state = connection.state
        if state is State.CLOSED:
            if not self._drains(connection, now):
                self._counters.add(f"tcp.{connection.ending.value}" if connection.ending else "tcp.closed")
                self._end(self._confirmed_syn(now))
            return
        if state is State.TIME_WAIT and self._shut_down:
            self._counters.add("tcp.finished")
            tell_alive(self._context.gateway, FlowRests(self._key, connection.time_wait()))
            self._end()
            return
        if self._half_open and state not in OPENING:
            self._half_open = False
            tell_alive(self._context.gateway, FlowEstablished(self._key))
        settings = self._context.settings
        timeout = settings.tcp_idle_timeout if connection.is_open else settings.tcp_transitory_timeout
        if timeout != self._idle_timeout:
            self._idle_timeout = timeout
            self._idle_at = now + timeout
        self.poll_at = min(connection.poll_at, self._idle_at)
        if self._is_stalled(connection):
            self._counters.add("tcp.stalled")
            self.poll_at = min(self.poll_at, now + STALL_RETRY)

    def _is_stalled(self, connection: TcpConnection) -> bool:
        """Whether something is to be done and nobody will wake this flow for it.

        What is unsent or in flight has a timer, or the line wakes the flow. Host data are read when the
        socket says that there are some, or when what was read before has been sent. What the guest sent is
        written when the socket has room.
        """
        if connection.is_sending:
            if connection.is_stalled or (connection.waits_for_budget and not self._waits_for_line):
                return True
        elif not self._host_ended and not self._waits_to_read and connection.room > 0:
            return True
        return bool(connection.received) and not (self._waits_to_write or self._waits_for_rate)

    def _drains(self, connection: TcpConnection, now: float) -> bool:
        """Whether, after the guest's RST, the host's system has yet to deliver what the guest sent before."""
        if connection.ending is not Ending.RESET or self._discards:
            return False
        if self._confirmed_syn(now):  # the next connection needs the port
            return False
        socket = self._socket
        try:
            if connection.received:
                taken = socket.write(connection.received)
                connection.host_took(taken, 0)
                self._counters.add("tcp.bytes_to_net", taken)
        except OSError:
            return False
        left = sum(map(len, connection.received)) + socket.unsent
        if self._drain is None:
            if not left:
                return False
            self._counters.add("tcp.drains")
            self._drain = HostDrain(now)
        self.poll_at = self._drain.look(left, now)
        return self.poll_at < NEVER

    def _confirmed_syn(self, now: float) -> list[bytes]:
        """Give the SYN that the guest meant, as its answer to the challenge has shown."""
        connection, challenged = self._connection, self._challenged
        if challenged is None or connection is None or connection.ending is not Ending.RESET:
            return []
        syn, when = challenged
        return [syn] if now - when <= CHALLENGED_FOR else []

    def _let_go(self) -> None:
        """Give back what this flow holds of others: turns of the line, and the socket."""
        self._link.line.leave(self.actor_ref)
        self._link.line.unfollow(self._ends)
        if self._link.line.upload is not None:
            self._link.line.upload.leave(self.actor_ref)
        self._give_turn_back()
        self._link.buffers.add(-self._held)
        self._held = 0
        connection = self._connection
        whole = connection is not None and (
            connection.ending is Ending.FINISHED or connection.state is State.TIME_WAIT
        )
        self._socket.close(abort=not whole or self._discards)

    def _abort(self, connection: TcpConnection) -> None:
        """Reset the connection on both sides."""
        connection.abort()
        self._send(connection, self.now())
        self._end()

    def _end(self, following: Sequence[bytes] = ()) -> None:
        """Tell the gateway, once; it stops this flow then, and sees to the frames that follow."""
        if not self._ended:
            self._ended = True
            self.poll_at = NEVER
            # At once, for another connection may want the host's port.
            self._let_go()
            tell_alive(self._context.gateway, FlowClosed(self._key))
        self._give_back(following)

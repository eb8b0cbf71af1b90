"""One client's session: its encapsulation, its registration, and whether it still lives.

Theory of operation
-------------------
The encapsulation is named by the URL or told by the first datagram. Frames of one batch go to the switch as
one message. A framed client registers its MAC with ``Register`` and is told its address with ``Assigned``,
until its guest has shown it (``assigned``); a raw client, or a framed one whose Register was lost, is
registered by its first frame's source MAC (``registration``).

A client whose session is lost, neither side having ended it, may come back within ``resume_grace`` seconds,
if it was told a secret: until then this actor keeps the port, with the addresses and flows on it, and the
latest frames for it (``absence``). The session that comes with the secret has a PeerActor of its own, which
takes the port (PortResumed), and the line that its flows use; this one hands over what it holds and ends
(PortTaken). It is the same where the relay has not noticed yet that the former session is gone. Where another
worker has the port (PortElsewhere), this actor passes on to it what the client sends (``detour``).

Limits: CONTROL_RATE messages per second are looked at, the rest is dropped; MAC_CHANGE_RATE registrations of
another MAC than the one that the address is for, each of which is an event; one implicit registration per
IMPLICIT_RETRY. Every end, planned or not, closes the session and tells the switch PortClosed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from actors.close_codes import CloseCode
from actors.descriptions import Describe, PeerDescription
from actors.lan.absence import AbsentSession, HeldFrames
from actors.lan.assigned import Assigned
from actors.lan.detour import Detour
from actors.lan.registration import Registration
from actors.lan.traffic import Traffic
from actors.line import Line
from actors.messages import (
    AddressAssigned,
    ClosePeer,
    DatagramsFromClient,
    DatagramsLost,
    FramesFromPeer,
    FramesToPeer,
    PeerList,
    PeerListRequest,
    PortAbsent,
    PortClosed,
    PortOpened,
    PortResumed,
    PortTaken,
    RegistrationRefused,
    RelayDrains,
    SessionClosed,
    SettingsChanged,
    SourceRefused,
)
from actors.port_policy import usual_policy
from actors.ports import SessionTerms
from actors.rate_limit import RateLimit
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from actors.token_bucket import TokenBucket
from actors.trunk_messages import NotCarried, PortElsewhere
from actors.upload import Upload
from actors.upload_limit import QUEUE_FULL, UploadLimit
from netstack import control, encapsulation
from netstack.counters import PartCounters
from netstack.encapsulation import DATA, Kind
from netstack.ethernet import format_mac
from netstack.ipv4 import format_ipv4
from netstack.link_mtu import link_mtu, packet_limit
from netstack.room_names import DEFAULT_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from loguru import Logger

    from actors.port_policy import PortPolicy
    from actors.ports import Session
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.encapsulation import Encapsulation

CONTROL_RATE = 10.0
"""Control messages per second that are looked at; a client needs one per 15 s."""

CONTROL_BURST = 20.0
"""Control messages at once: what a client says at its start, some times over."""

REFUSALS = frozenset({CloseCode.BAD_REQUEST, CloseCode.NOT_REGISTERED, CloseCode.FULL})
"""Ends for which the operator, or whoever wrote the client, can do something."""

_DATA = bytes((DATA,))
_ZERO_IP = bytes(4)


class PeerActor(EventLoopActor):
    """The relay's side of one session. ``session.id`` is its port on the switch."""

    def __init__(
        self,
        session: Session,
        switch: Mailbox,
        counters: Counters,
        settings: LanSettings,
        *,
        name: str = "",
        expires: float = NEVER,
        policy: PortPolicy | None = None,
        token: str = "",
        urls: Callable[[], Sequence[str]] = tuple,
        stays: bool = False,
    ) -> None:
        """``name`` is the guest's host name, whatever the client says; at ``expires`` the session ends.

        ``policy`` is what its token says of the port; None for what the LAN's settings do. ``token`` is the
        token's id, for the log. ``urls`` tells at which URLs the client finds its LAN. ``stays``: no other
        worker may have the session, for one has it already.
        """
        super().__init__()
        self._token = {"token_id": token} if token else {}
        self._expires = expires
        self._detour = Detour(SessionTerms(name, expires, policy, token), is_allowed=not stays)
        self._session = session
        self._port = session.id
        self._has_port = True
        """Whether the port has not gone to another session."""
        self._switch = switch
        self._counters = counters
        self._settings = settings
        now = self.now()
        self._policy = policy
        self._from_limit: UploadLimit | None = None
        self._to_limit: RateLimit | None = None
        self._line = Line(session)
        self._line.packet_limit = self._packet_limit
        self._set_rates(usual_policy(settings) if policy is None else policy)
        self._encapsulation: Encapsulation | None = None
        self._registration = Registration(name, now)
        self._assigned = Assigned(urls)
        self._ip: bytes = _ZERO_IP
        self._controls = TokenBucket(CONTROL_RATE, CONTROL_BURST, now)
        self._heard = now
        self._register_by = now + settings.registration_timeout
        self._check_every = min(settings.heartbeat_interval, settings.peer_timeout)
        self._next_check = now + self._check_every
        self._closed = False
        self._absent_until = NEVER
        """When the port of a client that is away is given up; NEVER while there is a session."""
        self._held: HeldFrames | None = None
        """Frames for a client that is away."""
        self._opened_at = now
        self._traffic = Traffic(counters)
        self._drops = PartCounters(counters)  # of this session; the LAN counts them too

    def _set_rates(self, policy: PortPolicy) -> None:
        """Hold the session to the rates of a policy; what is limited already goes on at other rates."""
        now, rates = self.now(), (policy.bits_per_second, policy.packets_per_second)
        upload = self._line.upload
        if not any(rates):
            self._tell_switch([] if self._from_limit is None else self._from_limit.give_up())
            self._send_waited([] if self._to_limit is None else self._to_limit.give_up())
            self._from_limit = self._to_limit = upload = None
        elif self._from_limit is None or self._to_limit is None:
            self._to_limit = RateLimit(*rates, now)
            self._from_limit = UploadLimit(*rates, now)
            upload = Upload(self._from_limit)
        else:
            self._to_limit.change(*rates, now)
            self._from_limit.change(*rates, now)
        self._line.change_limits(self._to_limit, upload)

    def on_start(self) -> None:
        """Take a port of the switch; refuse a session whose URL cannot be served."""
        room = self._settings.room
        where = "" if room == DEFAULT_ROOM else f" to room {room}"
        # The line of who registers says all this too, and so does that of who is refused.
        logger.debug("peer {} connected from {}{}", self._port, self._session.remote, where)
        self._open_port()
        try:
            kind = encapsulation.kind_from_path(self._session.path)
        except ValueError as error:
            self._close(CloseCode.BAD_REQUEST, str(error))
            return
        if kind is not None:
            self._speak(kind)
        self._set_timer()

    def _open_port(self) -> None:
        self._switch.tell(
            PortOpened(
                self._port,
                self.actor_ref,
                lambda: self._session.last_heard,
                self._link_mtu,
                self._line,
                lambda: self._session.remote.rpartition(":")[0],
                self._policy,
            )
        )

    def _link_mtu(self) -> int:
        return link_mtu(self._kind, self._session.datagram_limit)

    def _packet_limit(self) -> int:
        return packet_limit(self._kind, self._session.datagram_limit)

    @property
    def _kind(self) -> Kind:
        return Kind.FRAMED if self._encapsulation is None else self._encapsulation.kind

    @property
    def _is_framed(self) -> bool:
        """Whether the client is known to be so: only then does it understand control messages."""
        return self._encapsulation is not None and self._encapsulation.kind is Kind.FRAMED

    def on_stop(self) -> None:
        """Leave nothing behind: neither the session nor what the LAN keeps for it."""
        self._leave(CloseCode.DONE, "")

    def on_failure(
        self,
        _exception_type: type[BaseException] | None,
        _exception_value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """As :meth:`on_stop`, and the client is told whose fault it was."""
        self._leave(CloseCode.INTERNAL, "internal error")

    # -- data -------------------------------------------------------------------------------------

    @handles(DatagramsFromClient)
    def _from_client(self, message: DatagramsFromClient) -> None:
        if self._closed:
            self._counters.add("peer.drop.closed", len(message.datagrams))
            return
        if self._detour.from_client(message):
            return
        speaks = self._encapsulation or self._detect(message.datagrams)
        if speaks is None:
            self._drops.add("peer.drop.malformed_datagram", len(message.datagrams))
            return
        self._heard = now = self.now()
        frames, controls = speaks.unwrap(message.datagrams, now)
        # Control first: a Register in the same batch speaks for the frames behind it.
        for text in controls:
            self._from_control(text, now)
        if frames:
            if self._assigned.datagram is None:
                implied = self._registration.implied(frames, self._settings.gateway_mac, now)
                if implied is not None:
                    self._ask_for(implied, explicit=False)
                self._detour.came_behind(frames)
            elif not self._assigned.is_shown:
                self._assigned.look(frames)
            self._traffic.came(frames)
            if self._from_limit is not None:
                frames = self._from_limit.take(frames, now, self._settings.gateway_mac)
                for reason, dropped in self._from_limit.dropped.items():
                    self._drops.add(reason, dropped)
                if self._from_limit.wake_at(now) < self.poll_at:
                    self._set_timer()
            tell_alive(self._switch, FramesFromPeer(self._port, frames))

    @handles(DatagramsLost)
    def _lost(self, message: DatagramsLost) -> None:
        if self._detour.lost(message):
            return
        speaks = self._encapsulation
        if speaks is None:
            return
        start = 1 if speaks.kind is Kind.FRAMED else 0
        # Chunks and control messages are none that anybody sends again: their first byte is another.
        self._line.lost(
            [
                (datagram[start:], sent_at)
                for datagram, sent_at in message.datagrams
                if not start or datagram[:1] == _DATA
            ]
        )

    @handles(FramesToPeer)
    def _to_client(self, message: FramesToPeer) -> None:
        if self._held is not None:
            self._drop_held(self._held.hold(message.frames))
            self._line.arrived()
            return
        speaks = self._encapsulation
        if speaks is None:
            # A client that has said nothing yet; it is not known how it wants its frames.
            self._drops.add("peer.drop.encapsulation_unknown", len(message.frames))
            return
        frames = message.frames
        if self._to_limit is not None:
            limit, now = self._to_limit, self.now()
            frames = limit.take(frames, now, self._settings.gateway_mac)
            if limit.dropped:
                self._drops.add("peer.drop.rate_to_client", limit.dropped)
            if limit.queue_full:
                self._drops.add(QUEUE_FULL, limit.queue_full)
            if limit.wake_at(now) < self.poll_at:
                self._set_timer()
        self._send(speaks, frames)
        self._line.arrived()

    def _send(self, speaks: Encapsulation, frames: list[bytes]) -> None:
        self._traffic.goes(frames)
        self._session.send(speaks.wrap(frames, self._session.datagram_limit))

    def _send_waited(self, waited: list[bytes]) -> None:
        """Send the client what was held back for the rate."""
        if waited and self._encapsulation is not None:
            self._send(self._encapsulation, waited)

    def _tell_switch(self, waited: list[bytes]) -> None:
        """Pass frames on that were held back for the rate."""
        if waited:
            tell_alive(self._switch, FramesFromPeer(self._port, waited))

    def _detect(self, datagrams: list[bytes]) -> Encapsulation | None:
        for datagram in datagrams:
            kind = encapsulation.kind_of_first(datagram)
            if kind is not None:
                return self._speak(kind)
        return None

    def _speak(self, kind: Kind) -> Encapsulation:
        speaks = self._encapsulation = encapsulation.create(kind, self._drops)
        self._set_timer()
        return speaks

    # -- control messages ---------------------------------------------------------------------------

    def _from_control(self, text: bytes, now: float) -> None:
        if not self._controls.take(now):
            self._drops.add("peer.drop.control_rate", 1)
            return
        match control.parse_control(text):
            case control.Register() as register:
                self._detour.register = text
                self._register(register, now)
            case control.Heartbeat():
                self._session.send([control.HEARTBEAT_ACK, *self._assigned_again()])
            case control.PeerListRequest():
                tell_alive(self._switch, PeerListRequest(self.actor_ref))
            case control.Disconnect():
                self._close(CloseCode.DONE, "disconnected")
            case control.Refused(reason):
                logger.bind(reason="control message refused").warning(
                    "peer {} from {}: {}", self._port, self._session.remote, reason
                )
                self._send_error(reason)

    def _send_error(self, reason: str) -> None:
        if self._is_framed:
            self._session.send([control.encode_error(reason)])

    @handles(PeerList)
    def _peer_list(self, message: PeerList) -> None:
        self._session.send(control.encode_peer_list(message.peers, self._session.datagram_limit))

    def _assigned_again(self) -> list[bytes]:
        return self._assigned.again(self._link_mtu(), self._settings, self._session.datagram_limit)

    # -- registration -------------------------------------------------------------------------------

    def _register(self, said: control.Register, now: float) -> None:
        asked, assigned = self._registration, self._assigned
        if assigned.datagram is not None and asked.is_repeated_by(said):
            self._session.send([assigned.datagram])
        elif asked.may_change(said.mac, assigned.assignment, now):
            self._ask_for(said, explicit=True)
        else:
            self._drops.add("peer.drop.mac_changes", 1)
            self._send_error("this session changes its MAC too often")

    def _ask_for(self, said: control.Register, *, explicit: bool) -> None:
        stays = not self._detour.is_allowed
        tell_alive(self._switch, self._registration.ask(said, self._port, explicit=explicit, stays=stays))

    @handles(AddressAssigned)
    def _address_assigned(self, message: AddressAssigned) -> None:
        if message.mac != self._registration.mac:
            return  # it has asked for another one since
        self._detour.settle()
        if message.ip != self._ip:
            self._ip = message.ip
            address = format_ipv4(message.ip)
            self._log("joined", unthinned=True, address=address, name=self._registration.called or None).info(
                "peer {} registered {} as {}", self._port, format_mac(message.mac), address
            )
        limit = self._session.datagram_limit
        assigned = self._assigned.make(message, self._link_mtu(), self._settings, limit)
        if self._is_framed:
            self._session.send([assigned])
            self._assigned.was_sent(self.now())
        else:
            self._assigned.is_shown = True  # nothing was sent that could have got lost
        self._set_timer()

    @handles(RegistrationRefused)
    def _registration_refused(self, message: RegistrationRefused) -> None:
        self._counters.add("peer.registrations_refused")
        self._warn_of(message.mac, message.reason)
        if self._registration.is_explicit:
            self._registration.mac = None  # the client may ask again, or be registered by a frame
            self._send_error(message.reason)

    @handles(SourceRefused)
    def _source_refused(self, message: SourceRefused) -> None:
        is_new = self._warn_of(message.mac, message.reason)
        if message.mac != self._settings.gateway_mac:
            return
        if self._registration.mac is None and self._kind is Kind.RAW:
            # Its guest can never get on, and there is no other way to say so.
            self._close(CloseCode.REFUSED, message.reason)
        elif is_new:
            self._send_error(message.reason)

    def _warn_of(self, mac: bytes, reason: str) -> bool:
        """Log a refusal, unless it is the same as before; whether it is not."""
        is_new = self._registration.refuse(mac, reason)
        if is_new:
            self._log("refused", why=reason).bind(reason=f"refused: {reason}").warning(
                "peer {} from {}: MAC {} refused: {}",
                *(self._port, self._session.remote, format_mac(mac), reason),
            )
        return is_new

    # -- time ---------------------------------------------------------------------------------------

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        now = self.now()
        if now >= self._expires:
            self._close(CloseCode.EXPIRED, "the token has expired")
            return
        if self._from_limit is not None:
            self._tell_switch(self._from_limit.release(now))
        if self._held is not None:
            if now >= self._absent_until:
                self._counters.add("peer.absences_over")
                self._close(CloseCode.DONE, f"not back within {self._settings.resume_grace:g} s")
            else:
                self._set_timer()
            return
        if self._to_limit is not None:
            self._send_waited(self._to_limit.release(now))
        if self._awaits_registration() and now >= self._register_by:
            seconds = self._settings.registration_timeout
            self._close(CloseCode.NOT_REGISTERED, f"no registration within {seconds:g} s")
            return
        if now >= self._next_check:
            self._next_check = now + self._check_every
            if now - self._last_sign() >= self._settings.peer_timeout:
                self._counters.add("peer.timeouts")
                self._give_up(f"silent for {self._settings.peer_timeout:g} s", now)
                return
        due = self._assigned.take_due(now)
        if due:
            self._session.send(due)
        self._set_timer()

    def _give_up(self, reason: str, now: float) -> None:
        """End a session whose client is silent; as lost, if that leaves anything of the grace."""
        grace = self._last_sign() + self._settings.resume_grace - now
        if grace <= 0 or not self._may_come_back():
            self._close(CloseCode.SILENT, reason)
            return
        session = self._session
        self._wait_for_client(reason, grace)
        session.close(CloseCode.SILENT, reason)

    def _awaits_registration(self) -> bool:
        return self._is_framed and self._assigned.datagram is None

    def _last_sign(self) -> float:
        """When the client last showed life: framed ones send heartbeats, others have only QUIC's.

        That counts once they are registered: who never said anything must not keep a port.
        """
        if self._assigned.datagram is None or self._is_framed:
            return self._heard
        return max(self._heard, self._session.last_heard)

    def _set_timer(self) -> None:
        if self._detour.is_taken:
            self.poll_at = NEVER
            return
        release = NEVER if self._from_limit is None else self._from_limit.wake_at(self.now())
        if self._held is not None:
            self.poll_at = min(self._absent_until, self._expires, release)
            return
        register_by = self._register_by if self._awaits_registration() else NEVER
        if self._to_limit is not None:
            release = min(release, self._to_limit.wake_at(self.now()))
        self.poll_at = min(self._next_check, register_by, self._assigned.due_at, self._expires, release)

    def _log(self, event: str, **fields: object) -> Logger:
        """Give the logger for an event of this session's, with who it is about."""
        return logger.bind(
            event=event,
            room=self._settings.room,
            peer=self._port,
            mac=self._mac_text,
            remote=self._session.remote,
            carrier=self._session.path_state().carrier,
            **self._token,
            **fields,
        )

    @property
    def _mac_text(self) -> str | None:
        mac = self._registration.mac
        return None if mac is None else format_mac(mac)

    def _log_end(self, why: str) -> Logger:
        joined = self._ip != _ZERO_IP
        return self._log(
            "left",
            unthinned=joined,
            address=format_ipv4(self._ip) if joined else None,
            name=self._registration.called or None,
            why=why,
            duration=round(self.now() - self._opened_at, 3),
            bytes_in=self._traffic.bytes_in,
            bytes_out=self._traffic.bytes_out,
        )

    @property
    def port(self) -> int:
        """Number of the session's port of the switch."""
        return self._port

    # -- a port at another worker -----------------------------------------------------------------------

    @handles(PortElsewhere)
    def _port_elsewhere(self, message: PortElsewhere) -> None:
        self._has_port = False
        self._detour.take(message, self._session, self.actor_ref)
        self._set_timer()

    @handles(NotCarried)
    def _not_carried(self, _: NotCarried) -> None:
        if self._closed:
            return
        self._has_port = True
        self._register_by = self.now() + self._settings.registration_timeout
        self._open_port()
        self._from_control(self._detour.give_up(), self.now())
        self._set_timer()

    # -- for operators ------------------------------------------------------------------------------

    @handles(Describe)
    def _describe(self, _: Describe) -> PeerDescription | None:
        if self._detour.is_taken:
            return None  # the session is the other worker's
        speaks, session, now = self._encapsulation, self._session, self.now()
        path, traffic = session.path_state(), self._traffic
        traffic.bring_up_to_date(path)
        return PeerDescription(
            port=self._port,
            room=self._settings.room,
            remote=session.remote,
            carrier=path.carrier,
            encapsulation=None if speaks is None else speaks.kind.value,
            name=self._registration.called or None,
            mac=self._mac_text,
            address=None if self._ip == _ZERO_IP else format_ipv4(self._ip),
            mtu=self._link_mtu(),
            age=now - self._opened_at,
            silent=now - session.last_heard,
            frames_in=traffic.frames_in,
            bytes_in=traffic.bytes_in,
            frames_out=traffic.frames_out,
            bytes_out=traffic.bytes_out,
            queued=session.queued_bytes,
            round_trip=path.round_trip,
            packets_sent=path.packets_sent,
            packets_lost=path.packets_lost,
            drops=dict(self._drops),
        )

    # -- the end ------------------------------------------------------------------------------------

    @handles(SettingsChanged)
    def _settings_changed(self, message: SettingsChanged) -> None:
        settings = self._settings = message.settings
        usual = usual_policy(settings)
        if self._policy is not None:
            usual = self._policy = self._policy.following(usual)
        self._set_rates(usual)
        self._check_every = min(settings.heartbeat_interval, settings.peer_timeout)
        self._next_check = min(self._next_check, self.now() + self._check_every)
        self._set_timer()

    @handles(RelayDrains)
    def _relay_drains(self, message: RelayDrains) -> None:
        if self._is_framed:
            self._session.send([control.encode_draining(message.seconds)])

    @handles(ClosePeer)
    def _close_peer(self, message: ClosePeer) -> None:
        self._close(message.code, message.reason)

    @handles(SessionClosed)
    def _session_closed(self, message: SessionClosed) -> None:
        reason = message.reason or f"code {message.code}"
        if self._detour.closed(message):
            self._closed = True  # the other worker says the rest
        if message.lost and not self._closed and self._may_come_back():
            self._wait_for_client(reason, self._settings.resume_grace)
            return
        if not self._closed:
            self._closed = True
            self._log_end(reason).info("peer {} left: {}", self._port, reason)
        self.stop()

    def _may_come_back(self) -> bool:
        """Whether the client has what shows that it is the same."""
        assignment = self._assigned.assignment
        if not self._is_framed or assignment is None:
            return False
        return bool(assignment.resume) and self._settings.resume_grace > 0

    def _wait_for_client(self, reason: str, grace: float) -> None:
        logger.info("peer {} was lost ({}); its port is kept for {:g} s", self._port, reason, grace)
        self._counters.add("peer.absences")
        self._traffic.bring_up_to_date(self._session.path_state())
        self._session = AbsentSession(self._session)
        self._held = HeldFrames()
        self._assigned.stop()
        self._line.carry(self._session)
        self._absent_until = self.now() + grace
        tell_alive(self._switch, PortAbsent(self._port, self.actor_ref))
        self._set_timer()

    def _drop_held(self, frames: int) -> None:
        if frames:
            self._drops.add("peer.drop.absent", frames)

    @handles(PortResumed)
    def _port_resumed(self, message: PortResumed) -> None:
        logger.info("peer {} goes on as peer {}, which it was before", self._port, message.port)
        self._port = message.port
        line = message.line
        if line is not None:
            self._line = line
            self._to_limit = line.limit
            self._from_limit = None if line.upload is None else line.upload.limit
            line.packet_limit = self._packet_limit
            line.carry(self._session)
            self._set_timer()

    @handles(PortTaken)
    def _port_taken(self, message: PortTaken) -> None:
        held = [] if self._held is None else self._held.take()
        if held:
            tell_alive(message.successor, FramesToPeer(held))
        self._has_port = False
        self._close(CloseCode.TAKEN_OVER, "its client is back in another session")

    def _close(self, code: int, reason: str) -> None:
        """Close the session and stop, once what is in the inbox already has been handled."""
        self._leave_session(code, reason)
        self.stop()

    def _leave(self, code: int, reason: str) -> None:
        if self._line.packet_limit == self._packet_limit:
            self._line.packet_limit = None  # they would keep each other for the garbage collector
        if self._has_port:
            tell_alive(self._switch, PortClosed(self._port, self.actor_ref))
            waiting = [] if self._from_limit is None else self._from_limit.give_up()
            waiting += [] if self._to_limit is None else self._to_limit.give_up()
            if waiting:
                self._drops.add("peer.drop.closed", len(waiting))
        if self._held is not None:
            self._drop_held(len(self._held.take()))
        self._leave_session(code, reason)

    def _leave_session(self, code: int, reason: str) -> None:
        if not self._detour.is_taken:  # else its packets are counted where its port is
            self._traffic.bring_up_to_date(self._session.path_state())
        if self._closed:
            return
        self._closed = True
        if not self._detour.leave(code, reason):
            who = filter(None, (self._session.remote, self._mac_text))
            ended = self._log_end(reason or f"code {code}")
            ended.bind(reason=f"peer closed with {code}").log(
                "WARNING" if code in REFUSALS else "INFO",
                *("peer {} closed: {} ({})", self._port, reason or f"code {code}", ", ".join(who)),
            )
        self._session.close(code, reason)

"""A virtual NIC on a relay's LAN: frames in and out, the registration, heartbeats and reconnects behind it.

    async with vm_client("https://127.0.0.1:4433/", cert_hash="...") as nic:
        nic.send([frame])
        frames = await nic.recv_batch()

It speaks to any relay of this protocol. With ``reconnect`` the NIC outlives its sessions and keeps its MAC,
by which the relay gives it the same address again. Frames of guests that have QEMU's default MAC, which is
the gateway's, are rewritten to a MAC of their own: see :mod:`netstack.mac_rewriter`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
from collections import deque
from itertools import chain, repeat
from typing import TYPE_CHECKING

from guest.client import IDLE_TIMEOUT, KEEP_ALIVE, ConnectError, SessionEndedError, connect
from guest.client_connection import FALLEN_SILENT, one_line
from guest.nic_changes import (
    Assigned,
    Attached,
    Change,
    Detached,
    Draining,
    Readdressed,
    Resized,
    parse_assigned,
)
from guest.places import Places
from guest.retry_delays import RetryDelays
from guest.target import Target, Trust
from netstack import encapsulation
from netstack.counters import Counters
from netstack.encapsulation import Kind, kind_from_path
from netstack.ethernet import HEADER_LENGTH, LAN_MTU, is_station, parse_mac
from netstack.mac_rewriter import QEMU_DEFAULT, MacRewriter
from netstack.room_names import SESSION_PATH
from transport.admission import without_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from guest.client import WebTransportClient

HEARTBEAT_INTERVAL = 15.0
"""Seconds between heartbeats; relays forget a peer after 150 s of silence."""
WATCHFUL_INTERVAL = 3.0
"""The same where there is another relay to go to: this one has to answer then."""
MISSED_BEATS = 2
"""Heartbeats in a row without any sign of life after which a relay is given up."""
ANSWERED_WITHIN = 2.0
"""Seconds that the last of them is waited for: a relay that is lost is given up after 8 s at most."""
SILENT = "the relay is silent"
WATCHED_IDLE_TIMEOUT = WATCHFUL_INTERVAL + ANSWERED_WITHIN
"""Seconds that QUIC waits where there are no heartbeats, from its first PING that brings nothing on: the same
8 s in all."""
CONNECT_ELSEWHERE = 3.0
"""Seconds that a relay has to answer at first where there is another one."""
EARLY_HEARTBEATS = (1.0, 2.0, 4.0)
"""Seconds before the first ones: soon the packet size of the path is known, and the answer tells the MTU."""
REGISTER_DELAYS = (0.25, 0.5, 1.0, 2.0, 2.0, 4.0)
"""Seconds after which an unanswered Register is sent again; datagrams get lost. After the last: given up."""
STABLE = 1.0
"""Seconds that a session must have lasted for the delays to start over."""
STABLE_AGAINST_OTHERS = 60.0
"""And so long if another session took its MAC: two clients throw each other out in turns, and should do so
slowly."""
TAKEN_OVER = 4
"""The closing code that says so."""
FRAME_QUEUE = 4096
"""Frames that wait for ``recv_batch``, about 4 MB; over it the oldest are dropped and counted."""


def random_mac() -> bytes:
    """Return a MAC in the range that virtual machines use (52:54:00, locally administered)."""
    return b"\x52\x54\x00" + secrets.token_bytes(3)


def host_name() -> str:
    """Return what this machine is called, for the LAN's DNS; empty when that is nothing in particular."""
    name = socket.gethostname().partition(".")[0]
    return "" if name == "localhost" else name


class VirtualNic:
    """One NIC, made by :func:`vm_client`; for use on the event loop that made it.

    ``mac`` has 6 bytes, as the LAN knows it; ``assigned`` is the latest address or None; ``attached`` tells
    whether frames can leave at present.
    """

    def __init__(
        self,
        *,
        places: Places,
        mac: bytes,
        kind: Kind,
        trust: Trust,
        counters: Counters,
        on_change: Callable[[Change], None],
        name: str = "",
        token: str | Callable[[], str | None] | None = None,
        rewriter: MacRewriter | None = None,
        **session_options: float,
    ) -> None:
        self._places = places
        self.mac = mac
        self.kind = kind
        self.counters = counters
        self.assigned: Assigned | None = None
        self.attached = False
        self._trust = trust
        self._on_change = on_change
        self._name = name
        self._token = token
        self._resume = ""
        """What the relay told with the address; it shows that a later session is this client's too."""
        self._rewriter = rewriter
        self._session_options = session_options
        self._session: WebTransportClient | None = None
        self._mtu_at_start = LAN_MTU
        """What fits the packets that a session begins with. What the path takes beyond that is found out for
        each direction by itself, so a frame that could be sent may be too large to come."""
        self._encapsulation = encapsulation.create(kind, counters)
        self._frames: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._heard = 0.0
        """When anything came last."""
        self._learned = asyncio.Event()
        """Set when the relay has said which others there are."""
        self._refusal: str | None = None
        self._end: str | None = None

    @property
    def mtu(self) -> int:
        """Largest IP packet that gets through: what the relay says, else what the encapsulation carries."""
        if self.assigned is not None and self.assigned.mtu is not None:
            return self.assigned.mtu
        return self._mtu_at_start

    @property
    def url(self) -> str:
        """The relay that it is attached to, or that is tried next."""
        return self._places.url

    # -- frames -----------------------------------------------------------------------------------

    def send(self, frames: Sequence[bytes]) -> None:
        """Send Ethernet frames (no FCS). Never blocks or raises: what is dropped is counted."""
        if self._session is None or not self.attached:
            self.counters.add("nic.drop.detached", len(frames))
            return
        if self._rewriter is not None:
            frames = self._rewriter.to_lan(frames)
        self._session.send(self._encapsulation.wrap(frames, self._session.datagram_limit))

    async def wait_writable(self) -> None:
        """Wait until the send queue has room; at once while there is no session."""
        if self._session is not None:
            await self._session.wait_writable()

    async def recv_batch(self) -> list[bytes]:
        """Return all frames that have come, at least one. Raises SessionEndedError when the NIC is done."""
        while not self._frames:
            if self._end is not None:
                raise SessionEndedError(self._end)
            self._wake.clear()
            await self._wake.wait()
        batch = list(self._frames)
        self._frames.clear()
        return batch

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Iterate over batches until the NIC is done."""
        with contextlib.suppress(SessionEndedError):
            while True:
                yield await self.recv_batch()

    # -- life -------------------------------------------------------------------------------------

    async def attach(self) -> None:
        """Open a session and register. Raises ConnectError."""
        token = self._current_token()
        options = dict(self._session_options)
        if self._places.has_others:
            options["timeout"] = CONNECT_ELSEWHERE
            if self.kind is Kind.RAW:  # no heartbeats: QUIC's own have to do
                options["keep_alive"] = min(options["keep_alive"], WATCHFUL_INTERVAL)
                options["idle_timeout"] = min(options["idle_timeout"], WATCHED_IDLE_TIMEOUT)
        session = await connect(self.url, self._trust, token=token, counters=self.counters, **options)
        self._session = session
        if self.kind is Kind.RAW:
            self._mtu_at_start = min(LAN_MTU, session.datagram_limit - HEADER_LENGTH)
        self._encapsulation = encapsulation.create(self.kind, self.counters)
        try:
            if self.kind is Kind.FRAMED:
                await self._register(session)
            self.attached = True
            self._tell_attached(self.assigned)
        except BaseException:
            # Not a goodbye: what the relay keeps for this NIC is for the next session.
            session.abandon("not attached")
            self.attached = False
            self._session = None
            raise

    def _current_token(self) -> str:
        token = self._token
        if callable(token):
            try:
                token = token()
            except Exception as error:  # whoever hands tokens out may be away for a while, too
                raise ConnectError(f"no token: {one_line(str(error)) or type(error).__name__}") from error
        if not isinstance(token, str | None):
            raise ValueError(f"a token is text, not {type(token).__name__}")  # noqa: TRY004 - as documented
        return token or ""

    async def attach_anywhere(self) -> None:
        """Open a session with the first relay that gives one. Raises the ConnectError of the last."""
        for left in reversed(range(len(self._places))):
            try:
                await self.attach()
            except ConnectError:
                self._places.go_on()
                if not left:
                    raise
            else:
                return

    def _tell_attached(self, assigned: Assigned | None) -> None:
        self._on_change(Attached(assigned, self.mtu, self._places.shown))

    async def run(self, *, reconnect: bool, reason: str = "") -> None:
        """Serve the session, and with ``reconnect`` its successors; returns when there is none any more.

        ``reason`` is why there is no session to begin with.
        """
        loop = asyncio.get_running_loop()
        delays = RetryDelays()
        ousted = False
        try:
            while True:
                if self._session is not None:
                    session, started = self._session, loop.time()
                    reason = await self._serve(session)
                    ousted = session.close_code == TAKEN_OVER
                    if loop.time() - started >= (STABLE_AGAINST_OTHERS if ousted else STABLE):
                        delays.start_over()
                if not reconnect:
                    return
                await self._reattach(reason, delays, soon=not ousted)
        finally:
            self._finish(reason)

    async def _reattach(self, reason: str, delays: RetryDelays, *, soon: bool) -> None:
        """Try until there is a session again."""
        hopeless = 0
        while True:
            # Soon, unless all relays there are have just refused what they would refuse again.
            wait = delays.next(soon=soon and hopeless < len(self._places))
            self._on_change(Detached(reason, wait))
            await asyncio.sleep(wait)
            try:
                await self.attach()
            except (ConnectError, ValueError) as error:
                reason = str(error)
                hopeless = hopeless + 1 if getattr(error, "permanent", True) else 0
                self._places.go_on()
            else:
                return

    def close(self) -> None:
        """Say goodbye to the relay and end the session."""
        if self._session is not None:
            if self.kind is Kind.FRAMED:
                self._say(type="Disconnect")
            self._session.close(reason="the client leaves")
        self._finish("closed")

    def _finish(self, reason: str) -> None:
        self.attached = False
        self._session = None
        self._end = self._end or reason
        self._wake.set()

    # -- the session ------------------------------------------------------------------------------

    def _say(self, **fields: object) -> None:
        if self._session is not None:
            self._session.send([b"\0" + json.dumps(fields, separators=(",", ":")).encode()])

    async def _register(self, session: WebTransportClient) -> None:
        """Send Register until it is answered."""
        self._answered.clear()
        self._refusal = None
        reader = asyncio.create_task(self._read(session))
        ip = None if self.assigned is None else list(self.assigned.ip.packed)
        said = {"name": self._name, "resume": self._resume, "ip": ip}
        said = {key: value for key, value in said.items() if value}
        try:
            for delay in REGISTER_DELAYS:
                self._say(type="Register", mac=list(self.mac), **said)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._answered.wait(), delay)
                if self._answered.is_set():
                    break
        finally:
            reader.cancel()
            await asyncio.wait([reader])
        problem = self._refusal or session.end
        if problem is not None:
            raise ConnectError(f"{session.target.authority}: {problem}")
        if not self._answered.is_set():
            raise ConnectError(f"{session.target.authority}: the relay gives no address")

    async def _serve(self, session: WebTransportClient) -> str:
        """Read until the session is over; return why."""
        heartbeats = asyncio.create_task(self._beat(session))
        try:
            await self._read(session)
        except Exception:
            session.abandon("a change could not be told")
            raise
        finally:
            heartbeats.cancel()
            self.attached = False
            self._session = None
        if session.end == FALLEN_SILENT and self._places.has_others:
            self._places.go_on()
        return session.end or "closed"

    async def _beat(self, session: WebTransportClient) -> None:
        """Say that the client lives, and go elsewhere, where that can be, when the relay does not."""
        if self.kind is not Kind.FRAMED:
            return
        clock = asyncio.get_running_loop().time
        unanswered = 0
        asked = clock()
        for delay in chain(EARLY_HEARTBEATS, repeat(HEARTBEAT_INTERVAL)):
            # Woken when places are learned: a wait that began without another one is too long with one.
            while (left := asked + min(delay, self._watchfulness(unanswered)) - clock()) > 0:
                self._learned.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._learned.wait(), left)
            unanswered = 0 if self._heard >= asked else unanswered
            if unanswered >= MISSED_BEATS and self._places.has_others:
                self._places.go_on()
                session.abandon(SILENT)
                return
            self._say(type="Heartbeat")
            asked = clock()
            unanswered += 1

    def _watchfulness(self, unanswered: int) -> float:
        """Return the longest wait in seconds after a heartbeat, with so many ``unanswered`` by then."""
        if not self._places.has_others:
            return HEARTBEAT_INTERVAL
        return ANSWERED_WITHIN if unanswered >= MISSED_BEATS else WATCHFUL_INTERVAL

    async def _read(self, session: WebTransportClient) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(SessionEndedError):
            while True:
                datagrams = await session.receive()
                self._heard = loop.time()
                frames, controls = self._encapsulation.unwrap(datagrams, self._heard)
                for control in controls:
                    self._on_control(control)
                if frames:
                    self._keep(frames)
        # Whoever waits for an answer to a Register need wait no longer.
        self._answered.set()

    def _keep(self, frames: Sequence[bytes]) -> None:
        if self._rewriter is not None:
            frames = self._rewriter.to_guest(frames)
        self._frames.extend(frames)
        while len(self._frames) > FRAME_QUEUE:
            self._frames.popleft()
            self.counters.add("nic.drop.receive_queue")
        self._wake.set()

    def _on_control(self, text: bytes) -> None:
        try:
            fields = json.loads(text)
            name = fields["type"]
        except (ValueError, RecursionError, TypeError, KeyError):
            self.counters.add("nic.drop.malformed_control")
            return
        if name == "Assigned":
            resume = fields.get("resume")
            self._resume = resume if isinstance(resume, str) else ""
            self._places.learn(fields.get("urls"))
            self._learned.set()
            self._on_assigned(parse_assigned(fields))
        elif name == "Draining":
            seconds = fields.get("seconds")
            # type(), since JSON's true is an int to isinstance.
            self._on_change(Draining(float(seconds) if type(seconds) in {int, float} else None))
        elif name == "Error" and not self._answered.is_set():
            self._refusal = one_line(str(fields.get("message", ""))) or "the relay refuses the registration"
            self._answered.set()

    def _on_assigned(self, assigned: Assigned | None) -> None:
        if assigned is None:
            self.counters.add("nic.drop.malformed_control")
            return
        before, self.assigned = self.assigned, assigned
        self._answered.set()
        if not self.attached or before == assigned:
            return
        if before is not None and before._replace(mtu=assigned.mtu) == assigned:
            self._on_change(Resized(self.mtu))
        else:
            self._tell_attached(assigned)


def choose_kind(url: str, wanted: str | None) -> tuple[str, Kind]:
    """Settle the encapsulation, and the URL that tells the relay. Raises ValueError on contradictions.

    The framed one needs no telling: its first datagram does.
    """
    target = Target.parse(url)
    named = kind_from_path(target.path)
    path = SESSION_PATH.fullmatch(target.path.partition("?")[0])
    if named is None and path is not None and path[2] == "/raw":
        named = Kind.RAW
    kind = Kind(wanted) if wanted is not None else named or Kind.FRAMED
    if named is not None and named is not kind:
        raise ValueError(f"{without_secrets(url)} names the encapsulation {named.value}, not {kind.value}")
    if kind is Kind.RAW and named is None:
        mark = "&" if "?" in target.path else "?"
        url = f"https://{target.authority}{target.path}{mark}encap=raw"
    return url, kind


@contextlib.asynccontextmanager
async def vm_client(
    url: str | Sequence[str],
    *,
    mac: str | bytes | None = None,
    name: str | None = None,
    encap: str | None = None,
    token: str | Callable[[], str | None] | None = None,
    cert_hash: str | None = None,
    ca: str | Path | None = None,
    insecure: bool = False,
    reconnect: bool = False,
    patient: bool = False,
    on_change: Callable[[Change], None] = lambda _: None,
    rewriter: MacRewriter | bool = True,
    counters: Counters | None = None,
    keep_alive: float = KEEP_ALIVE,
    idle_timeout: float = IDLE_TIMEOUT,
) -> AsyncIterator[VirtualNic]:
    """Attach a NIC to the relay at ``url``; it is registered when the block begins.

    Several URLs are those of relays that share the LAN: they are tried in this order, and when one is lost,
    which shows within 8 s, the next is gone to; so are those that the relay names itself.

    ``mac`` (random when None) may be text, ``cert_hash`` is text: one hash, or several with commas between,
    any of which is good; ``encap`` is "framed" (the default) or "raw".
    ``token`` lets it in, where the relay asks for one; a function is asked before each session, since tokens
    expire. One that raises is a reason why there is no session at that moment.
    ``name`` is the guest's for the LAN's DNS: this machine's when None, none when empty. With ``reconnect`` a
    lost session is replaced; with ``patient`` so is one that the first attempt failed to open, unless further
    ones cannot end better. ``on_change`` is told every change.

    QEMU's default MAC, which is the gateway's, is registered as another one, and guests that send by it or
    its successors get others too. ``rewriter`` may be one that knows which; with False frames leave as they
    are: for those who forge them.

    Raises ValueError for arguments that are wrong, ConnectError when the relay cannot be reached or refuses.
    """
    kinds = [choose_kind(each, encap) for each in ([url] if isinstance(url, str) else url)]
    places = Places([each for each, _ in kinds])
    kind = kinds[0][1]
    if any(other is not kind for _, other in kinds):
        raise ValueError("all URLs must name the same encapsulation")
    address = random_mac() if mac is None else parse_mac(mac) if isinstance(mac, str) else mac
    if not is_station(address):
        raise ValueError(f"{address.hex(':')} is not the MAC address of a station")
    if rewriter is True:
        rewriter = MacRewriter(
            secrets.token_bytes(16), on_new=lambda guest, lan: on_change(Readdressed(guest, lan))
        )
    if rewriter and address == QEMU_DEFAULT:
        address = rewriter.lan_mac(address)
    trust = Trust.read(cert_hash, ca, insecure)
    nic = VirtualNic(
        places=places,
        mac=address,
        kind=kind,
        trust=trust,
        counters=Counters() if counters is None else counters,
        on_change=on_change,
        name=host_name() if name is None else name,
        token=token,
        rewriter=rewriter or None,
        keep_alive=keep_alive,
        idle_timeout=idle_timeout,
    )
    failure = ""
    try:
        await nic.attach_anywhere()
    except ConnectError as error:
        if error.permanent or not patient:
            raise
        failure = str(error)
    runner = asyncio.create_task(nic.run(reconnect=reconnect, reason=failure))
    try:
        yield nic
    finally:
        nic.close()
        runner.cancel()
        (problem,) = await asyncio.gather(runner, return_exceptions=True)
        if isinstance(problem, Exception):
            raise problem

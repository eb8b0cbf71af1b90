"""What operators do to a running relay, whoever asks for it: the admin API, a signal, the debug shell.

Everything that changes something is logged, with who asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.close_codes import CloseCode
from netstack.ethernet import HEADER_LENGTH
from netstack.forward import named, parse_forward
from relay.bans import Ban, BanError, Bans, address_of
from relay.lan import ForwardError
from relay.own_certificate import describe_certificate
from relay.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.admission import RelayAdmission
    from relay.draining import Draining
    from relay.forward_changes import ForwardChanges
    from relay.lan import Lan
    from relay.lans import Lans
    from transport.certificates import CertificateStore

DISCONNECTED = "disconnected by the operator"
BANNED = "banned by the operator"
DRAINS_NO_MORE = "ended the draining"
MAX_INJECTED = 256
"""Frames in one request."""
MAX_FRAME = 1522
"""Bytes: Ethernet with a tag and 1,500 bytes."""

MAX_REASON = 200
"""Characters of a reason that a client is told."""


class OperationError(Exception):
    """It cannot be done; the message is one line for whoever asked."""


class NotThereError(OperationError):
    """What was named does not exist."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asked, for the log."""

    text: str


class Operations:
    """Changes a relay while it runs. For the event loop's thread."""

    def __init__(
        self,
        lans: Lans,
        admission: RelayAdmission,
        certificates: CertificateStore,
        *,
        forwards: ForwardChanges,
        draining: Draining,
        reload: Callable[[], Awaitable[dict[str, Any]]],
        is_part: bool = False,
    ) -> None:
        """``reload`` reads again what can change, and tells what did.

        ``is_part`` says that what changes all of the relay is noted by its supervisor, once.
        """
        self.lans = lans
        self._forwards = forwards
        self._draining = draining
        self.bans: Bans = admission.bans
        self._admission = admission
        self._certificates = certificates
        self._reload = reload
        self._is_part = is_part

    # -- sessions -----------------------------------------------------------------------------------

    async def disconnect(self, port: int, reason: str, who: Who) -> None:
        """End the session with this port number. Raises NotThereError."""
        said = reason[:MAX_REASON] or DISCONNECTED
        if not await self.lans.close_session(port, CloseCode.REFUSED, said):
            raise NotThereError(f"there is no session {port}")
        note_change(who, f"disconnected peer {port}: {said}")

    async def inject(self, port: int, frames: list[bytes], who: Who, *, to_guest: bool) -> None:
        """Take frames as if a session's guest had sent them, or give them to it. Raises OperationError."""
        if len(frames) > MAX_INJECTED or not all(
            HEADER_LENGTH <= len(frame) <= MAX_FRAME for frame in frames
        ):
            raise OperationError(f"at most {MAX_INJECTED} frames of {HEADER_LENGTH} to {MAX_FRAME} bytes")
        if not await self.lans.inject(port, frames, to_guest=to_guest):
            raise NotThereError(f"there is no session {port}")
        way = "to" if to_guest else "as"
        note_change(who, f"injected {len(frames)} frames {way} peer {port}")

    async def ban(self, ban: Ban, who: Who) -> int:
        """Keep somebody out, and end the sessions that are there; return how many. Raises OperationError."""
        try:
            self.bans.add(ban)
        except BanError as error:
            raise OperationError(str(error)) from None
        self._note_of_all(who, f"banned {ban}")
        self.refresh_bans()
        ended = await self._end_banned(ban)
        await self.bans.keep()
        return ended

    def refresh_bans(self) -> None:
        """Have the switches know the MACs that are banned at present; to be called every second or so."""
        self.lans.block_macs(self.bans.macs)

    async def _end_banned(self, ban: Ban) -> int:
        reason = ban.reason or BANNED
        if ban.kind == "token":
            return self._admission.tokens.end_sessions({ban.what}, CloseCode.REFUSED, reason)
        ended = 0
        for peer in await Snapshots(self.lans).peers():
            if ban.matches(address_of(peer.remote), peer.mac):
                ended += await self.lans.close_session(peer.port, CloseCode.REFUSED, reason)
        return ended

    async def unban(self, identifier: str, who: Who) -> None:
        """Let somebody in again. Raises NotThereError."""
        if not self.bans.remove(identifier):
            raise NotThereError(f"there is no ban {identifier}")
        self.refresh_bans()
        self._note_of_all(who, f"lifted the ban {identifier}")
        await self.bans.keep()

    # -- tokens -------------------------------------------------------------------------------------

    @property
    def revoked(self) -> list[str]:
        """Ids of the tokens that operators have revoked."""
        return self._admission.tokens.revoked

    async def revoke(self, identifier: str, who: Who) -> int:
        """Revoke a token for good; return how many sessions ended with it. Raises OperationError."""
        try:
            ended = await self._admission.tokens.revoke(identifier)
        except ValueError as error:
            raise OperationError(str(error)) from None
        self._note_of_all(who, f"revoked the token {identifier}")
        return ended

    # -- forwards -----------------------------------------------------------------------------------

    async def add_forward(self, room: str, text: str, who: Who) -> str:
        """Open a port of the host to a guest of a room; return it as it is written. Raises OperationError."""
        lan = self._lan(room)
        try:
            forward = parse_forward(text)
            lan.add_forward(forward)
        except (ValueError, ForwardError) as error:
            raise OperationError(str(error)) from None
        note_change(who, f"added the forward {forward} to room {room}")
        await self._forwards.keep()
        return str(forward)

    async def remove_forward(self, room: str, text: str, who: Who) -> None:
        """Close a forward, named as it is written, or by its first three parts. Raises OperationError.

        One that was added to a room that has ended is forgotten.
        """
        lan = self.lans.find(room)
        there = self._forwards.find(room, "added") if lan is None else lan.forwards_by_text
        if lan is None and not there:
            raise NotThereError(f"there is no room {room}")
        found = named(text, there)
        if len(found) != 1:
            raise NotThereError(f"room {room} has no forward {text}" if not found else f"which of {found}?")
        if lan is None:
            self._forwards.forget(room, found[0])
        else:
            try:
                lan.remove_forward(found[0])
            except ForwardError as error:
                raise OperationError(str(error)) from None
        note_change(who, f"removed the forward {found[0]} of room {room}")
        await self._forwards.keep()

    def _lan(self, room: str) -> Lan:
        lan = self.lans.find(room)
        if lan is None:
            raise NotThereError(f"there is no room {room}")
        return lan

    # -- the relay ----------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether new sessions are refused."""
        return self._draining.is_on

    def drain(self, who: Who, seconds: float | None = None) -> None:
        """Refuse new sessions from now on; those that stand are closed after ``seconds``, if that is said."""
        self._draining.begin(seconds)
        self._note_of_all(who, drains(seconds))

    def end_draining(self, who: Who) -> None:
        """Take new sessions again."""
        if self._draining.is_on:
            self._draining.end()
            self._note_of_all(who, DRAINS_NO_MORE)

    async def reload(self, who: Who) -> dict[str, Any]:
        """Read configuration, certificate and keys again; tell what changed and what needs a restart."""
        note_change(who, "asked for a reload")
        return await self._reload()

    def certificate(self) -> dict[str, Any]:
        """Describe the certificate that new sessions get."""
        return describe_certificate(self._certificates)

    def _note_of_all(self, who: Who, what: str) -> None:
        """Note a change of all of the relay."""
        if not self._is_part:
            note_change(who, what)


def drains(seconds: float | None) -> str:
    """Say that a relay drains, and until when."""
    return "drains the relay" + ("" if seconds is None else f", and closes its sessions in {seconds:g} s")


def note_change(who: Who, what: str) -> None:
    """Log a change, with who asked."""
    logger.bind(unthinned=True, event="changed", who=who.text, what=what).info("{} {}", who.text, what)

"""Who is kept out: client addresses and networks, MACs, and tokens by their ids, for a time or for good."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from netstack.egress import of_ipv4
from netstack.ethernet import format_mac, parse_mac
from relay.revocations import TOKEN_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from relay.documents import Document

FILE = "bans.json"
HOLDS = "bans"

MAX_BANS = 1024
"""Each new session is compared with all of them."""

Kind = Literal["address", "mac", "token"]


class BanError(ValueError):
    """It cannot be banned; the message is one line."""


@dataclass(frozen=True)
class Ban:
    """Somebody who is kept out."""

    kind: Kind
    what: str
    """An address or network, a MAC, or the id of a token, in its canonical form."""
    until: float
    """Unix time in seconds; infinite for ever."""
    reason: str = ""

    @property
    def id(self) -> str:
        """What it is called when it is to be lifted."""
        return f"{self.kind}:{self.what}"

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"

    @cached_property
    def _network(self) -> IPv4Network | IPv6Network:
        """Read once: every new session is looked for in it."""
        return ipaddress.ip_network(self.what)

    def matches(self, address: IPv4Address | IPv6Address, mac: str | None, token: str | None = None) -> bool:
        """Whether it is about a session; ``address`` is its client's."""
        if self.kind == "mac":
            return mac == self.what
        if self.kind == "token":
            return token == self.what
        return address in self._network


def address_of(remote: str) -> IPv4Address | IPv6Address:
    """Take the address out of ``host:port``, as sessions and requests tell it."""
    return ipaddress.ip_address(remote.rpartition(":")[0].strip("[]"))


def parse_ban(kind: str, what: str, until: float, reason: str = "") -> Ban:
    """Read whom to keep out. Raises BanError."""
    if kind == "address":
        try:
            return Ban("address", str(of_ipv4(ipaddress.ip_network(what))), until, reason)
        except ValueError:
            raise BanError(
                f"must be an address or a network such as 192.0.2.0/24, not {what[:80]!r}"
            ) from None
    if kind == "mac":
        try:
            return Ban("mac", format_mac(parse_mac(what)), until, reason)
        except ValueError as error:
            raise BanError(str(error)) from None
    if kind == "token":
        if not TOKEN_ID.fullmatch(what):
            raise BanError("must be the id (jti) of a token, 1 to 200 visible ASCII characters")
        return Ban("token", what, until, reason)
    raise BanError(f"address, mac or token can be banned, not {kind[:80]!r}")


def _id_of(said: str) -> str:
    """Write what somebody calls a ban, with either mark and in any spelling, as its id."""
    kind, what = (*re.split("[:=]", said, maxsplit=1), "")[:2]
    try:
        return parse_ban(kind, what, math.inf).id
    except BanError:
        return said


class Bans:
    """Those that hold at present."""

    def __init__(self, clock: Callable[[], float], document: Document | None = None) -> None:
        """Read those that were kept; without a document they last as long as the process.

        ``clock`` tells unix time.
        """
        self._clock = clock
        self._document = document
        self._bans: dict[str, Ban] = {}
        if document is not None:
            entries = document.read()
            found = [ban for ban in map(_read_ban, entries[:MAX_BANS]) if ban is not None]
            self._bans = {ban.id: ban for ban in found}
            document.tell_unreadable(len(entries) - len(found))

    def __iter__(self) -> Iterator[Ban]:
        now = self._clock()
        for ban in [ban for ban in self._bans.values() if ban.until <= now]:
            del self._bans[ban.id]
        return iter(list(self._bans.values()))

    def add(self, ban: Ban) -> None:
        """Keep somebody out, until another time than before if it is known. Raises BanError."""
        if ban.id not in self._bans and len(list(self)) >= MAX_BANS:
            raise BanError(f"there are {MAX_BANS} bans already")
        self._bans[ban.id] = ban

    def remove(self, identifier: str) -> bool:
        """Lift a ban, named by its id or as it was asked for (``mac=MAC``); whether it was there."""
        return any(self._bans.pop(each, None) is not None for each in (identifier, _id_of(identifier)))

    @property
    def macs(self) -> frozenset[bytes]:
        """MACs that nobody may have at present."""
        return frozenset(parse_mac(ban.what) for ban in self if ban.kind == "mac")

    async def keep(self) -> None:
        """Write down those that hold; returns when that is done."""
        if self._document is not None:
            await self._document.keep(tuple(map(_entry, self)))

    def has_token(self, identifier: str) -> bool:
        """Tell whether the tokens of this id are banned."""
        return any(ban.kind == "token" and ban.what == identifier for ban in self)

    def find(self, remote: str, mac: str | None = None, token: str | None = None) -> Ban | None:
        """Find what keeps a session out."""
        if not self._bans:
            return None
        address = address_of(remote)
        return next((ban for ban in self if ban.matches(address, mac, token)), None)


def _entry(ban: Ban) -> dict[str, Any]:
    """Write a ban down; its end is a time by the wall clock, null for never."""
    until = None if ban.until == math.inf else ban.until
    return {"kind": ban.kind, "what": ban.what, "until": until, "reason": ban.reason}


def _read_ban(entry: Any) -> Ban | None:
    """Read what :func:`_entry` wrote; None for anything else."""
    match entry:
        case {"kind": str(kind), "what": str(what), "until": until, "reason": str(reason)}:
            if not (until is None or isinstance(until, int | float)):
                return None
            try:
                return parse_ban(kind, what, math.inf if until is None else float(until), reason)
            except (BanError, OverflowError):
                return None
    return None

"""What one client has asked to be on its LAN: by ``Register``, or by the first frame of its guest.

Times are monotonic seconds, MACs 6 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.messages import RegisterMac
from actors.token_bucket import TokenBucket
from netstack.control import Register
from netstack.ethernet import is_station

if TYPE_CHECKING:
    from actors.messages import AddressAssigned

MAC_CHANGE_RATE = 0.1
"""Registrations per second of a session that has an address, for another MAC: guests are seldom given one."""

MAC_CHANGE_BURST = 60.0
"""How many at once: a client asks again and again for a MAC that another session is about to lose."""

IMPLICIT_RETRY = 1.0
"""Seconds between attempts to register a MAC that another session holds: it may fall silent meanwhile."""


class Registration:
    """The registration of one session, whatever came of it."""

    def __init__(self, name: str, now: float) -> None:
        """``name`` is the guest's host name, whatever the client says; empty if that is for it to say."""
        self.mac: bytes | None = None
        """The MAC that was asked for last; None also once that was refused."""
        self.called = name
        """What the guest is called, or asked to be."""
        self.is_explicit = False
        """Whether the client itself asked for it."""
        self._name = name
        self._mac_changes = TokenBucket(MAC_CHANGE_RATE, MAC_CHANGE_BURST, now)
        self._next_implicit = now
        self._refused = (b"", "")
        """MAC and reason of the last refusal."""

    def may_change(self, mac: bytes, assignment: AddressAssigned | None, now: float) -> bool:
        """Whether ``mac`` may be asked for beside the one that an address was assigned to."""
        return assignment is None or mac == assignment.mac or self._mac_changes.take(now)

    def is_repeated_by(self, said: Register) -> bool:
        """Whether a Register asks for nothing else than the latest did. A name is never taken back."""
        is_called_so = said.name in ("", self.called) or self._name != ""
        return self.is_explicit and said.mac == self.mac and is_called_so

    def implied(self, frames: list[bytes], gateway_mac: bytes, now: float) -> Register | None:
        """Give the registration that was lost, or that raw clients lack: of the first usable source MAC."""
        if now < self._next_implicit or (self.mac is not None and self.is_explicit):
            return None
        sources = (frame[6:12] for frame in frames)
        mac = next((mac for mac in sources if is_station(mac) and mac != gateway_mac), None)
        if mac is None:
            return None
        self._next_implicit = now + IMPLICIT_RETRY
        return Register(mac)

    def ask(self, said: Register, port: int, *, explicit: bool, stays: bool) -> RegisterMac:
        """Note what is asked for, and put it into words for the switch."""
        self.mac, self.is_explicit = said.mac, explicit
        self.called = self._name or said.name
        return RegisterMac(
            port,
            said.mac,
            explicit,
            self.called,
            said.resume,
            name_is_fixed=bool(self._name),
            wanted=said.ip,
            stays=stays,
        )

    def refuse(self, mac: bytes, reason: str) -> bool:
        """Note a refusal; whether it is another one than before: clients try again, and guests send on."""
        is_new = (mac, reason) != self._refused
        self._refused = (mac, reason)
        return is_new

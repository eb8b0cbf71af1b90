"""What one client is told of its address, and when it is told again.

Datagrams get lost and existing clients ask only once, so ``Assigned`` is repeated after 250 ms, 1 s and 4 s
and beside each HeartbeatAck, until a frame shows that the guest has an IPv4 address. (Any frame would be too
weak a sign: kernels send IPv6 router solicitations before they have any address.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from actors.runtime import NEVER
from netstack import control
from netstack.dns_zone import LAN_DOMAIN
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.messages import AddressAssigned
    from actors.settings import LanSettings

ASSIGNED_REPEATS = (0.25, 1.0, 4.0)
"""Seconds after the first Assigned: three losses in a row at 10 % are one client in a thousand."""

_ZERO_IP = bytes(4)

_SENDER_IP = {ETHERTYPE_IPV4: slice(26, 30), ETHERTYPE_ARP: slice(28, 32)}
"""Where a frame names its sender's IPv4 address."""


class Assigned:
    """The Assigned message of one session."""

    def __init__(self, urls: Callable[[], Sequence[str]]) -> None:
        """``urls`` tells at which URLs the client finds its LAN."""
        self.assignment: AddressAssigned | None = None
        self.datagram: bytes | None = None
        """The message, once there is an address."""
        self.is_shown = False
        """Whether the guest has shown its address, or cannot have missed it."""
        self._urls = urls
        self._made_with: tuple[int, list[str]] = (0, [])
        """The link's MTU and the URLs when the message was made."""
        self._repeats: list[float] = []
        """Times at which it is sent again; empty once the guest has shown an address."""

    def make(self, assignment: AddressAssigned, mtu: int, settings: LanSettings, limit: int) -> bytes:
        """Make the message for a path of this MTU, in a datagram of up to ``limit`` bytes."""
        urls = list(self._urls())
        self.assignment, self._made_with = assignment, (mtu, urls)
        extra: dict[str, int | str] = {"mtu": assignment.mtu, "room": settings.room}
        if settings.domain != LAN_DOMAIN:
            extra["domain"] = settings.domain
        if assignment.resume:
            extra["resume"] = assignment.resume
        ip, gateway, netmask, dns = assignment.ip, assignment.gateway, assignment.netmask, assignment.dns
        self.datagram = control.encode_assigned(ip, gateway, netmask, dns, urls=urls, limit=limit, **extra)
        return self.datagram

    def again(self, mtu: int, settings: LanSettings, limit: int) -> list[bytes]:
        """Return it if it may have got lost, or is no longer true: path or machines are others."""
        if self.assignment is None:
            return []
        if self._made_with != (mtu, list(self._urls())):
            return [self.make(replace(self.assignment, mtu=mtu), mtu, settings, limit)]
        return [] if self.is_shown or self.datagram is None else [self.datagram]

    def was_sent(self, now: float) -> None:
        """Repeat it from now on, until the guest shows an address."""
        self._repeats = [now + delay for delay in ASSIGNED_REPEATS]
        self.is_shown = False

    def stop(self) -> None:
        """Repeat it no longer."""
        self._repeats = []

    @property
    def due_at(self) -> float:
        """When it is to be sent again."""
        return self._repeats[0] if self._repeats else NEVER

    def take_due(self, now: float) -> list[bytes]:
        """Give it up if it is time to send it again."""
        if now < self.due_at or self.datagram is None:
            return []
        self._repeats = [when for when in self._repeats if when > now]
        return [self.datagram]

    def look(self, frames: Sequence[bytes]) -> None:
        """Stop repeating it once the guest uses an IPv4 address."""
        for frame in frames:
            sender = _SENDER_IP.get(frame[12:14])
            if sender is not None and frame[sender] not in (_ZERO_IP, b""):
                self.is_shown = True
                self.stop()
                return

"""What a NIC tells whoever has it: its address, and each change of its session."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, NamedTuple

from netstack.dns_zone import LAN_DOMAIN, is_lan_domain
from netstack.ethernet import LAN_MTU, format_mac
from netstack.ipv4 import MIN_IPV4_MTU
from netstack.room_names import DEFAULT_ROOM, ROOM_NAME


class Assigned(NamedTuple):
    """The address that the relay gave; ``mtu`` only where the relay names one."""

    ip: IPv4Address
    gateway: IPv4Address
    netmask: IPv4Address
    dns: IPv4Address
    mtu: int | None
    room: str = DEFAULT_ROOM
    domain: str = LAN_DOMAIN
    """Where the guests' names are."""

    @property
    def interface(self) -> IPv4Interface:
        """Address and network: ``10.0.2.10/24``."""
        return IPv4Interface(f"{self.ip}/{self.netmask}")


@dataclass(frozen=True, slots=True)
class Attached:
    """The NIC is on the LAN; its kernel should use ``mtu``.

    ``assigned`` is None for the raw encapsulation, which knows no addresses.
    """

    assigned: Assigned | None
    mtu: int
    url: str = ""
    """Of the relay, without what is secret."""


@dataclass(frozen=True, slots=True)
class Detached:
    """There is no session, why, and in how many seconds the next attempt is made."""

    reason: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Readdressed:
    """A guest has a default MAC of QEMU's and another on the LAN; 6 bytes each. Told once for each guest."""

    guest_mac: bytes
    lan_mac: bytes

    def __str__(self) -> str:
        guest, lan = format_mac(self.guest_mac), format_mac(self.lan_mac)
        return f"{guest} is QEMU's default MAC, which others have too: on the LAN this guest is {lan}"


@dataclass(frozen=True, slots=True)
class Resized:
    """The path takes packets of another size than was known: the kernel should use ``mtu`` from now on."""

    mtu: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The relay takes no new sessions, and ends this one in ``seconds``; None where it does not say when."""

    seconds: float | None


Change = Attached | Detached | Draining | Readdressed | Resized


def parse_assigned(fields: dict[str, Any]) -> Assigned | None:
    """Read an Assigned message; None when it is malformed, which is as good as lost."""
    try:
        ip, gateway, netmask, dns = (
            IPv4Address(bytes(fields[name])) for name in ("ip", "gateway", "netmask", "dns")
        )
        IPv4Interface(f"{ip}/{netmask}")
    except (KeyError, TypeError, ValueError):
        return None
    mtu, room, domain = fields.get("mtu"), fields.get("room"), fields.get("domain")
    return Assigned(
        *(ip, gateway, netmask, dns),
        mtu=mtu if type(mtu) is int and MIN_IPV4_MTU <= mtu <= LAN_MTU else None,
        # What is no name is not for a terminal either, nor for a resolver's file.
        room=room if isinstance(room, str) and ROOM_NAME.fullmatch(room) else DEFAULT_ROOM,
        domain=str(domain) if is_lan_domain(domain) else LAN_DOMAIN,
    )

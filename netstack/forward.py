"""Inbound port forwards as the operator writes them: ``tcp:HOSTIP:PORT:VM:PORT``.

HOSTIP may be IPv6, in brackets as in URLs (``tcp:[::1]:PORT:VM:PORT``). The guest's side is IPv4 all the
same. A word behind a comma, ``tcp::8080:web:80,proxy``, says how the guest learns who its clients are.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from netstack.dns_zone import clean_label
from netstack.ethernet import MAC_LENGTH, parse_mac

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
"""Where a forward listens that does not say: what only this machine reaches."""

MAX_FORWARDS = 64
"""Forwards of one relay: the gateway has as many blocks of ports for their clients."""

FIRST_PORT = 49_152
"""Of the dynamic ports (RFC 6335 section 6), where none of the gateway's services is."""

CLIENTS = 256
"""UDP clients of one forward at a time; MAX_FORWARDS such blocks fit above FIRST_PORT."""

LAST_PORT = 65_535

_FORM = re.compile(
    r"(?P<protocol>tcp|udp):(?P<host>\[[^\]]*\]|[^:\[]*):(?P<port>[0-9]{1,5})"
    r":(?P<vm>.+):(?P<vm_port>[0-9]{1,5})"
)
_OPEN_BRACKET = re.compile(r"(tcp|udp):\[[^\]]*")
MAX_PORT = 65_535
_FIRST_RESERVED = 240


class Clients(StrEnum):
    """How the guest sees the clients of a forward."""

    AT_GATEWAY = ""
    """At the gateway's own address, a port for each."""
    PROXY = "proxy"
    """The same, with a PROXY protocol header that tells the client's address."""
    TRANSPARENT = "transparent"
    """At their own addresses: the guest's side is then of the client's IP version."""


_OPTIONS = tuple(filter(None, Clients))


class Forward(NamedTuple):
    """One port of this machine that leads to one of a guest."""

    protocol: str
    """``tcp`` or ``udp``."""
    host: str
    """Address of this machine to listen on, IPv4 or IPv6, without brackets."""
    port: int
    vm: bytes | str
    """The guest: its MAC (6 bytes), its address (4 bytes) or its name."""
    vm_port: int
    clients: Clients = Clients.AT_GATEWAY

    @property
    def listener(self) -> str:
        """The half that is this machine's: ``tcp:127.0.0.1:8080``, ``udp:[::1]:53``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}:{host}:{self.port}"

    def meets(self, other: Forward) -> bool:
        """Whether both want one port of this machine, at one of its addresses or all of an IP version."""
        one, two = ip_address(self.host), ip_address(other.host)
        if (self.protocol, self.port, one.version) != (other.protocol, other.port, two.version):
            return False
        return one == two or one.is_unspecified or two.is_unspecified

    def __str__(self) -> str:
        """Write it so that :func:`parse_forward` reads it as the same."""
        option = f",{self.clients}" if self.clients else ""
        return f"{self.listener}:{_vm_text(self.vm)}:{self.vm_port}{option}"


def parse_forward(text: str) -> Forward:
    """Read one forward. Raises ValueError with what is expected."""
    text, *options = map(str.strip, text.lower().split(","))
    form = _FORM.fullmatch(text)
    if form is None:
        if _OPEN_BRACKET.fullmatch(text):
            raise ValueError("must have a closing bracket behind the IPv6 address, as tcp:[::1]:PORT:VM:PORT")
        raise ValueError(
            "must be tcp:HOSTIP:PORT:VM:PORT or udp:HOSTIP:PORT:VM:PORT "
            "(HOSTIP may be empty, and is in brackets when it is IPv6, as [::1])"
        )
    host = _parse_host(form["host"])
    ports = int(form["port"]), int(form["vm_port"])
    for port in ports:
        if not 1 <= port <= MAX_PORT:
            raise ValueError(f"{port} is not a port: 1 to {MAX_PORT}")
    vm = _parse_vm(form["vm"])
    return Forward(form["protocol"], host, ports[0], vm, ports[1], _parse_options(options))


def named(text: str, known: Iterable[str]) -> list[str]:
    """Find the forwards of ``known``, as they are written, that are meant by a whole one or its first half.

    A half is ``tcp:HOSTIP:PORT``. In both the address may be left out, as in ``tcp::8080``, for 127.0.0.1.
    """
    for rest in ("", ":guest:1"):
        try:
            forward = parse_forward(f"{text}{rest}")
        except ValueError:
            continue
        meant = forward.listener if rest else str(forward)
        return [one for one in known if one == meant or one.startswith((f"{meant}:", f"{meant},"))]
    return []


def _parse_options(options: list[str]) -> Clients:
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(f"must have one of {', '.join(_OPTIONS)} behind the comma, not {option!r}")
    if len(options) > 1:
        raise ValueError(f"must have one of {', '.join(_OPTIONS)} behind the comma, not {len(options)}")
    return Clients(options[0]) if options else Clients.AT_GATEWAY


def parse_forwards(text: str) -> tuple[Forward, ...]:
    """Read forwards with commas between, options behind theirs.

    Raises ValueError for what is none, too many, or given twice.
    """
    items: list[str] = []
    for item in filter(None, map(str.strip, text.split(","))):
        if items and ":" not in item:
            items[-1] += f",{item}"
        else:
            items.append(item)
    forwards = tuple(map(parse_forward, items))
    if len(forwards) > MAX_FORWARDS:
        raise ValueError(f"must be at most {MAX_FORWARDS} forwards")
    seen: set[str] = set()
    for forward in forwards:
        if forward.listener in seen:
            raise ValueError(f"{forward.listener} is forwarded twice")
        seen.add(forward.listener)
    return forwards


def can_be_shown(client: bytes, network: str, prefix: bytes | None) -> bool:
    """Whether a guest would send its answers to ``client`` (4 or 16 bytes) to its router.

    Not those to addresses of its own link (``network``, and the first 8 bytes of IPv6 ones), its own machine
    or a group.
    """
    address = ip_address(client)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, IPv6Address):
        return prefix is not None and client[:8] != prefix and address.ipv4_mapped is None
    return address not in IPv4Network(network) and 0 < client[0] < _FIRST_RESERVED


def ends_of(guest: tuple[bytes, int], client: tuple[bytes, int]) -> bytes:
    """Write the ends of what a guest sends to a client as in ClientShown."""
    return b"".join((guest[0], guest[1].to_bytes(2, "big"), client[0], client[1].to_bytes(2, "big")))


def _parse_host(text: str) -> str:
    if text.startswith("["):
        return _parse_host6(text[1:-1])
    try:
        return str(IPv4Address(text or LOOPBACK))
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address (IPv6 ones stand in brackets, as [::1])") from None


def _parse_host6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"[{text}] is not an IPv6 address (IPv4 ones stand without brackets)") from None
    if address.scope_id is not None or address.is_link_local:
        # It means something only together with an interface, which may come, go and change its number.
        raise ValueError(f"[{text}] is link-local or has a scope: use [::] to be reached there")
    if address.ipv4_mapped is not None:
        raise ValueError(f"[{text}] is IPv4 in the guise of IPv6: write {address.ipv4_mapped}")
    return str(address)


def _parse_vm(text: str) -> bytes | str:
    for parse in (parse_mac, _packed):
        try:
            return parse(text)
        except ValueError:
            pass
    name = clean_label(text)
    if not name or name.isdigit():
        raise ValueError(f"{text!r} is not a guest's MAC, IPv4 address or name")
    return name


def _packed(address: str) -> bytes:
    return IPv4Address(address).packed


def _vm_text(vm: bytes | str) -> str:
    if isinstance(vm, str):
        return vm
    return vm.hex(":") if len(vm) == MAC_LENGTH else str(IPv4Address(vm))

"""Inbound port forwards as the operator writes them: ``tcp:HOSTIP:PORT:VM:PORT``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import NamedTuple

from netstack.dns_zone import clean_label

LOOPBACK = "127.0.0.1"
"""Where a forward listens that does not say: what only this machine reaches."""

MAX_FORWARDS = 64
"""Forwards of one relay: the gateway has as many blocks of ports for their clients."""

_FORM = re.compile(
    r"(?P<protocol>tcp|udp):(?P<host>[^:]*):(?P<port>[0-9]{1,5}):(?P<vm>.+):(?P<vm_port>[0-9]{1,5})"
)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_PORT = 65_535


class Forward(NamedTuple):
    """One port of this machine that leads to one of a guest."""

    protocol: str
    """``tcp`` or ``udp``."""
    host: str
    """Address of this machine to listen on, IPv4."""
    port: int
    vm: bytes | str
    """The guest: its MAC (6 bytes), its address (4 bytes) or its name."""
    vm_port: int

    def __str__(self) -> str:
        return f"{self.protocol}:{self.host}:{self.port}"


def parse_forward(text: str) -> Forward:
    """Read one forward. Raises ValueError with what is expected."""
    form = _FORM.fullmatch(text.strip().lower())
    if form is None:
        raise ValueError("must be tcp:HOSTIP:PORT:VM:PORT or udp:HOSTIP:PORT:VM:PORT (HOSTIP may be empty)")
    try:
        host = str(IPv4Address(form["host"] or LOOPBACK))
    except ValueError:
        raise ValueError(f"{form['host']!r} is not an IPv4 address") from None
    ports = int(form["port"]), int(form["vm_port"])
    for port in ports:
        if not 1 <= port <= _MAX_PORT:
            raise ValueError(f"{port} is not a port: 1 to {_MAX_PORT}")
    return Forward(form["protocol"], host, ports[0], _parse_vm(form["vm"]), ports[1])


def parse_forwards(text: str) -> tuple[Forward, ...]:
    """Read forwards with commas between. Raises ValueError for what is none, too many, or given twice."""
    forwards = tuple(parse_forward(item) for item in filter(None, map(str.strip, text.split(","))))
    if len(forwards) > MAX_FORWARDS:
        raise ValueError(f"must be at most {MAX_FORWARDS} forwards")
    seen: set[str] = set()
    for forward in forwards:
        if str(forward) in seen:
            raise ValueError(f"{forward} is forwarded twice")
        seen.add(str(forward))
    return forwards


def _parse_vm(text: str) -> bytes | str:
    if _MAC.fullmatch(text):
        return bytes.fromhex(text.replace(":", ""))
    try:
        return IPv4Address(text).packed
    except ValueError:
        name = clean_label(text)
    if not name or name.isdigit():
        raise ValueError(f"{text!r} is not a guest's MAC, IPv4 address or name") from None
    return name

"""Name servers of the relay's host, and how resolv.conf(5) names them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

DNS_PORT = 53

MAX_SERVERS = 8
"""Servers that are asked; the C library takes 3 of the file."""


class NameServer(NamedTuple):
    """One server: an address, with a scope if it is link-local, and its port."""

    host: str
    port: int = DNS_PORT


def parse_resolv_conf(text: str) -> tuple[NameServer, ...]:
    """Take the name servers out of a resolv.conf; lines that name none are passed over."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":  # noqa: PLR2004 - a keyword and a value
            continue
        try:
            ip_address(words[1])
        except ValueError:
            continue
        servers.append(NameServer(words[1]))
    return tuple(servers[:MAX_SERVERS])

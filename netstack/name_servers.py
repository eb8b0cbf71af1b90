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


class ResolverOptions(NamedTuple):
    """What ``options`` of a resolv.conf say; None where they say nothing."""

    use_vc: bool = False
    """Ask by TCP only."""
    rotate: bool = False
    """Begin with another server each time."""
    timeout: int | None = None
    """Seconds after which the next server is asked."""
    attempts: int | None = None
    """How often each server is asked."""


MAX_TIMEOUT = 30
MAX_ATTEMPTS = 5
"""The C library's bounds, resolv.conf(5)."""


def parse_options(text: str) -> ResolverOptions:
    """Take the options out of a resolv.conf; the last of a kind holds, unknown ones are passed over."""
    options = ResolverOptions()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] != "options":
            continue
        for word in words[1:]:
            key, _, value = word.partition(":")
            if word in ("use-vc", "usevc"):
                options = options._replace(use_vc=True)
            elif word == "rotate":
                options = options._replace(rotate=True)
            elif value.isascii() and value.isdecimal():
                number = max(1, int(value[:6]))
                if key == "timeout":
                    options = options._replace(timeout=min(number, MAX_TIMEOUT))
                elif key == "attempts":
                    options = options._replace(attempts=min(number, MAX_ATTEMPTS))
    return options


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

"""What operators call a guest, in whichever spelling: a name, an address of either IP version, a MAC."""

from __future__ import annotations

import contextlib
import ipaddress

from netstack.ethernet import format_mac, parse_mac


def as_told(said: str) -> str:
    """Write it as the relay tells it: an address and a MAC in their one form, names in lower case."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(said))
    with contextlib.suppress(ValueError):
        return format_mac(parse_mac(said))
    return said.lower()

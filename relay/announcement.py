"""What a relay tells whoever started it: where it is, how to try it, and by which limits it goes."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, Any

from loguru import logger

from netstack.room_names import DEFAULT_ROOM
from relay.certs import network_addresses
from relay.room_tables import ALL_OTHERS
from relay.setting_kinds import REQUIRED
from relay.version import path_form
from transport.binding import EVERY, EVERY_ADDRESS, is_address
from transport.host.interfaces import interface_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.settings import Settings
    from transport.certificates import Certificate

HEARTBEATS = 15.0
"""Seconds between heartbeats of our clients, and of those in the documents."""

SHOWN_ADDRESSES = 8
"""Addresses for other machines that are named at start."""


def announce(say: Callable[[str], object], bind: str, port: int, certificate: Certificate) -> None:
    """Say where the relay is, and how to try it."""
    here = reached_at(bind)
    names = trusted_names(here, certificate)
    say(f"Certificate SHA-256 Hash: {certificate.sha256}")
    say(f"Listening on https://{here}:{port}")
    url = f"https://{(names or [here])[0]}:{port}/"
    page = f"the page at {url}" if names else "a page from http://localhost, or of the relay's own"
    say(f"To try it, paste this into the console of {page}:")
    say(javascript(url, certificate))
    others = names
    if bind in EVERY and not names:
        others = [
            _in_url(address) for address in network_addresses() if bind == EVERY_ADDRESS or ":" not in address
        ]
    if others:
        urls = [f"https://{host}:{port}" for host in others[:SHOWN_ADDRESSES]]
        logger.info("other machines reach it at {}", " ".join(urls))


def describe(settings: Settings) -> None:
    """Log how the relay works, and who may come."""
    logger.info("datagram path: {}", path_form())
    logger.info("limits of each session: {}", limits(settings))
    rooms = [settings.of_room(room) for room in (DEFAULT_ROOM, ALL_OTHERS, *settings.rooms)]
    hasty = min(room.peer_timeout for room in rooms)
    if hasty <= HEARTBEATS:
        logger.warning(
            "--peer-timeout {:g}: clients say every {:g} s that they live; those of idle guests will lose "
            "their connections again and again",
            hasty,
            HEARTBEATS,
        )
    asked = {room.auth for room in rooms}
    if asked != {REQUIRED} and not is_loopback(settings.bind):
        logger.info("whoever reaches this port can join: --auth required lets in who has a token")


def limits_of(settings: Settings) -> dict[str, Any]:
    """Tell the limits as they were set, by the names of the settings."""
    names = (
        *("bit_rate", "packet_rate", "max_peers", "client_share", "max_flows", "flow_rate", "max_half_open"),
        *("max_flows_total", "max_forwarded", "max_rooms", "rooms_per_client", "room_idle_time"),
        *("tcp_buffer", "tcp_buffer_peer", "tcp_buffer_total"),
    )
    return {name.replace("_", "-"): getattr(settings, name) for name in names}


def limits(settings: Settings) -> str:
    """Name what a session may have and send, in an operator's words."""
    bits, packets = (rate or "any number of" for rate in (settings.bit_rate, settings.packet_rate))
    return (
        f"{bits} bits/s and {packets} packets/s each way, {settings.max_flows} flows, "
        f"{settings.flow_rate} new ones/s, {settings.max_half_open} half-open; {settings.max_peers} sessions"
    )


def is_loopback(bind: str) -> bool:
    """Whether a relay bound to this name or address is reached from its own machine only."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def reached_at(bind: str) -> str:
    """Host of a URL by which this machine reaches a relay that is bound to ``bind``.

    A relay of one IP version is named by address, for browsers do not try the other one: they connect by
    WebTransport to the first address of a name.
    """
    if bind not in EVERY:
        return _in_url(bind)
    return "localhost" if bind == EVERY_ADDRESS and "::1" in _own_addresses() else "127.0.0.1"


def trusted_names(here: str, certificate: Certificate) -> list[str]:
    """List the hosts for URLs by which browsers trust the relay that this machine reaches at ``here``.

    None where that will do itself: they take the certificate by its hash, or it names that host.
    """
    if certificate.can_be_pinned or here.strip("[]") in certificate.names:
        return []
    names = [name for name in certificate.names if not name.startswith("*")]
    return [_in_url(name) for name in sorted(names, key=lambda name: (is_address(name), name))]


def _own_addresses() -> frozenset[str]:
    with contextlib.suppress(OSError):
        return interface_addresses()
    return frozenset()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def javascript(url: str, certificate: Certificate) -> str:
    """One line for a browser's console that connects to ``url``.

    A certificate that browsers may take by its hash is pinned; one of an authority stands for itself.
    """
    options = ""
    if certificate.can_be_pinned:
        value = f'Uint8Array.from("{certificate.sha256}".match(/../g), (byte) => parseInt(byte, 16))'
        options = f', {{serverCertificateHashes: [{{algorithm: "sha-256", value: {value}}}]}}'
    return f'var relay = new WebTransport("{url}"{options}); await relay.ready; console.log("connected");'

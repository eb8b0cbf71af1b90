"""Control messages of the framed encapsulation: small JSON objects tagged by ``type``.

Existing clients do not parse what they get: they search the text for ``"type":"Assigned"`` and ``"ip":[``.
So the encoders write compact JSON, ``type`` first, ``ip`` the first list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netstack.ethernet import MAC_LENGTH, is_station

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_CONTROL_LENGTH = 4096
"""Bytes of JSON taken from a client; a Register needs 60, and resuming tokens stay far below."""

MAX_ERROR_LENGTH = 200
"""Characters of an Error's message: one line, and the datagram stays small whatever a client provoked."""

MAX_NAME_LENGTH = 253
"""Characters of a host name that are looked at: what DNS allows for a whole one."""

MAX_URLS = 8
"""Places that an Assigned names."""

ADDRESS_LENGTH = 4

_PREFIX = b"\x00"
_MAX_NAME_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Register:
    """The client names its NIC's MAC (6 bytes, unicast) and wants an address; ``name`` is its host name.

    ``resume`` is the secret that an earlier Assigned told for this MAC (``netstack.resume``), if any, and
    ``ip`` the address (4 bytes) that it told: for relays that know nothing of it any more.
    """

    mac: bytes
    name: str = ""
    resume: str = ""
    ip: bytes | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The client is alive; answered with HeartbeatAck."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client leaves."""


@dataclass(frozen=True, slots=True)
class PeerListRequest:
    """The client asks who is on the LAN."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be acted on; ``message`` is what an Error tells the client."""

    message: str


ControlMessage = Register | Heartbeat | Disconnect | PeerListRequest | Refused


def parse_control(text: bytes) -> ControlMessage:
    """Meaning of one control message (JSON without the prefix byte). Never raises."""
    if len(text) > MAX_CONTROL_LENGTH:
        return Refused(f"control message of {len(text)} bytes, at most {MAX_CONTROL_LENGTH} are taken")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return Refused("control message is not JSON")
    if not isinstance(fields, dict):
        return Refused("control message is not a JSON object")
    name = fields.get("type")
    if not isinstance(name, str):
        return Refused("control message has no type")
    parse = _PARSERS.get(name)
    if parse is None:
        return Refused(f"unknown message type {name[:_MAX_NAME_SHOWN]!r}")
    return parse(fields)


def _parse_register(fields: dict[str, Any]) -> ControlMessage:
    numbers = fields.get("mac")
    if not isinstance(numbers, list) or len(numbers) != MAC_LENGTH:
        return Refused("mac must be a list of 6 numbers")
    # type(), since JSON's true is an int to isinstance.
    if not all(type(number) is int and 0 <= number <= 0xFF for number in numbers):  # noqa: PLR2004
        return Refused("mac must be a list of 6 numbers from 0 to 255")
    mac = bytes(numbers)
    if not is_station(mac):
        return Refused("mac must be a unicast address and not zero")
    name = fields.get("name") or fields.get("hostname")
    resume = fields.get("resume")
    return Register(
        mac,
        encodable(name[:MAX_NAME_LENGTH]) if isinstance(name, str) else "",
        resume if isinstance(resume, str) else "",
        _parse_address(fields.get("ip")),
    )


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON may name (RFC 8259, section 8.2) and UTF-8 has no bytes for."""
    return text.encode(errors="replace").decode()


def _parse_address(numbers: object) -> bytes | None:
    """Read an address as Assigned has it; None for what is none: the client does without then."""
    if not isinstance(numbers, list) or len(numbers) != ADDRESS_LENGTH:
        return None
    # type(), since JSON's true is an int to isinstance.
    return bytes(numbers) if all(type(it) is int and 0 <= it <= 0xFF for it in numbers) else None  # noqa: PLR2004


_PARSERS: dict[str, Callable[[dict[str, Any]], ControlMessage]] = {
    "Register": _parse_register,
    "Heartbeat": lambda _: Heartbeat(),
    "Disconnect": lambda _: Disconnect(),
    "PeerList": lambda _: PeerListRequest(),
}


def _encode(**fields: object) -> bytes:
    return _PREFIX + json.dumps(fields, separators=(",", ":")).encode()


HEARTBEAT_ACK = _encode(type="HeartbeatAck")
"""Datagram that answers a Heartbeat."""


def encode_assigned(
    ip: bytes,
    gateway: bytes,
    netmask: bytes,
    dns: bytes,
    *,
    urls: Sequence[str] = (),
    limit: int = MAX_CONTROL_LENGTH,
    **extra: int | str,
) -> bytes:
    """Datagram that tells a client its address; each address is 4 bytes. ``extra`` fields come last.

    Of ``urls``, where the client finds its LAN, as many are told as ``limit`` bytes have room for.
    """
    told = list(urls[:MAX_URLS])
    while True:
        more = {**extra, "urls": told} if told else extra
        datagram = _encode_assigned(ip, gateway, netmask, dns, more)
        if len(datagram) <= limit or not told:
            return datagram
        told.pop()


def _encode_assigned(
    ip: bytes, gateway: bytes, netmask: bytes, dns: bytes, extra: Mapping[str, object]
) -> bytes:
    return _encode(
        type="Assigned", ip=list(ip), gateway=list(gateway), netmask=list(netmask), dns=list(dns), **extra
    )


def encode_draining(seconds: float | None) -> bytes:
    """Datagram that says that the relay takes no new sessions, and ends this one in ``seconds``, if any."""
    return _encode(type="Draining", seconds=None if seconds is None else round(seconds, 3))


def encode_error(message: str) -> bytes:
    """Datagram that says what is wrong, cut to :data:`MAX_ERROR_LENGTH` characters."""
    return _encode(type="Error", message=message[:MAX_ERROR_LENGTH])


def encode_peer_list(peers: Iterable[tuple[bytes, bytes]], limit: int) -> list[bytes]:
    """Datagrams of at most ``limit`` bytes with (ip, mac) of every peer; at least one, also for no peers.

    ``limit`` must have room for one peer (90 bytes); every datagram is a whole PeerList message.
    """
    empty = _encode(type="PeerList", peers=[])
    datagrams: list[bytes] = []
    entries: list[bytes] = []
    length = len(empty)
    for ip, mac in peers:
        entry = json.dumps({"ip": list(ip), "mac": list(mac)}, separators=(",", ":")).encode()
        if entries and length + len(entry) + 1 > limit:
            datagrams.append(_join_peers(empty, entries))
            entries, length = [], len(empty)
        entries.append(entry)
        length += len(entry) + 1
    if entries or not datagrams:
        datagrams.append(_join_peers(empty, entries))
    return datagrams


def _join_peers(empty: bytes, entries: list[bytes]) -> bytes:
    return empty[:-2] + b",".join(entries) + empty[-2:]

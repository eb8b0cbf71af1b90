"""Stateless DHCPv6 (RFC 8415 section 18.3.6): the answer to INFORMATION-REQUEST; addresses are SLAAC's."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLIENT_PORT = 546
SERVER_PORT = 547
INFORMATION_REQUEST = 11
REPLY = 7

MAX_OPTIONS = 64
MAX_CLIENT_ID = 130
"""A DUID's largest size (RFC 8415 section 11.1), with its type."""

_CLIENT_ID, _SERVER_ID, _DNS_SERVERS, _DOMAIN_LIST, _REFRESH_TIME = 1, 2, 23, 24, 32
_IDENTITY_ASSOCIATIONS = frozenset({3, 4, 25})
"""IA_NA, IA_TA and IA_PD: who sends these wants addresses (RFC 8415 section 16.12)."""
_REFRESH_AFTER = 3600
_OPTION = Struct("!HH")
_DUID_LINK_LAYER_ETHERNET = b"\0\3\0\1"


class InformationRequest(NamedTuple):
    """A client's request; ``client_id`` and ``server_id`` (the only one to answer) may be empty."""

    transaction: bytes
    client_id: bytes
    server_id: bytes


def parse_information_request(payload: bytes) -> InformationRequest | None:
    """Read a UDP payload; None for another message of DHCPv6.

    Raises MalformedPacket, also for a request that asks for addresses (RFC 8415 section 16.12).
    """
    if len(payload) < 4:  # noqa: PLR2004 - type and transaction
        raise MalformedPacket("bad_dhcpv6")
    if payload[0] != INFORMATION_REQUEST:
        return None
    options: dict[int, bytes] = {}
    at, left = 4, MAX_OPTIONS
    while at < len(payload):
        left -= 1
        if len(payload) < at + 4 or left < 0:
            raise MalformedPacket("bad_dhcpv6")
        kind, length = _OPTION.unpack_from(payload, at)
        at += 4
        if at + length > len(payload):
            raise MalformedPacket("bad_dhcpv6")
        options.setdefault(kind, payload[at : at + length])
        at += length
    client_id = options.get(_CLIENT_ID, b"")
    if len(client_id) > MAX_CLIENT_ID or not _IDENTITY_ASSOCIATIONS.isdisjoint(options):
        raise MalformedPacket("bad_dhcpv6")
    return InformationRequest(payload[1:4], client_id, options.get(_SERVER_ID, b""))


def identifier_spans(message: bytes) -> Iterator[tuple[int, int]]:
    """Find where the client's and the server's DUID stand in a UDP payload: from, to."""
    at = 4
    while at + 4 <= len(message):
        kind, length = _OPTION.unpack_from(message, at)
        at += 4
        if at + length > len(message):
            return
        if kind in (_CLIENT_ID, _SERVER_ID):
            yield at, at + length
        at += length


class Dhcpv6Server:
    """Answers of the gateway that has ``mac``; ``dns`` is a name server (16 bytes) or None.

    ``domains`` are those in which short names are looked for, without the last dot.
    """

    def __init__(self, mac: bytes, dns: bytes | None, domains: Iterable[str]) -> None:
        self._duid = _DUID_LINK_LAYER_ETHERNET + mac
        names = b"".join(map(_name, domains))
        servers = _option(_DNS_SERVERS, dns) if dns is not None else b""
        refresh = _option(_REFRESH_TIME, _REFRESH_AFTER.to_bytes(4, "big"))
        self._configuration = servers + _option(_DOMAIN_LIST, names) + refresh

    def answer(self, request: InformationRequest) -> bytes | None:
        """Build the payload of the reply; None when another server was asked."""
        if request.server_id not in (b"", self._duid):
            return None
        client = _option(_CLIENT_ID, request.client_id) if request.client_id else b""
        start = bytes((REPLY,)) + request.transaction
        return start + client + _option(_SERVER_ID, self._duid) + self._configuration


def _name(domain: str) -> bytes:
    """Write a domain as in DNS, without pointers (RFC 8415 section 10)."""
    return b"".join(bytes((len(label),)) + label.encode() for label in domain.split(".")) + b"\0"


def _option(kind: int, value: bytes) -> bytes:
    return _OPTION.pack(kind, len(value)) + value

"""DHCPv4 messages (RFC 2131 section 2, options of RFC 2132): checked parsing, building.

Layout: op 0, htype 1, hlen 2, hops 3, xid 4:8, secs 8:10, flags 10:12, ciaddr 12:16, yiaddr 16:20,
siaddr 20:24, giaddr 24:28, chaddr 28:44, sname 44:108, file 108:236, magic cookie 236:240, options from 240.
Addresses are 4 bytes in network order.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from netstack.checksum import PROTOCOL_UDP
from netstack.ethernet import ETHERTYPE_IPV4, HEADER_LENGTH
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVER_PORT = 67
CLIENT_PORT = 68

BOOT_REQUEST = 1
BOOT_REPLY = 2
MIN_LENGTH = 300
"""Bytes that a reply is padded to: BOOTP relays and old clients drop shorter ones (RFC 1542 section 2.1)."""

CHADDR_AT = 28
"""Where a message has its client's MAC."""

_MIN_UDP_FRAME = 14 + 20 + 8
_CLIENT_PORT_BYTES = CLIENT_PORT.to_bytes(2, "big")
_ETHERNET = 1
_MAC_LENGTH = 6
_BROADCAST_FLAG = 0x8000
_COOKIE = b"\x63\x82\x53\x63"
_HEADER = Struct("!BBBxIHH4s4s4s4s6s10x64s128s4s")
_PAD, _END = 0, 255
_OVERLOAD_FILE, _OVERLOAD_SNAME = 1, 2

_FQDN_FIXED = 3
_FQDN_WIRE_FORMAT = 0x04
_MAX_LABEL = 63


class MessageType(IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Code(IntEnum):
    """Options that are read or written here."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS_SERVERS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    INTERFACE_MTU = 26
    BROADCAST_ADDRESS = 28
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    MESSAGE = 56
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_ID = 61
    CLIENT_FQDN = 81


class DhcpMessage(NamedTuple):
    """What a client said; ``options`` are whole (RFC 3396) by code."""

    type: MessageType
    xid: int
    broadcast: bool
    client_address: bytes
    relay_address: bytes
    mac: bytes
    options: Mapping[int, bytes]

    def address(self, code: Code) -> bytes | None:
        """Read an option that is one address; None when it is missing or no address."""
        value = self.options.get(code)
        return value if value is not None and len(value) == 4 else None  # noqa: PLR2004 - an IPv4 address

    @property
    def host_name(self) -> str:
        """The client's name from option 81 (RFC 4702) or 12, as it wrote it; empty when it gave none."""
        fqdn = self.options.get(Code.CLIENT_FQDN, b"")
        name = fqdn[_FQDN_FIXED:]
        if name and fqdn[0] & _FQDN_WIRE_FORMAT:
            name = name[1 : 1 + min(name[0], _MAX_LABEL)]
        return (name or self.options.get(Code.HOST_NAME, b"")).decode("ascii", "replace").rstrip("\0")


def parse_dhcp(payload: bytes) -> DhcpMessage:
    """Read a client's message. Raises MalformedPacket("bad_dhcp") for what is none of an Ethernet client."""
    if len(payload) < _HEADER.size:
        raise MalformedPacket("bad_dhcp")
    op, hardware, length, xid, _, flags, ciaddr, _, _, giaddr, mac, sname, file, cookie = _HEADER.unpack_from(
        payload
    )
    if (op, hardware, length, cookie) != (BOOT_REQUEST, _ETHERNET, _MAC_LENGTH, _COOKIE):
        raise MalformedPacket("bad_dhcp")
    options = _read_options(payload[_HEADER.size :], sname, file)
    kind = options.get(Code.MESSAGE_TYPE, b"")
    try:
        (number,) = kind
        message_type = MessageType(number)
    except ValueError:
        raise MalformedPacket("bad_dhcp") from None
    return DhcpMessage(message_type, xid, bool(flags & _BROADCAST_FLAG), ciaddr, giaddr, mac, options)


def option_spans(message: bytes, wanted: Code) -> Iterator[tuple[int, int]]:
    """Find where values of an option stand in a UDP payload: from, to. Ends where it makes no sense."""
    at = _HEADER.size
    if message[at - len(_COOKIE) : at] != _COOKIE:
        return
    while at + 1 < len(message) and message[at] != _END:
        if message[at] == _PAD:
            at += 1
            continue
        end = at + 2 + message[at + 1]
        if end > len(message):
            return
        if message[at] == wanted:
            yield at + 2, end
        at = end


def is_for_client(frame: bytes) -> bool:
    """Whether an Ethernet frame is for a DHCP client's port, and so a server's; with IPv4 options or without.

    The port from which it comes says nothing: clients do not look at it. Fragments after the first have no
    ports, but without the first nobody puts them together.
    """
    if len(frame) < _MIN_UDP_FRAME or frame[12:14] != ETHERTYPE_IPV4 or frame[23] != PROTOCOL_UDP:
        return False
    ports = HEADER_LENGTH + (frame[HEADER_LENGTH] & 0x0F) * 4
    first = int.from_bytes(frame[20:22], "big") & 0x1FFF == 0
    return first and frame[ports + 2 : ports + 4] == _CLIENT_PORT_BYTES


def build_reply(
    request: DhcpMessage, kind: MessageType, address: bytes, options: Mapping[Code, bytes]
) -> bytes:
    """Build the server's answer to ``request``: ``address`` is yiaddr, the type goes first."""
    header = _HEADER.pack(
        BOOT_REPLY,
        _ETHERNET,
        _MAC_LENGTH,
        request.xid,
        0,
        _BROADCAST_FLAG if request.broadcast else 0,
        request.client_address if kind is MessageType.ACK else bytes(4),
        address,
        bytes(4),
        request.relay_address,
        request.mac,
        b"",
        b"",
        _COOKIE,
    )
    fields = {Code.MESSAGE_TYPE: bytes((kind,)), **options}
    body = b"".join(bytes((code, len(value))) + value for code, value in fields.items())
    return (header + body + bytes((_END,))).ljust(MIN_LENGTH, b"\0")


def _read_options(area: bytes, sname: bytes, file: bytes) -> dict[int, bytes]:
    """Join the option areas: file, then sname, where option 52 says that they hold options (RFC 3396)."""
    options = _collect(area, {})
    overload = options.get(Code.OVERLOAD, b"\0")[:1]
    where = overload[0] if overload else 0
    if where & _OVERLOAD_FILE:
        _collect(file, options)
    if where & _OVERLOAD_SNAME:
        _collect(sname, options)
    return options


def _collect(area: bytes, options: dict[int, bytes]) -> dict[int, bytes]:
    for code, value in _fields(area):
        options[code] = options.get(code, b"") + value
    return options


def _fields(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area) and area[at] != _END:
        if area[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            raise MalformedPacket("bad_dhcp")
        end = at + 2 + area[at + 1]
        yield area[at], area[at + 2 : end]
        at = end

"""DHCPv4 and BOOTP messages (RFC 2131 section 2, RFC 951): checked parsing, building.

Layout: op 0, htype 1, hlen 2, hops 3, xid 4:8, secs 8:10, flags 10:12, ciaddr 12:16, yiaddr 16:20,
siaddr 20:24, giaddr 24:28, chaddr 28:44, sname 44:108, file 108:236, magic cookie 236:240, options from 240.
Addresses are 4 bytes in network order.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from netstack.checksum import PROTOCOL_UDP
from netstack.dhcp_options import COOKIE, OPTIONS_AT, Code, arrange, read_options
from netstack.ethernet import ETHERTYPE_IPV4, HEADER_LENGTH, MAC_LENGTH
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER_PORT = 67
CLIENT_PORT = 68

BOOT_REQUEST = 1
BOOT_REPLY = 2
MIN_LENGTH = 300
"""Bytes that a reply is padded to: BOOTP relays and old clients drop shorter ones (RFC 1542 section 2.1)."""

MAX_LENGTH = 2048
"""Bytes of a client's message; more than a frame takes. In fragments it could have 64 KB."""

MIN_MESSAGE_SIZE = 576
"""What every client takes (RFC 2131 section 2), with the headers of IP and UDP."""
_IP_AND_UDP = 28

CHADDR_AT = 28
"""Where a message has its client's MAC."""

_MIN_UDP_FRAME = 14 + 20 + 8
_CLIENT_PORT_BYTES, _SERVER_PORT_BYTES = CLIENT_PORT.to_bytes(2, "big"), SERVER_PORT.to_bytes(2, "big")
_ETHERNET = 1
_BROADCAST_FLAG = 0x8000
_HEADER = Struct("!BBBxIHH4s4s4s4s6s10x64s128s4s")
_MIN_CLIENT_ID = 2
_BOOT_LOADERS = (b"PXEClient", b"HTTPClient")

_FQDN_FIXED = 3
_FQDN_WIRE_FORMAT = 0x04
_MAX_LABEL = 63


class MessageType(IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    BOOTP = 0
    """A message without that option (RFC 1534 section 2); never written."""
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


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
    def client_identifier(self) -> bytes:
        """Option 61; empty when it is missing or shorter than RFC 2132 section 9.14 allows."""
        value = self.options.get(Code.CLIENT_ID, b"")
        return value if len(value) >= _MIN_CLIENT_ID else b""

    @property
    def asked_for(self) -> bytes:
        """Codes of the options that the client wants (option 55); empty when it does not say."""
        return self.options.get(Code.PARAMETER_LIST, b"")

    @property
    def longest_answer(self) -> int:
        """Bytes of the largest answer that the client takes (option 57, which counts IP's and UDP's headers).

        A BOOTP client takes 300 (RFC 1542 section 2.1).
        """
        if self.type is MessageType.BOOTP:
            return MIN_LENGTH
        size = int.from_bytes(self.options.get(Code.MAX_MESSAGE_SIZE, b""), "big")
        return max(size, MIN_MESSAGE_SIZE) - _IP_AND_UDP

    @property
    def is_boot_loader(self) -> bool:
        """Whether firmware says it, not an operating system (RFC 4578; UEFI 2.10 section 24.7)."""
        vendor = self.options.get(Code.VENDOR_CLASS, b"")
        return vendor.startswith(_BOOT_LOADERS) or Code.CLIENT_ARCHITECTURE in self.options

    @property
    def host_name(self) -> str:
        """The client's name from option 81 (RFC 4702) or 12, as it wrote it; empty when it gave none."""
        fqdn = self.options.get(Code.CLIENT_FQDN, b"")
        name = fqdn[_FQDN_FIXED:]
        if name and fqdn[0] & _FQDN_WIRE_FORMAT:
            name = name[1 : 1 + min(name[0], _MAX_LABEL)]
        return (name or self.options.get(Code.HOST_NAME, b"")).decode("ascii", "replace").rstrip("\0")


def parse_dhcp(payload: bytes) -> DhcpMessage:
    """Read a client's message. Raises MalformedPacket("bad_dhcp") for what is none of an Ethernet client.

    BOOTP clients may have nothing in the vendor's area, not even the cookie (RFC 951).
    """
    if len(payload) == _HEADER.size - len(COOKIE):
        payload += bytes(len(COOKIE))
    if not _HEADER.size <= len(payload) <= MAX_LENGTH:
        raise MalformedPacket("bad_dhcp")
    op, hardware, length, xid, _, flags, ciaddr, _, _, giaddr, mac, sname, file, cookie = _HEADER.unpack_from(
        payload
    )
    if (op, hardware, length) != (BOOT_REQUEST, _ETHERNET, MAC_LENGTH) or cookie not in (COOKIE, bytes(4)):
        raise MalformedPacket("bad_dhcp")
    options = read_options(payload[_HEADER.size :], sname, file) if cookie == COOKIE else {}
    message_type = _message_type(options)
    return DhcpMessage(message_type, xid, bool(flags & _BROADCAST_FLAG), ciaddr, giaddr, mac, options)


def _message_type(options: Mapping[int, bytes]) -> MessageType:
    kind = options.get(Code.MESSAGE_TYPE)
    if kind is None:
        return MessageType.BOOTP
    try:
        (number,) = kind
        message_type = MessageType(number)
    except ValueError:
        raise MalformedPacket("bad_dhcp") from None
    if message_type is MessageType.BOOTP:
        raise MalformedPacket("bad_dhcp")
    return message_type


def is_for_client(frame: bytes) -> bool:
    """Whether an Ethernet frame is for a DHCP client's port, and so a server's; with IPv4 options or without.

    The port from which it comes says nothing: clients do not look at it. Fragments after the first have no
    ports, but without the first nobody puts them together.
    """
    return _goes_to(frame, _CLIENT_PORT_BYTES)


def is_for_server(frame: bytes) -> bool:
    """Whether an Ethernet frame is for a DHCP server's port, and so a client's or a relay agent's."""
    return _goes_to(frame, _SERVER_PORT_BYTES)


def _goes_to(frame: bytes, port: bytes) -> bool:
    if len(frame) < _MIN_UDP_FRAME or frame[12:14] != ETHERTYPE_IPV4 or frame[23] != PROTOCOL_UDP:
        return False
    ports = HEADER_LENGTH + (frame[HEADER_LENGTH] & 0x0F) * 4
    first = int.from_bytes(frame[20:22], "big") & 0x1FFF == 0
    return first and frame[ports + 2 : ports + 4] == port


class Boot(NamedTuple):
    """What the header says of booting: the server's address (4 bytes) and a file, empty for none."""

    server: bytes = bytes(4)
    file: bytes = b""


def build_reply(
    request: DhcpMessage,
    kind: MessageType,
    address: bytes,
    options: Mapping[Code, bytes],
    *,
    boot: Boot = Boot(),  # noqa: B008 - immutable
    mtu: int = MIN_MESSAGE_SIZE,
) -> bytes:
    """Build the server's answer to ``request``: ``address`` is yiaddr, the type goes first.

    The client's identifier comes back as it was (RFC 6842). ``options``, the most important first, are left
    out where they are more than the client takes, or a packet of ``mtu`` bytes.
    """
    fields = dict(options)
    bootp = kind is MessageType.BOOTP
    if not bootp:
        fields = {Code.MESSAGE_TYPE: bytes((kind,))}
        if Code.CLIENT_ID in request.options:
            fields[Code.CLIENT_ID] = request.options[Code.CLIENT_ID]
        fields |= options
    longest = min(request.longest_answer, max(mtu, MIN_MESSAGE_SIZE) - _IP_AND_UDP)
    areas = arrange(fields, longest - OPTIONS_AT, file=not bootp and not boot.file, sname=not bootp)
    header = _HEADER.pack(
        BOOT_REPLY,
        _ETHERNET,
        MAC_LENGTH,
        request.xid,
        0,
        _BROADCAST_FLAG if request.broadcast else 0,
        request.client_address if kind in (MessageType.ACK, MessageType.BOOTP) else bytes(4),
        address,
        boot.server,
        request.relay_address,
        request.mac,
        areas.sname,
        areas.file or boot.file,
        COOKIE,
    )
    return (header + areas.options).ljust(MIN_LENGTH, b"\0")

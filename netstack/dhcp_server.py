"""The LAN's DHCPv4 server (RFC 2131 section 4.3): tells guests what the address pool has given them.

There is nothing to negotiate: a MAC that is on the LAN holds its address in the pool, the one that Assigned
names too, until its session ends; further clients behind one MAC have theirs (``netstack.dhcp_clients``). So
every OFFER is that address, a REQUEST for any other one is refused with a NAK, and a RELEASE leaves the MAC
its own: a guest that reboots asks again. Of a guest that is not known here, as when the relay has lost its
state, there is no better record than what it says: the address that it asks for (option 50 of a DISCOVER, or
of the REQUEST of a client that rebooted) becomes its own if it is free. A server without a record should stay
silent in the latter case, so that another one may answer (RFC 2131 section 4.3.2); a LAN has only this one.
The lease time makes guests ask now and then, which brings a changed MTU or name server to them, and ends the
leases of further clients. BOOTP clients get the MAC's address for good (RFC 1534 section 2: an infinite
lease).

Replies go where RFC 2131 section 4.1 says. There are no relay agents on the LAN: messages that name one
are dropped.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from netstack.dhcp import Boot, MessageType, build_reply
from netstack.dhcp_boot import BootFile, choose, wants_boot_file
from netstack.dhcp_clients import DhcpClients, client_of
from netstack.dhcp_options import FILE_LENGTH, Code, Route, encode_domain_search, encode_routes
from netstack.dns_local import parse_domain
from netstack.ethernet import BROADCAST

if TYPE_CHECKING:
    from collections.abc import Callable

    from netstack.address_pool import AddressPool
    from netstack.dhcp import DhcpMessage

_UNSPECIFIED = bytes(4)
_BROADCAST_IP = b"\xff" * 4
_HTTP_CLIENT = b"HTTPClient"

_OF_ONE_SERVER = frozenset({MessageType.REQUEST, MessageType.DECLINE, MessageType.RELEASE})
"""Messages about what one server gave or offers, which they name (RFC 2131 section 4.4.1, table 5)."""
_ONLY_WHEN_ASKED_FOR = frozenset(
    {
        Code.TFTP_SERVER,
        Code.BOOT_FILE,
        Code.NTP_SERVERS,
        Code.DOMAIN_SEARCH,
        Code.CLASSLESS_ROUTES,
        Code.MICROSOFT_CLASSLESS_ROUTES,
        Code.WPAD,
    }
)
"""Options that are left out where the client's list (option 55) does not name them."""


class DhcpOptions(NamedTuple):
    """What guests are told besides their address. Addresses are 4 bytes, times are seconds."""

    server: bytes
    netmask: bytes
    dns: bytes
    domain: str
    lease_time: int
    boot: tuple[BootFile, ...] = ()
    search: tuple[str, ...] = ()
    """Domains in which short names are looked for."""
    ntp: tuple[bytes, ...] = ()
    routes: tuple[Route, ...] = ()
    wpad: str = ""
    """URL of a proxy configuration."""


class Unanswered(Enum):
    """Why a message gets no answer; the values become part of counters' names."""

    RELEASED = "released"
    DECLINED = "declined"
    OTHER_SERVER = "other_server"
    POOL_FULL = "pool_full"
    RELAYED = "relayed"
    NOT_A_REQUEST = "not_a_request"


class Reply(NamedTuple):
    """A message for port 68 at ``mac`` and ``address``; ``lease`` is what was acknowledged, if anything."""

    kind: MessageType
    mac: bytes
    address: bytes
    payload: bytes
    lease: bytes | None


class DhcpServer:
    """Answers the messages of one LAN's guests."""

    def __init__(
        self,
        options: DhcpOptions,
        pool: AddressPool,
        further_ended: Callable[[bytes, bytes], None] = lambda _mac, _address: None,
    ) -> None:
        """``further_ended`` hears of each further lease that ends: the MAC and the address."""
        self._options = options
        self._clients = DhcpClients(pool, options.lease_time, further_ended)
        network = int.from_bytes(options.server, "big") & int.from_bytes(options.netmask, "big")
        hosts = int.from_bytes(options.netmask, "big") ^ 0xFFFF_FFFF
        self._broadcast = (network | hosts).to_bytes(4, "big")
        self._on_demand = self._demanded()

    def expire(self, now: float) -> None:
        """Free the addresses of clients whose lease time is over."""
        self._clients.expire(now)

    def wants_further(self, request: DhcpMessage, now: float) -> bool:
        """Whether to answer is to give a client an address beside its MAC's own."""
        return self._clients.wants_further(client_of(request), now)

    def forget(self, mac: bytes) -> None:
        """Forget a guest that left, and all clients behind its MAC."""
        self._clients.forget(mac)

    def answer(self, request: DhcpMessage, mtu: int, port: int, now: float) -> Reply | Unanswered:
        """Answer one message from a switch port; ``mtu`` is what the guest's NIC should have."""
        if request.relay_address != _UNSPECIFIED:
            return Unanswered.RELAYED
        if request.type in _OF_ONE_SERVER and self._is_of_another_server(request):
            return Unanswered.OTHER_SERVER
        client = client_of(request)
        match request.type:
            case MessageType.DISCOVER | MessageType.BOOTP:
                wanted = request.address(Code.REQUESTED_ADDRESS)
                lease = self._clients.assign(client, port, now, wanted)
                return Unanswered.POOL_FULL if lease is None else self._offer(request, lease, mtu)
            case MessageType.REQUEST:
                return self._request(request, mtu, port, now)
            case MessageType.INFORM:
                return self._inform(request, mtu)
            case MessageType.DECLINE:
                self._clients.decline(client, request.address(Code.REQUESTED_ADDRESS))
                return Unanswered.DECLINED
            case MessageType.RELEASE:
                self._clients.release(client, request.client_address)
                return Unanswered.RELEASED
            case _:
                return Unanswered.NOT_A_REQUEST

    def _request(self, request: DhcpMessage, mtu: int, port: int, now: float) -> Reply | Unanswered:
        """Tell the three kinds of REQUEST apart (RFC 2131 section 4.3.2); all want the same address."""
        server = request.options.get(Code.SERVER_ID)
        remembered = request.address(Code.REQUESTED_ADDRESS)
        wanted = remembered or request.client_address
        client = client_of(request)
        self._clients.prefer(client, wanted)
        # Who names the server wants what it was offered (SELECTING), others what they had (INIT-REBOOT).
        lease = self._clients.assign(client, port, now, remembered if server is None else None)
        if lease is None or wanted != lease:
            return self._refuse(request, "this is not your address")
        self._clients.acknowledge(client, now)
        return self._grant(request, MessageType.ACK, lease, mtu)

    def _is_of_another_server(self, request: DhcpMessage) -> bool:
        return request.options.get(Code.SERVER_ID, self._options.server) != self._options.server

    def _offer(self, request: DhcpMessage, lease: bytes, mtu: int) -> Reply:
        """Answer who asks for any address; a BOOTP client has it then."""
        if request.type is not MessageType.BOOTP:
            return self._grant(request, MessageType.OFFER, lease, mtu)
        options = self._parameters(request, mtu)
        del options[Code.SERVER_ID]  # an option of DHCP only (RFC 1534 section 2)
        mac, address = self._destination(request, lease)
        payload = self._build(request, MessageType.BOOTP, lease, options, mtu)
        return Reply(MessageType.BOOTP, mac, address, payload, lease)

    def _inform(self, request: DhcpMessage, mtu: int) -> Reply:
        """Give parameters to a guest that has its address by other means (RFC 2131 section 4.3.5)."""
        payload = self._build(request, MessageType.ACK, _UNSPECIFIED, self._parameters(request, mtu), mtu)
        given = request.client_address
        address = _BROADCAST_IP if given == _UNSPECIFIED else given
        return Reply(MessageType.ACK, request.mac, address, payload, None)

    def _grant(self, request: DhcpMessage, kind: MessageType, lease: bytes, mtu: int) -> Reply:
        seconds = self._options.lease_time
        times = {
            Code.LEASE_TIME: seconds,
            Code.RENEWAL_TIME: seconds // 2,
            Code.REBINDING_TIME: seconds * 7 // 8,
        }
        packed = {code: time.to_bytes(4, "big") for code, time in times.items()}
        payload = self._build(request, kind, lease, packed | self._parameters(request, mtu), mtu)
        mac, address = self._destination(request, lease)
        return Reply(kind, mac, address, payload, lease if kind is MessageType.ACK else None)

    @staticmethod
    def _destination(request: DhcpMessage, lease: bytes) -> tuple[bytes, bytes]:
        """Give MAC and address of a positive answer."""
        if request.client_address != _UNSPECIFIED:
            return request.mac, request.client_address
        if request.broadcast:
            return BROADCAST, _BROADCAST_IP
        return request.mac, lease

    def _refuse(self, request: DhcpMessage, reason: str) -> Reply:
        options = {Code.SERVER_ID: self._options.server, Code.MESSAGE: reason.encode()}
        payload = build_reply(request, MessageType.NAK, _UNSPECIFIED, options)
        # Broadcast, since the guest may have no valid address; to its own NIC only, since it is known. Where
        # several clients share one (ipvlan) only what is for all NICs is handed to each.
        mac = BROADCAST if request.broadcast else request.mac
        return Reply(MessageType.NAK, mac, _BROADCAST_IP, payload, None)

    def _build(
        self, request: DhcpMessage, kind: MessageType, address: bytes, options: dict[Code, bytes], mtu: int
    ) -> bytes:
        """Build an answer that grants something, with what the client is to boot."""
        boot, chosen = Boot(), choose(self._options.boot, request)
        booting: dict[Code, bytes] = {}
        if chosen is not None and wants_boot_file(request):
            file = chosen.file.encode()
            # A longer name is in option 67 only; the field ends with a zero byte.
            boot = Boot(chosen.server, file if len(file) < FILE_LENGTH else b"")
            booting[Code.BOOT_FILE] = file
            if chosen.server != _UNSPECIFIED:
                booting[Code.TFTP_SERVER] = ".".join(map(str, chosen.server)).encode()
            vendor = request.options.get(Code.VENDOR_CLASS, b"")
            if vendor.startswith(_HTTP_CLIENT):
                booting[Code.VENDOR_CLASS] = _HTTP_CLIENT  # else it ignores the URL (UEFI 2.10 section 24.7)
        asked = request.asked_for
        usual = {code: value for code, value in options.items() if code not in _ONLY_WHEN_ASKED_FOR}
        besides = {
            code: value
            for code, value in (booting | options).items()
            if code not in usual and (code not in _ONLY_WHEN_ASKED_FOR or not asked or code in asked)
        }
        return build_reply(request, kind, address, usual | besides, boot=boot, mtu=mtu)

    def _parameters(self, request: DhcpMessage, mtu: int) -> dict[Code, bytes]:
        """Give the configuration, the most important first."""
        options = self._options
        always = {
            Code.SERVER_ID: options.server,
            Code.SUBNET_MASK: options.netmask,
            Code.ROUTER: options.server,
            Code.DNS_SERVERS: options.dns,
            Code.DOMAIN_NAME: options.domain.encode(),
            Code.INTERFACE_MTU: mtu.to_bytes(2, "big"),
            Code.BROADCAST_ADDRESS: self._broadcast,
        }
        demanded = dict(self._on_demand)
        if Code.MICROSOFT_CLASSLESS_ROUTES not in request.asked_for:
            demanded.pop(Code.MICROSOFT_CLASSLESS_ROUTES, None)
        return always | demanded

    def _demanded(self) -> dict[Code, bytes]:
        """Write what the operator wants to be told beside the usual, once for all."""
        options = self._options
        routes = encode_routes(options.routes, options.server) if options.routes else b""
        values = {
            Code.CLASSLESS_ROUTES: routes,
            Code.MICROSOFT_CLASSLESS_ROUTES: routes,
            Code.NTP_SERVERS: b"".join(options.ntp),
            Code.DOMAIN_SEARCH: encode_domain_search(
                parse_domain(domain).labels for domain in options.search
            ),
            Code.WPAD: options.wpad.encode(),
        }
        return {code: value for code, value in values.items() if value}

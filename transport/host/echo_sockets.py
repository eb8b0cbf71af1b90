"""Sockets for pings to the outside.

They are the system's unprivileged ICMP sockets (Linux: ``net.ipv4.ping_group_range``; macOS), one per flow.
Where these are forbidden, one raw socket serves all flows (it needs CAP_NET_RAW): each flow gets an
identifier, and what returns is told apart by it.
"""

from __future__ import annotations

import secrets
import socket
import sys
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from actors.ports import SendResult
from netstack.icmp import ECHO_REPLY, ECHO_REQUEST, ICMP_HEADER_LENGTH, build_echo
from netstack.icmpv6 import ECHO_REPLY6, ECHO_REQUEST6, build_echo6
from transport.host.host_socket import IPV4, IPV6, HostSocket, Reported, SocketFamily

if TYPE_CHECKING:
    from actors.messages import DatagramFromNet, DatagramsFromNet, ErrorsFromNet
    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from netstack.egress import Decision
    from transport.host.readiness import Readiness

_IDENTIFIERS = 0x1_0000
_IDENTIFIER = Struct("!4xH")
_IP_VERSION_4 = 4
_ICMP_FILTER = 1
"""Linux, level SOL_RAW (255): mask of the ICMP types that a raw socket does not want."""
_SOL_RAW = 255
_ONLY_ECHO_REPLIES = (0xFFFF_FFFF ^ (1 << ECHO_REPLY)).to_bytes(4, sys.byteorder)
_ONLY_ECHO_REPLIES6 = ((1 << 256) - 1 ^ 1 << ECHO_REPLY6).to_bytes(32, "little")
"""``struct icmp6_filter`` (RFC 3542): 8 words, a bit for each type that is not wanted."""


class EchoNetwork(Protocol):
    """What pings need of the way out, ``transport.host.outside.HostNetwork``."""

    ready: Readiness
    identifiers: EchoIdentifiers

    def decide(self, address: str) -> Decision:
        """Ask the egress policy about an address as the guest named it."""

    def message(self, received: list[DatagramFromNet]) -> DatagramsFromNet:
        """Put what was received into words for a flow."""

    def errors(self, errors: list[Reported]) -> ErrorsFromNet:
        """Put ICMP errors into words for a flow."""


class EchoIdentifiers:
    """Identifiers of the pings that leave by raw sockets, each of which gets every answer that comes.

    Networks that share them never take one's answers for another's, nor do those of several processes.
    """

    def __init__(self, process: int = 0, processes: int = 1) -> None:
        """Have those that this process, one of so many, does not share with the others."""
        self._all = range(process, _IDENTIFIERS, processes)
        self._taken: set[tuple[int, int]] = set()
        # A random start keeps clear of other programs and of pings before a restart.
        self._next = secrets.randbelow(len(self._all))

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, protocol: int) -> int:
        """Take a free one of ICMP or ICMPv6 (IP protocol number). Raises OSError when there is none."""
        for _ in self._all:
            identifier, self._next = self._all[self._next], (self._next + 1) % len(self._all)
            if (protocol, identifier) not in self._taken:
                self._taken.add((protocol, identifier))
                return identifier
        raise OSError("all ICMP identifiers are taken")

    def give_back(self, protocol: int, identifier: int) -> None:
        """Let others have it."""
        self._taken.discard((protocol, identifier))


class _EchoSender(HostSocket):
    """Sends echo requests with the guest's TTL."""

    def __init__(self, family: SocketFamily, kind: int, network: EchoNetwork, counters: Counters) -> None:
        super().__init__(family, kind, family.icmp, network.ready, counters)
        self.network = network

    def send_request(
        self,
        identifier: int,
        sequence: int,
        payload: bytes,
        destination: str,
        *,
        ttl: int,
        dont_fragment: bool,
    ) -> SendResult:
        decision = self.network.decide(destination)
        if not decision.allowed:
            return SendResult.DENIED
        if (":" in decision.dial) is not (self.family is IPV6):  # the socket is of the other version
            return SendResult.UNREACHABLE
        if self.family is IPV4:
            request = build_echo(ECHO_REQUEST, identifier, sequence, payload)
        else:  # the system computes the checksum, which covers an address that only it knows
            request = build_echo6(ECHO_REQUEST6, identifier, sequence, payload)
        return self.transmit(request, (decision.dial, 0), ttl, dont_fragment)


class PingEchoSocket(_EchoSender):
    """An unprivileged ICMP socket: the kernel sets the identifier and gives only this socket's replies."""

    def __init__(self, family: SocketFamily, network: EchoNetwork, flow: Mailbox, counters: Counters) -> None:
        super().__init__(family, socket.SOCK_DGRAM, network, counters)
        self._flow = flow

    def send_echo(
        self, sequence: int, payload: bytes, destination: str, ttl: int, dont_fragment: bool
    ) -> SendResult:
        """Send an echo request after asking the egress policy about ``destination``."""
        return self.send_request(0, sequence, payload, destination, ttl=ttl, dont_fragment=dont_fragment)

    def deliver(self, received: list[DatagramFromNet]) -> None:
        """Tell the flow what is an echo reply."""
        replies = _echo_replies(received, self.family)
        if replies:
            self._flow.tell(self.network.message(replies))

    def report(self, errors: list[Reported]) -> None:
        """Tell the flow."""
        self._flow.tell(self.network.errors(errors))


class RawIcmpSocket(_EchoSender):
    """One raw socket for the echo flows of all guests; closed when the last of them is."""

    def __init__(self, family: SocketFamily, network: EchoNetwork, counters: Counters) -> None:
        super().__init__(family, socket.SOCK_RAW, network, counters)
        if family is IPV6:
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP_FILTER, _ONLY_ECHO_REPLIES6)
        elif sys.platform == "linux":
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, _ONLY_ECHO_REPLIES)
        self._flows: dict[int, Mailbox] = {}

    @property
    def closed(self) -> bool:
        """Whether another one is needed for the next flow."""
        return self._socket.fileno() < 0

    def attach(self, flow: Mailbox) -> RawEchoSocket:
        """Give ``flow`` an identifier. Raises OSError when all are taken."""
        identifier = self.network.identifiers.take(self.family.icmp)
        self._flows[identifier] = flow
        return RawEchoSocket(self, identifier)

    def detach(self, identifier: int) -> None:
        """Take the identifier back."""
        del self._flows[identifier]
        self.network.identifiers.give_back(self.family.icmp, identifier)
        if not self._flows:
            self.close()

    def deliver(self, received: list[DatagramFromNet]) -> None:
        """Tell each flow its own replies."""
        by_identifier: dict[int, list[DatagramFromNet]] = {}
        for reply in _echo_replies(received, self.family):
            by_identifier.setdefault(_IDENTIFIER.unpack_from(reply.payload)[0], []).append(reply)
        for identifier, replies in by_identifier.items():
            flow = self._flows.get(identifier)
            if flow is not None:  # else another program's
                flow.tell(self.network.message(replies))

    def report(self, errors: list[Reported]) -> None:
        """Tell each flow its own errors: the quoted requests have its identifier."""
        for error in errors:
            if len(error.quoted) >= ICMP_HEADER_LENGTH:
                flow = self._flows.get(_IDENTIFIER.unpack_from(error.quoted)[0])
                if flow is not None:
                    flow.tell(self.network.errors([error]))


class RawEchoSocket:
    """One flow's share of the raw socket; implements ``actors.ports.EchoSocket``."""

    def __init__(self, raw: RawIcmpSocket, identifier: int) -> None:
        self._raw: RawIcmpSocket | None = raw
        self._identifier = identifier

    @property
    def path_mtu(self) -> int:
        """Bytes of IP packet that the path takes, told with the last TOO_BIG; 0 when that is unknown."""
        return 0 if self._raw is None else self._raw.path_mtu

    def send_echo(
        self, sequence: int, payload: bytes, destination: str, ttl: int, dont_fragment: bool
    ) -> SendResult:
        """Send an echo request after asking the egress policy about ``destination``."""
        if self._raw is None:
            return SendResult.DROPPED
        return self._raw.send_request(
            self._identifier, sequence, payload, destination, ttl=ttl, dont_fragment=dont_fragment
        )

    def close(self) -> None:
        """Give the identifier back; nothing is told to the flow any more."""
        if self._raw is not None:
            self._raw.detach(self._identifier)
            self._raw = None


def _echo_replies(received: list[DatagramFromNet], family: SocketFamily) -> list[DatagramFromNet]:
    """Keep the echo replies, without the IP header that raw sockets (and macOS) leave in front."""
    replies = []
    wanted = ECHO_REPLY if family is IPV4 else ECHO_REPLY6
    for datagram in received:
        message = datagram.payload
        if family is IPV4 and message and message[0] >> 4 == _IP_VERSION_4:
            message = message[(message[0] & 0x0F) * 4 :]
        if len(message) >= ICMP_HEADER_LENGTH and message[0] == wanted:
            replies.append(datagram._replace(payload=message))
    return replies

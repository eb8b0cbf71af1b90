"""Which ports want which multicast groups: IGMP and MLD snooping (RFC 4541).

Guests tell multicast routers which groups they listen to: IGMPv1, 2 and 3 (RFC 1112, 2236, 3376), MLDv1 and 2
(RFC 2710, 3810). The switch listens in. A group that some port reported goes to the ports that did; one that
nobody reported, and what has link scope (224.0.0.0/24, ff02::/16 with the solicited-node groups of neighbour
discovery), is flooded. Groups are told apart by their addresses: 32 of IPv4 share a MAC. Source filters are
not kept: whoever wants some sources of a group gets all.

Memberships last two queries and an answer. Who says that it leaves a group may share its port with others, so
its membership only ends soon, unless an answer to another query renews it. Reports go to multicast routers
alone: heard by other guests, they would keep these from reporting. A port is a router's for a while after a
query came from it, and gets all groups.

The table is bounded. A port whose report finds no room gets all groups for as long as its membership would
have lasted: it loses nothing, and costs what it cost without snooping.
"""

from __future__ import annotations

import logging
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from netstack.checksum import add_up, is_valid
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, format_mac
from netstack.icmpv6 import PROTOCOL_ICMPV6, parse_icmpv6
from netstack.ipv4 import format_ipv4, parse_ipv4
from netstack.ipv6 import DESTINATION6, NEXT_HEADER, format_ipv6, parse_ipv6
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from netstack.counters import Counters

QUERY_INTERVAL = 125.0
"""Seconds between general queries (RFC 2236 section 8.2)."""

RESPONSE_TIME = 10.0
"""Seconds that hosts may take to answer, so that they do not all do at once."""

MEMBERSHIP_TIME = 2 * QUERY_INTERVAL + RESPONSE_TIME
"""Seconds for which a report holds (RFC 2236 section 8.4)."""

LEAVE_RESPONSE_TIME = 1.0
LEAVE_TIME = 3.0
"""Seconds that others behind a port have for saying that they stay, when one leaves: a round trip more."""

MAX_MEMBERSHIPS = 8192
"""Groups of all ports: some 2 MB."""

MAX_MEMBERSHIPS_PER_PORT = 128

MAX_RECORDS = 256
"""Records of one report that are read: more than a frame of 1500 bytes holds."""

_PROTOCOL4 = 23
_DESTINATION4 = slice(30, 34)
_GROUP_AT4 = slice(4, 8)
_LINK_SCOPE4 = bytes((224, 0, 0))
_IGMP_QUERY, _IGMPV1_REPORT, _IGMPV2_REPORT, _IGMP_LEAVE, _IGMPV3_REPORT = 0x11, 0x12, 0x16, 0x17, 0x22
_MLD_QUERY, _MLDV1_REPORT, _MLD_DONE, _MLDV2_REPORT = 130, 131, 132, 143
_IS_INCLUDE, _IS_EXCLUDE, _TO_INCLUDE, _TO_EXCLUDE, _ALLOW = 1, 2, 3, 4, 5
"""Kinds of records in reports of IGMPv3 and MLDv2 (RFC 3376 section 4.2.12)."""
_IPV4_LENGTH, _IPV6_LENGTH = 4, 16


class Said(Enum):
    """What a membership message was."""

    QUERY = "query"
    """For all hosts, hence to be flooded."""
    REPORT = "report"
    """For multicast routers only, as the next one."""
    LEAVE = "leave"
    """To be answered by a query, by which others behind the same port say that they stay."""


class MulticastGroups:
    """The groups of one LAN. Ports are numbers, groups are addresses of 4 or 16 bytes.

    Counts ``switch.multicast.reports``, ``.malformed`` and ``.table_full``.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._groups: dict[bytes, dict[int, float]] = {}
        """Ports that want a group, with the time at which they do no more."""
        self._of_port: dict[int, set[bytes]] = {}
        self._get_all: dict[int, float] = {}
        """Ports of multicast routers, and those whose reports found no room; until when."""
        self._memberships = 0

    def __len__(self) -> int:
        """Memberships kept: a port in a group is one."""
        return self._memberships

    def hear(self, frame: bytes, port: int, now: float, *, others_stay: bool = False) -> Said | None:
        """Note what a membership message from ``port`` says; None for all other frames.

        ``others_stay``: nobody asks who else is behind the port when one leaves, so its groups stay its own
        for as long as they would without that.
        """
        if not may_be_membership(frame):
            return None
        try:
            kind, body = _message(frame)
        except MalformedPacket:
            self._counters.add("switch.multicast.malformed")
            return None
        if kind in (_IGMP_QUERY, _MLD_QUERY):
            self._get_all[port] = now + MEMBERSHIP_TIME
            return Said.QUERY
        if kind not in _CHANGES:
            return None
        self._counters.add("switch.multicast.reports")
        said = Said.REPORT
        for group, joins in _CHANGES[kind](body):
            if not _is_snooped(group):
                continue
            if joins:
                if not self._join(group, port, now):
                    break  # it gets all from now on, whatever else it wants
            elif not others_stay and self._shorten(group, port, now):
                said = Said.LEAVE
        return said

    def members(self, frame: bytes, now: float) -> list[int] | None:
        """Tell the ports that a multicast frame is for; None where it is for all."""
        ethertype = frame[12:14]
        if ethertype == ETHERTYPE_IPV4:
            group = frame[_DESTINATION4]
        elif ethertype == ETHERTYPE_IPV6:
            group = frame[DESTINATION6]
        else:
            return None
        ports = self._groups.get(group)
        if ports is None:
            return None
        live = [port for port, until in ports.items() if now < until]
        if len(live) < len(ports):
            for port in [port for port, until in ports.items() if now >= until]:
                self._leave(group, port)
            if not live:
                return None
        return live + [port for port in self.routers(now) if port not in ports]

    def routers(self, now: float) -> list[int]:
        """Tell the ports that get every group."""
        if not self._get_all:
            return []
        for port in [port for port, until in self._get_all.items() if now >= until]:
            del self._get_all[port]
        return list(self._get_all)

    def expire(self, now: float) -> None:
        """Forget memberships that nobody renewed; called now and then."""
        for group, ports in list(self._groups.items()):
            for port in [port for port, until in ports.items() if now >= until]:
                self._leave(group, port)

    def forget_port(self, port: int) -> None:
        """Forget a port that was closed."""
        self._get_all.pop(port, None)
        for group in list(self._of_port.get(port, ())):
            self._leave(group, port)

    def _join(self, group: bytes, port: int, now: float) -> bool:
        """Let a port have a group; False where there is no room, and it gets all."""
        until = now + MEMBERSHIP_TIME
        ports = self._groups.get(group, {})
        own = self._of_port.setdefault(port, set())
        if port not in ports:
            if len(own) >= MAX_MEMBERSHIPS_PER_PORT or self._memberships >= MAX_MEMBERSHIPS:
                self._counters.add("switch.multicast.table_full")
                self._get_all[port] = until
                if not own:
                    del self._of_port[port]
                return False
            self._memberships += 1
            own.add(group)
            self._groups[group] = ports
        ports[port] = until
        return True

    def _shorten(self, group: bytes, port: int, now: float) -> bool:
        """Let a membership end soon; False where there is none."""
        ports = self._groups.get(group, {})
        if port not in ports:
            return False
        ports[port] = min(ports[port], now + LEAVE_TIME)
        return True

    def _leave(self, group: bytes, port: int) -> None:
        ports, own = self._groups[group], self._of_port[port]
        del ports[port]
        own.discard(group)
        self._memberships -= 1
        if not ports:
            del self._groups[group]
        if not own:
            del self._of_port[port]


def may_be_membership(frame: bytes) -> bool:
    """Whether a frame without tags may hold IGMP or MLD; a cheap look."""
    if frame[12:14] == ETHERTYPE_IPV4:
        return frame[_PROTOCOL4 : _PROTOCOL4 + 1] == b"\2"
    return frame[12:14] == ETHERTYPE_IPV6 and frame[NEXT_HEADER : NEXT_HEADER + 1] == b"\0"


def _message(frame: bytes) -> tuple[int, bytes]:
    """Take the type and the body (from its fifth byte on) out of a frame. Raises MalformedPacket."""
    if frame[12:14] == ETHERTYPE_IPV4:
        message = parse_ipv4(frame).payload
        if len(message) < _GROUP_AT4.stop or not is_valid(add_up(message)):
            raise MalformedPacket("bad_icmp_checksum")
        return message[0], message[4:]
    packet = parse_ipv6(frame)
    if packet.protocol != PROTOCOL_ICMPV6:
        return 0, b""
    kind = parse_icmpv6(packet).type
    return (kind, packet.payload[4:]) if kind == _MLD_QUERY or kind in _CHANGES else (0, b"")


def _is_snooped(group: bytes) -> bool:
    """Whether a group is one that goes to its members only."""
    if len(group) == _IPV4_LENGTH:
        return group[0] >> 4 == 0xE and not group.startswith(_LINK_SCOPE4)  # noqa: PLR2004 - 224.0.0.0/4
    # RFC 4291 section 2.7: ff, flags, scope; scopes up to 2 stay on the link.
    return len(group) == _IPV6_LENGTH and group[0] == 0xFF and group[1] & 0x0F > 2  # noqa: PLR2004


def _joins4(body: bytes) -> Iterator[tuple[bytes, bool]]:
    yield body[:4], True


def _leaves4(body: bytes) -> Iterator[tuple[bytes, bool]]:
    yield body[:4], False


def _joins6(body: bytes) -> Iterator[tuple[bytes, bool]]:
    yield body[4:20], True


def _leaves6(body: bytes) -> Iterator[tuple[bytes, bool]]:
    yield body[4:20], False


def _records4(body: bytes) -> Iterator[tuple[bytes, bool]]:
    return _records(body, _IPV4_LENGTH)


def _records6(body: bytes) -> Iterator[tuple[bytes, bool]]:
    return _records(body, _IPV6_LENGTH)


def _records(body: bytes, length: int) -> Iterator[tuple[bytes, bool]]:
    """Read the records of a report: type, words of auxiliary data, number of sources, group, sources."""
    at = 4
    for _ in range(min(MAX_RECORDS, int.from_bytes(body[2:4], "big"))):
        head = body[at : at + 4 + length]
        if len(head) < 4 + length:
            return
        kind, auxiliary, sources = head[0], head[1], int.from_bytes(head[2:4], "big")
        at += 4 + length + sources * length + auxiliary * 4
        if kind in (_IS_EXCLUDE, _TO_EXCLUDE) or (sources and kind in (_IS_INCLUDE, _TO_INCLUDE, _ALLOW)):
            yield head[4:], True
        elif kind == _TO_INCLUDE:
            yield head[4:], False


_CHANGES = {
    _IGMPV1_REPORT: _joins4,
    _IGMPV2_REPORT: _joins4,
    _IGMP_LEAVE: _leaves4,
    _IGMPV3_REPORT: _records4,
    _MLDV1_REPORT: _joins6,
    _MLD_DONE: _leaves6,
    _MLDV2_REPORT: _records6,
}
"""By type of message: the groups that it names, and whether they are joined."""


class Queries:
    """General queries of the gateway, as frames for all: of IGMPv2 and, where the LAN has IPv6, of MLD."""

    def __init__(self, mac: bytes, ip: bytes, link_local: bytes | None) -> None:
        self.general = list(_queries(mac, ip, link_local, RESPONSE_TIME))
        self.urgent = list(_queries(mac, ip, link_local, LEAVE_RESPONSE_TIME))
        """To be answered within a second: who else behind a port wants what somebody has left?"""


@lru_cache(maxsize=64)
def _queries(mac: bytes, ip: bytes, link_local: bytes | None, seconds: float) -> Sequence[bytes]:
    """Build the frames; LANs whose gateways have the same addresses share them."""
    # It warns of missing routes and the like, of no interest to one who only builds packets.
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.contrib.igmp import IGMP
    from scapy.layers.inet import IP, IPOption_Router_Alert
    from scapy.layers.inet6 import ICMPv6MLQuery, IPv6, IPv6ExtHdrHopByHop, RouterAlert
    from scapy.layers.l2 import Ether

    source = format_mac(mac)
    ip4 = IP(src=format_ipv4(ip), dst="224.0.0.1", ttl=1, tos=0xC0, options=[IPOption_Router_Alert()])
    query = IGMP(type=_IGMP_QUERY, mrcode=int(seconds * 10), gaddr="0.0.0.0")
    frames = [bytes(Ether(src=source, dst="01:00:5e:00:00:01") / ip4 / query)]
    if link_local is not None:
        ip6 = IPv6(src=format_ipv6(link_local), dst="ff02::1", hlim=1)
        options = IPv6ExtHdrHopByHop(options=[RouterAlert()])
        query6 = ICMPv6MLQuery(mrd=int(seconds * 1000))
        frames.append(bytes(Ether(src=source, dst="33:33:00:00:00:01") / ip6 / options / query6))
    return tuple(frames)

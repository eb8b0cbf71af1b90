"""Which addresses guests may reach: the one decision behind every socket that the relay opens for them.

Order: ``deny``, the host's own addresses, ``allow``, the default table. What leads back to the relay's own
host, or to the cloud's metadata, is allowed only by a network that names just that. Decisions are about
binary addresses; text that is not a canonical address is refused, so ``127.1`` and ``0x7f000001``
never reach a resolver. An IPv6 address that embeds an IPv4 address must be allowed as both.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

HOST_ACCESS_ADDRESS = "10.0.2.4"
"""With host access: what guests of the usual network dial to reach the relay host's own loopback."""

LOOPBACK_ADDRESS = "127.0.0.1"

_MAPPED = 96
"""Bits of a mapped address before that of IPv4 (RFC 4291, 2.5.5.2)."""

OWN_ADDRESS = "own_address"
"""Reason of a refusal: the address is one of the relay host's."""

IPV6_INTERNET = IPv6Network("2000::/3")
SOMEWHERE_IPV6 = "2606:4700:4700::1111"
"""An address of the IPv6 internet; nothing is sent there."""

CACHED_DECISIONS = 4096
"""Addresses remembered, since policy is asked once per datagram; about 1 MB."""

DEFAULT_DENY: tuple[Network, ...] = tuple(
    ip_network(cidr)
    for cidr in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private, and the guests' own LAN
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "168.63.129.16/32",  # cloud metadata at a public address
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
"""Denied unless allowed by name. The standard library's ``is_global`` passes several of these."""

NAMED_ONLY: tuple[Network, ...] = tuple(
    ip_network(cidr)
    for cidr in (
        "0.0.0.0/8",  # Linux connects 0.0.0.0 to itself
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local
        "224.0.0.0/4",  # multicast comes back to the services of its sender's host
        "255.255.255.255/32",
        "169.254.169.254/32",  # metadata: most clouds
        "169.254.170.2/32",  # metadata: tasks of Amazon ECS
        "169.254.170.23/32",  # metadata: pods of Amazon EKS
        "100.100.100.200/32",  # metadata: Alibaba
        "168.63.129.16/32",  # metadata: Azure
        "192.0.0.192/32",  # metadata: Oracle
        "::/128",
        "::1/128",
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        "fd00:ec2::254/128",  # metadata: Amazon
        "fd00:ec2::23/128",  # metadata: pods of Amazon EKS
        "fd20:ce::254/128",  # metadata: Google
    )
)
"""A network of ``allow`` opens what is in one of these only if it lies inside that one itself: ``0.0.0.0/0``
does not mean the relay's loopback, ``127.0.0.0/8`` does."""

SMTP_PORT = 25
"""Mail between servers. Submission by users (465, 587) asks who they are."""


class Decision(NamedTuple):
    """Answer for one address. ``dial`` is what to connect to; empty when not allowed.

    ``reason`` is ``allowed``, or of a fixed set that becomes part of a counter's name.
    """

    allowed: bool
    reason: str
    dial: str = ""


_NOT_AN_ADDRESS = Decision(allowed=False, reason="not_an_address")
_DENIED_BY_RULE = Decision(allowed=False, reason="denied_by_rule")
_OWN_ADDRESS = Decision(allowed=False, reason=OWN_ADDRESS)
_DENIED_BY_DEFAULT = Decision(allowed=False, reason="denied_by_default")


class _Networks:
    """Networks of one IP version, matched with integers."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._ranges = [
            (network.version, int(network.network_address), int(network.broadcast_address))
            for network in networks
        ]

    def __contains__(self, address: Address) -> bool:
        number, version = int(address), address.version
        return any(v == version and low <= number <= high for v, low, high in self._ranges)


class _Allowed:
    """The networks of ``allow``, of which wide ones do not open what has to be named."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._all = _Networks(self._networks)
        narrowest_first = sorted(NAMED_ONLY, key=lambda network: network.num_addresses)
        self._named = [
            (named, _Networks(network for network in self._networks if _is_inside(network, named)))
            for named in narrowest_first
        ]

    def __contains__(self, address: Address) -> bool:
        if address not in self._all:
            return False
        for named, inside in self._named:
            if address in named:
                return address in inside
        return True


def _is_inside(inner: Network, outer: Network) -> bool:
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def of_ipv4(network: Network) -> Network:
    """Give the network of IPv4 that one of IPv6 is in its guise (RFC 4291, 2.5.5.2); any other as it is."""
    inner = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if inner is None or network.prefixlen < _MAPPED:
        return network
    return IPv4Network((inner, network.prefixlen - _MAPPED))


def parse_network(text: str) -> Network:
    """Read a network such as ``192.0.2.0/24``, or an address. Raises ValueError.

    A part of IPv4 in the guise of IPv6 is that part of IPv4: where guests send IPv4, a network of IPv6 would
    match nothing. All of it, ``::ffff:0:0/96``, stays what it is: lists of what is in no routing table have
    it, and do not mean all of IPv4.
    """
    network = ip_network(text)
    return network if network.prefixlen == _MAPPED else of_ipv4(network)


def parse_cidrs(texts: Iterable[str]) -> list[Network]:
    """Read networks such as ``192.0.2.0/24``. Raises ValueError that names the first that is none."""
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(parse_network(text.strip()))
        except ValueError as error:
            raise ValueError(f"{text!r} is not a network in CIDR notation: {error}") from None
    return networks


class EgressPolicy:
    """Decides about addresses; the same answer for UDP, ICMP and TCP."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        *,
        host_access: bool = False,
        host_address: str = HOST_ACCESS_ADDRESS,
        allow_smtp: bool = False,
    ) -> None:
        """Take CIDR texts; raises ValueError for what is none. ``host_address`` is of the guests' LAN.

        ``allow`` overrides the default table; for what it takes in :data:`NAMED_ONLY` see there. A network in
        it does not open the relay host's own addresses inside it: for these the address itself must be
        allowed (/32 or /128). ``deny`` overrides all. Without ``allow_smtp`` no TCP connection to port 25 is.
        """
        allowed = parse_cidrs(allow)
        self._allow = _Allowed(allowed)
        self._allow_hosts = frozenset(
            str(network.network_address) for network in allowed if network.prefixlen == network.max_prefixlen
        )
        denied = parse_cidrs(deny)
        open_ipv6 = {IPV6_INTERNET: SOMEWHERE_IPV6} | {
            network: str(network.network_address + (network.num_addresses > 1))
            for network in allowed
            if network.version == 6 and not network.is_loopback and network.prefixlen > 0  # noqa: PLR2004
        }
        self.open_ipv6 = tuple(
            address
            for network, address in open_ipv6.items()
            if not any(_is_inside(network, closed) for closed in denied)
        )
        """An address of the IPv6 internet, and of each allowed network, by which one sees whether there is a
        route; of what ``deny`` closes as a whole none."""
        self._deny = _Networks(denied)
        self._default = _Networks(DEFAULT_DENY)
        self._host_address = host_address if host_access else None
        self._allow_smtp = allow_smtp
        self._own: frozenset[str] = frozenset()
        self._own_networks = _Networks(())
        self.decide: Callable[[str | bytes], Decision] = lru_cache(maxsize=CACHED_DECISIONS)(self._decide)
        """Decide about an address as the guest named it: canonical text, or 4 or 16 bytes. Never raises."""

    @property
    def own_addresses(self) -> frozenset[str]:
        """What the relay's host takes for its own: addresses, and networks in CIDR notation, canonical text.

        Loopback is left to the tables.
        """
        return self._own

    @own_addresses.setter
    def own_addresses(self, addresses: Iterable[str]) -> None:
        networks = [network for network in map(ip_network, addresses) if not network.is_loopback]
        wide = [network for network in networks if network.num_addresses > 1]
        own = frozenset(
            str(network if network.num_addresses > 1 else network.network_address) for network in networks
        )
        if own != self._own:
            self._own, self._own_networks = own, _Networks(wide)
            self.decide.cache_clear()  # type: ignore[attr-defined]

    def may_connect(self, port: int) -> bool:
        """Whether TCP connections to this port of an allowed address are allowed."""
        return port != SMTP_PORT or self._allow_smtp

    def shown(self, address: str) -> str:
        """Tell under which address a guest knows the host that answered from ``address``."""
        if self._host_address is not None and address == LOOPBACK_ADDRESS:
            return self._host_address
        return address

    def _decide(self, address: str | bytes) -> Decision:
        try:
            binary = ip_address(address)
        except ValueError:
            return _NOT_AN_ADDRESS
        if binary.version == 6 and binary.scope_id is not None:  # noqa: PLR2004
            return _NOT_AN_ADDRESS
        if str(binary) == self._host_address:
            return self._decide_host_access(binary)
        for target in (binary, *_embedded(binary)):
            refusal = self._refusal(target)
            if refusal is not None:
                return refusal
        return Decision(allowed=True, reason="allowed", dial=str(binary))

    def _decide_host_access(self, address: Address) -> Decision:
        if address in self._deny or ip_address(LOOPBACK_ADDRESS) in self._deny:
            return _DENIED_BY_RULE
        return Decision(allowed=True, reason="allowed", dial=LOOPBACK_ADDRESS)

    def _refusal(self, address: Address) -> Decision | None:
        if address in self._deny:
            return _DENIED_BY_RULE
        text = str(address)
        if (text in self._own or address in self._own_networks) and text not in self._allow_hosts:
            return _OWN_ADDRESS
        if address in self._default and address not in self._allow:
            return _DENIED_BY_DEFAULT
        return None


_LAST_32_BITS = tuple(
    IPv6Network(cidr)
    for cidr in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
_LOOPBACK_IPV6 = 1
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_LOW_32 = 0xFFFF_FFFF


def _embedded(address: Address) -> list[IPv4Address]:
    """List the IPv4 addresses that packets to ``address`` may end up at.

    Mapped, compatible and translated (RFC 4291, RFC 7915), NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo
    (RFC 4380: server and client) and ISATAP (RFC 5214).
    """
    number = int(address)
    if address.version == 4 or number <= _LOOPBACK_IPV6:  # noqa: PLR2004
        return []
    found: list[int] = []
    if any(address in network for network in _LAST_32_BITS) or (number >> 32) & _LOW_32 in _ISATAP:
        found.append(number & _LOW_32)
    if number >> 112 == 0x2002:  # noqa: PLR2004 - the 6to4 prefix
        found.append((number >> 80) & _LOW_32)
    if number >> 96 == 0x2001_0000:  # noqa: PLR2004 - the Teredo prefix
        found += [(number >> 64) & _LOW_32, ~number & _LOW_32]
    return [IPv4Address(value) for value in found]

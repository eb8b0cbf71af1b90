"""Answers that never leave the LAN: its own names, their reverse, and names that mean nothing outside.

Local answers come with short TTLs, since guests come and go. Whatever is under the LAN's domain or in a
private reverse zone (RFC 6303) is answered here, if only with "no such name".
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from netstack.dns_messages import Query
    from netstack.dns_zone import Zone

LOCAL_TTL = 10
"""Seconds for a guest's address: it may be another's after its session."""

NEGATIVE_TTL = 5
"""Seconds for a name that is not there: its guest may just be booting."""


def _private_reverse_zones() -> Iterator[str]:
    yield from (f"{net}.in-addr.arpa." for net in ("0", "10", "127", "254.169", "168.192", "2.0.192"))
    yield from (f"{net}.in-addr.arpa." for net in ("100.51.198", "113.0.203", "255.255.255.255"))
    yield from (f"{number}.172.in-addr.arpa." for number in range(16, 32))
    yield from (f"{number}.100.in-addr.arpa." for number in range(64, 128))
    yield from (f"{nibbles}.ip6.arpa." for nibbles in ("d.f", "c.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f"))
    yield "8.b.d.0.1.0.0.2.ip6.arpa."
    yield "0." * 31 + "ip6.arpa."  # the unspecified address and loopback


PRIVATE_REVERSE = frozenset(map(dns.name.from_text, _private_reverse_zones()))
"""Private, loopback, link-local, shared and documentation addresses, backwards."""

_REVERSE_LABELS = frozenset(zone.labels for zone in PRIVATE_REVERSE)
_DEEPEST_REVERSE = max(map(len, _REVERSE_LABELS))
"""Labels that are looked at: names of 127 would cost milliseconds."""

_LOCALHOST = dns.name.from_text("localhost.")
_NOT_ASKED = {
    dns.name.from_text(f"{zone}."): code
    for zone, code in {
        "invalid": dns.rcode.NXDOMAIN,  # RFC 6761 section 6.4
        "test": dns.rcode.NXDOMAIN,  # RFC 6761 section 6.2
        "local": dns.rcode.NXDOMAIN,  # multicast DNS: RFC 6762 section 22.1
        "onion": dns.rcode.NXDOMAIN,  # Tor: RFC 7686 section 2
        "home.arpa": dns.rcode.NXDOMAIN,  # a home's own: RFC 8375 section 4
        "resolver.arpa": dns.rcode.NOERROR,  # no encrypted resolver to tell of: RFC 9462 section 6.4
    }.items()
}
"""Special-use names that are never asked upstream, and what is said of names below them."""
_LOOPBACK = {dns.rdatatype.A: ["127.0.0.1"], dns.rdatatype.AAAA: ["::1"]}
_ADDRESS_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_IN_ADDR = dns.name.from_text("in-addr.arpa.")
_IP6 = dns.name.from_text("ip6.arpa.")
_ONE_LABEL = 2
"""Labels of a name such as ``gateway.``: the root counts."""


def parse_domain(text: str) -> dns.name.Name:
    """Read a domain such as ``vm.internal``, in lower case. Raises ValueError when it is none."""
    try:
        return dns.name.from_text(text).canonicalize()
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{text!r} is not a domain: {error}") from None


def _is_part_of_address(name: dns.name.Name) -> bool:
    """Whether this is a reverse name that is too short for an address, such as ``0.10.in-addr.arpa``."""
    labels = [label.decode("latin-1") for label in name.labels[:-3]]
    if name.is_subdomain(_IN_ADDR):
        return len(labels) < 4 and all(re.fullmatch("[0-9]{1,3}", label) for label in labels)  # noqa: PLR2004
    return len(labels) < 32 and all(re.fullmatch("[0-9a-f]", label) for label in labels)  # noqa: PLR2004


def _reversed_address(name: dns.name.Name) -> IPv4Address | IPv6Address | None:
    """Give the address whose reverse name this is, if any."""
    if not (name.is_subdomain(_IN_ADDR) or name.is_subdomain(_IP6)):
        return None
    try:
        return ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None


class LocalNames:
    """Answers from the zone of one LAN."""

    def __init__(
        self,
        domain: str,
        zone: Zone,
        outside: Iterable[str] = (),
        networks: Iterable[IPv4Network | IPv6Network] = (),
    ) -> None:
        """Serve ``domain``, such as ``vm.internal``. Raises ValueError when it is no name.

        Names under those of ``outside`` are asked upstream although they are special or private. Names of
        addresses in ``networks``, the LAN's own, never are.
        """
        self._domain = parse_domain(domain)
        own = (self._domain, _LOCALHOST)
        self._own_suffixes = tuple(b"." + b".".join(zone.labels[:-1]) for zone in own)
        self._zone = zone
        self._outside = tuple(map(parse_domain, outside))
        self._networks = tuple(networks)

    def is_trusted(self, name: dns.name.Name) -> bool:
        """Whether the operator wants ``name`` asked upstream and answered with whatever address it has."""
        return any(name.is_subdomain(domain) for domain in self._outside)

    def is_ours(self, name: bytes) -> bool:
        """Whether a name, as in a message and without pointers, is one of the LAN's or of the guest itself.

        It is compared as clients compare it that do not escape dots in labels, or stop at a zero byte.
        """
        labels, at = [], 0
        while name[at]:
            end = at + 1 + name[at]
            labels.append(name[at + 1 : end])
            at = end
        text = b"." + b".".join(labels).lower().partition(b"\0")[0]
        return text.endswith(self._own_suffixes)

    def answer(self, query: Query) -> dns.message.Message | None:
        """Answer a question about local names; None for those that are to be asked outside."""
        name = query.question.name
        if name.is_subdomain(self._domain):
            return self._forward(query, name.relativize(self._domain))
        if name.is_subdomain(_LOCALHOST):
            return self._records(query, _LOOPBACK, name)
        address = _reversed_address(name)
        if address is not None and any(address in network for network in self._networks):
            return self._reverse(query, name.parent())
        if self.is_trusted(name):
            return None
        for zone, code in _NOT_ASKED.items():
            if name.is_subdomain(zone):
                return self._nothing(query, dns.rcode.NOERROR if name == zone else code, zone)
        if len(name) == _ONE_LABEL and self._addresses_of(name.relativize(dns.name.root)):
            return self._forward(query, name.relativize(dns.name.root))
        labels = tuple(label.lower() for label in name.labels[-_DEEPEST_REVERSE:])
        for depth in range(2, len(labels) + 1):
            if labels[-depth:] in _REVERSE_LABELS:
                return self._reverse(query, name.split(depth)[1])
        return None

    def _addresses_of(self, relative: dns.name.Name) -> tuple[bytes, ...]:
        if len(relative) != 1:
            return ()
        return self._zone.addresses_of(relative.labels[0].decode("ascii", "replace"))

    def _forward(self, query: Query, relative: dns.name.Name) -> dns.message.Message:
        if relative == dns.name.empty:
            return self._records(query, {dns.rdatatype.SOA: [self._soa_text()]}, self._domain)
        records: dict[dns.rdatatype.RdataType, list[str]] = {}
        for address in map(ip_address, self._addresses_of(relative)):
            records.setdefault(_ADDRESS_TYPES[address.version], []).append(str(address))
        if not records:
            return self._nothing(query, dns.rcode.NXDOMAIN)
        return self._records(query, records, query.question.name)

    def _reverse(self, query: Query, zone: dns.name.Name) -> dns.message.Message:
        name = query.question.name
        address = _reversed_address(name)
        if address is None:
            # Between the zone and the names in it: to say NXDOMAIN would deny these too (RFC 8020).
            partial = _is_part_of_address(name)
            return self._nothing(query, dns.rcode.NOERROR if partial else dns.rcode.NXDOMAIN, zone)
        label = self._zone.name_of(address.packed)
        if label is None:
            return self._nothing(query, dns.rcode.NXDOMAIN, zone)
        target = dns.name.Name([label.encode()]).concatenate(self._domain)
        return self._records(query, {dns.rdatatype.PTR: [target.to_text()]}, query.question.name)

    def _records(
        self,
        query: Query,
        records: Mapping[dns.rdatatype.RdataType, Sequence[str]],
        name: dns.name.Name,
    ) -> dns.message.Message:
        kind = query.question.kind
        wanted = records if kind == dns.rdatatype.ANY else {kind: records[kind]} if kind in records else {}
        if not wanted:
            return self._nothing(query, dns.rcode.NOERROR)
        response = query.skeleton()
        response.flags |= dns.flags.AA
        response.answer = [
            dns.rrset.from_text(name, LOCAL_TTL, dns.rdataclass.IN, kind, *texts)
            for kind, texts in wanted.items()
        ]
        return response

    def _nothing(
        self, query: Query, code: dns.rcode.Rcode, zone: dns.name.Name | None = None
    ) -> dns.message.Message:
        """Say so, with the SOA record that lets resolvers remember it for a moment (RFC 2308 section 3).

        The record is that of ``zone``, or of the nearest zone that holds the name.
        """
        if zone is None:
            name = query.question.name
            zone = self._domain if name.is_subdomain(self._domain) else name
        response = query.skeleton()
        response.flags |= dns.flags.AA
        response.set_rcode(code)
        response.authority = [
            dns.rrset.from_text(zone, NEGATIVE_TTL, dns.rdataclass.IN, dns.rdatatype.SOA, self._soa_text())
        ]
        return response

    def _soa_text(self) -> str:
        domain = self._domain.to_text()
        return f"gateway.{domain} hostmaster.{domain} 1 3600 600 86400 {NEGATIVE_TTL}"

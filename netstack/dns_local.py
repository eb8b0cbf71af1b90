"""Answers that never leave the LAN: its own names, their reverse, and names that mean nothing outside.

Local answers come with short TTLs, since guests come and go. Whatever is under the LAN's domain or in a
private reverse zone (RFC 6303) is answered here, if only with "no such name".
"""

from __future__ import annotations

from ipaddress import IPv4Address
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
    from collections.abc import Iterator

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

_LOCALHOST = dns.name.from_text("localhost.")
_INVALID = dns.name.from_text("invalid.")
_LOOPBACK = {dns.rdatatype.A: "127.0.0.1", dns.rdatatype.AAAA: "::1"}
_ONE_LABEL = 2
"""Labels of a name such as ``gateway.``: the root counts."""


class LocalNames:
    """Answers from the zone of one LAN."""

    def __init__(self, domain: str, zone: Zone) -> None:
        """Serve ``domain``, such as ``vm.internal``. Raises ValueError when it is no name."""
        try:
            self._domain = dns.name.from_text(domain).canonicalize()
        except dns.exception.DNSException as error:
            raise ValueError(f"{domain!r} is not a domain: {error}") from None
        self._zone = zone

    def answer(self, query: Query) -> dns.message.Message | None:
        """Answer a question about local names; None for those that are to be asked outside."""
        name = query.question.name
        if name.is_subdomain(self._domain):
            return self._forward(query, name.relativize(self._domain))
        if name.is_subdomain(_LOCALHOST):
            return self._records(query, _LOOPBACK, name)
        if name.is_subdomain(_INVALID):
            return self._nothing(query, dns.rcode.NXDOMAIN)
        if len(name) == _ONE_LABEL and self._address_of(name.relativize(dns.name.root)) is not None:
            return self._forward(query, name.relativize(dns.name.root))
        if any(name.split(depth)[1] in PRIVATE_REVERSE for depth in range(2, len(name) + 1)):
            return self._reverse(query)
        return None

    def _address_of(self, relative: dns.name.Name) -> bytes | None:
        if len(relative) != 1:
            return None
        return self._zone.address_of(relative.labels[0].decode("ascii", "replace"))

    def _forward(self, query: Query, relative: dns.name.Name) -> dns.message.Message:
        if relative == dns.name.empty:
            return self._records(query, {dns.rdatatype.SOA: self._soa_text()}, self._domain)
        address = self._address_of(relative)
        if address is None:
            return self._nothing(query, dns.rcode.NXDOMAIN)
        return self._records(query, {dns.rdatatype.A: str(IPv4Address(address))}, query.question.name)

    def _reverse(self, query: Query) -> dns.message.Message:
        try:
            address = IPv4Address(dns.reversename.to_address(query.question.name)).packed
        except (dns.exception.DNSException, ValueError):
            return self._nothing(query, dns.rcode.NXDOMAIN)
        label = self._zone.name_of(address)
        if label is None:
            return self._nothing(query, dns.rcode.NXDOMAIN)
        target = dns.name.Name([label.encode()]).concatenate(self._domain)
        return self._records(query, {dns.rdatatype.PTR: target.to_text()}, query.question.name)

    def _records(
        self, query: Query, records: dict[dns.rdatatype.RdataType, str], name: dns.name.Name
    ) -> dns.message.Message:
        kind = query.question.kind
        wanted = records if kind == dns.rdatatype.ANY else {kind: records[kind]} if kind in records else {}
        if not wanted:
            return self._nothing(query, dns.rcode.NOERROR)
        response = query.skeleton()
        response.flags |= dns.flags.AA
        response.answer = [
            dns.rrset.from_text(name, LOCAL_TTL, dns.rdataclass.IN, kind, text)
            for kind, text in wanted.items()
        ]
        return response

    def _nothing(self, query: Query, code: dns.rcode.Rcode) -> dns.message.Message:
        """Say so, with the SOA record that lets resolvers remember it for a moment (RFC 2308 section 3)."""
        response = query.skeleton()
        response.flags |= dns.flags.AA
        response.set_rcode(code)
        response.authority = [
            dns.rrset.from_text(
                self._domain, NEGATIVE_TTL, dns.rdataclass.IN, dns.rdatatype.SOA, self._soa_text()
            )
        ]
        return response

    def _soa_text(self) -> str:
        domain = self._domain.to_text()
        return f"gateway.{domain} hostmaster.{domain} 1 3600 600 86400 {NEGATIVE_TTL}"

"""Questions of our own for a name's addresses, and what an answer says (RFC 1035, RFC 3596)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

if TYPE_CHECKING:
    from typing import Literal


class Found(NamedTuple):
    """What a name server answered."""

    code: str
    """``NOERROR``, ``NXDOMAIN``, ``SERVFAIL`` and so on (RFC 6895 section 2.3)."""
    addresses: tuple[str, ...]


def address_query(name: str, kind: Literal["A", "AAAA"]) -> bytes:
    """Build the query for a name's addresses of one kind. Raises ValueError for what is no name."""
    try:
        return dns.message.make_query(name, kind).to_wire()
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"no host name: {' '.join(str(error).split())}") from None


def read_addresses(response: bytes) -> Found:
    """Read a response's addresses, whatever aliases lead to them. Raises ValueError for a malformed one."""
    try:
        message = dns.message.from_wire(response, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"a malformed answer: {error}") from None
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    addresses = tuple(
        str(record.address) for records in message.answer if records.rdtype in kinds for record in records
    )
    return Found(dns.rcode.to_text(message.rcode()), addresses)

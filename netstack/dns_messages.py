"""DNS messages (RFC 1035, EDNS of RFC 6891) as a forwarder needs them: questions read, answers adapted.

dnspython does the parsing and rendering. A guest's header bits and EDNS options never travel on: towards a
name server each question is built anew, and so is each response to a guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.svcbbase import ParamKey, SVCBBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dns.rdata import Rdata
    from dns.rrset import RRset

HEADER_LENGTH = 12

MAX_UDP_SIZE = 1232
"""Bytes of a response over UDP, asked for and given: a packet of 1280 takes it on every path."""

MIN_UDP_SIZE = 512
"""What a client without EDNS takes (RFC 1035 section 4.2.1)."""

SMALLEST_SIZE = 300
"""Bytes that a response has at least: header, the longest question and an OPT record."""

MAX_QUERY = 4096
"""Bytes of a query: a name has 255 at most, and EDNS options are small."""

MAX_ADDITIONAL = 2
"""Records of a query beside its question: OPT and a signature (RFC 8945)."""

MAX_RECORDS = 400
"""Records of a name server's response: more would keep all guests waiting while they are parsed."""

MAX_NEGATIVE_LIFETIME = 3600
"""Seconds for "there is no such name" (RFC 2308 section 5 suggests one to three hours)."""

_ZONE_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})
_OPCODE_MASK = 0x78
_RESPONSE_BIT = 0x80
_ONE_QUESTION = b"\0\1\0\0\0\0"
"""Counts of questions, answers and authority records."""


class Question(NamedTuple):
    """What is asked, as it is sent on and cached: the name in lower case, the bits that change answers."""

    name: dns.name.Name
    kind: dns.rdatatype.RdataType
    dnssec_ok: bool
    checking_disabled: bool

    def to_wire(self) -> bytes:
        """Build the query for a name server; its id is 0, to be replaced."""
        query = dns.message.make_query(
            self.name, self.kind, use_edns=0, payload=MAX_UDP_SIZE, want_dnssec=self.dnssec_ok, id=0
        )
        if self.checking_disabled:
            query.flags |= dns.flags.CD
        return query.to_wire()


class Query(NamedTuple):
    """A guest's query; ``max_size`` is what it takes over UDP."""

    message: dns.message.Message
    question: Question
    max_size: int

    def refuse(self, code: dns.rcode.Rcode) -> bytes:
        """Build a response without records."""
        response = self.skeleton()
        response.set_rcode(code)
        return response.to_wire()

    def skeleton(self) -> dns.message.Message:
        """Begin a response."""
        return dns.message.make_response(self.message, recursion_available=True, our_payload=MAX_UDP_SIZE)

    def render(self, response: dns.message.Message, *, over_stream: bool, limit: int = 65_535) -> bytes:
        """Write a response; over UDP it is cut to what the guest and its link take, and says so (TC)."""
        size = 65_535 if over_stream else max(SMALLEST_SIZE, min(self.max_size, limit))
        return response.to_wire(max_size=size, prefer_truncation=True)


def parse_query(wire: bytes) -> Query | bytes | None:
    """Read a guest's query: a Query, or the response that says what is wrong with it, or None for silence."""
    if len(wire) < HEADER_LENGTH or wire[2] & _RESPONSE_BIT:
        return None
    if wire[2] & _OPCODE_MASK:
        return _bare_response(wire, dns.rcode.NOTIMP)
    # Before parsing, which costs 7 us for each record.
    if len(wire) > MAX_QUERY or wire[4:10] != _ONE_QUESTION or _count(wire, 10) > MAX_ADDITIONAL:
        return _bare_response(wire, dns.rcode.FORMERR)
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return _bare_response(wire, dns.rcode.FORMERR)
    asked = message.question[0]
    question = Question(
        asked.name.canonicalize(),
        asked.rdtype,
        bool(message.ednsflags & dns.flags.DO),
        bool(message.flags & dns.flags.CD),
    )
    # Only what comes by EDNS may be larger than 512 bytes (RFC 6891 section 6.2.5).
    size = min(max(MIN_UDP_SIZE, message.payload), MAX_UDP_SIZE) if message.edns >= 0 else MIN_UDP_SIZE
    query = Query(message, question, size)
    if message.edns > 0:
        return query.refuse(dns.rcode.BADVERS)
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _ZONE_TRANSFERS:
        return query.refuse(dns.rcode.REFUSED)
    return query


def _count(wire: bytes, at: int) -> int:
    return int.from_bytes(wire[at : at + 2], "big")


def _bare_response(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """Answer what could not be read: the id, opcode and RD bit of the query, and nothing else."""
    return wire[:2] + bytes((_RESPONSE_BIT | wire[2] & 0x79, 0x80 | code)) + bytes(8)


def parse_answer(wire: bytes, question: Question) -> dns.message.Message | None:
    """Read a name server's response; None when it is not one to ``question``, or cannot be read.

    A record that cannot be read is left out, since addresses could hide in it; the others remain.
    """
    if sum(_count(wire, at) for at in (6, 8, 10)) > MAX_RECORDS:
        return None
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, continue_on_error=True)
    except (dns.exception.DNSException, ValueError):
        return None
    if not message.flags & dns.flags.QR or len(message.question) != 1:
        return None
    asked = message.question[0]
    if (asked.name, asked.rdtype, asked.rdclass) != (question.name, question.kind, dns.rdataclass.IN):
        return None
    return message


def lifetime(answer: dns.message.Message, question: Question) -> int:
    """Seconds for which an answer may be cached; 0 when it may not.

    A negative answer lives by its SOA record (RFC 2308 section 5); without one it is not cached.
    """
    if answer.errors:
        return 0
    if question.dnssec_ok and answer.edns < 0:
        # From a server that was asked without EDNS: the signatures are missing (RFC 3225 section 3).
        return 0
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or answer.flags & dns.flags.TC:
        return 0
    ttls = [rrset.ttl for rrset in answer.answer]
    found = any(rrset.rdtype == question.kind for rrset in answer.answer)
    if answer.rcode() == dns.rcode.NXDOMAIN or not (
        found or (question.kind == dns.rdatatype.ANY and answer.answer)
    ):
        soa = next((rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA), None)
        if soa is None:
            return 0
        ttls += [soa.ttl, soa[0].minimum, MAX_NEGATIVE_LIFETIME]
    return min(ttls)


def strip_addresses(answer: dns.message.Message, may_show: Callable[[str], bool]) -> int:
    """Remove records with addresses that ``may_show`` refuses; return how many.

    That keeps a public name from being pointed at private addresses (rebinding). Service bindings
    (RFC 9460) are removed whole when one of their address hints is refused.
    """
    removed = 0
    for section in (answer.answer, answer.additional):
        for rrset in list(section):
            refused = [rdata for rdata in rrset if not all(map(may_show, _addresses_of(rdata)))]
            if not refused:
                continue
            removed += len(refused)
            for rdata in refused:
                rrset.remove(rdata)  # type: ignore[no-untyped-call]
            if not rrset:
                section.remove(rrset)
    return removed


def _addresses_of(rdata: Rdata) -> Iterable[str]:
    if isinstance(rdata, A | AAAA):
        return (rdata.address,)
    if isinstance(rdata, SVCBBase):
        hints = (rdata.params.get(key) for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT))
        return [address for hint in hints if hint is not None for address in hint.addresses]
    return ()


def fill(response: dns.message.Message, answer: dns.message.Message, age: int) -> None:
    """Copy an answer that is ``age`` seconds old into a response; its TTLs get lower by that."""
    response.set_rcode(answer.rcode())
    response.answer = _aged(answer.answer, age)
    response.authority = _aged(answer.authority, age)
    response.additional = _aged(answer.additional, age)


def _aged(rrsets: list[RRset], age: int) -> list[RRset]:
    if age == 0:
        return rrsets
    aged = []
    for rrset in rrsets:
        copy = rrset.copy()  # type: ignore[no-untyped-call]
        copy.ttl = max(0, rrset.ttl - age)
        aged.append(copy)
    return aged

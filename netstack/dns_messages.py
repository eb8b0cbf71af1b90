"""Queries of guests (RFC 1035, EDNS of RFC 6891), and the responses that are made here.

dnspython does the parsing, and renders what has records: queries are small. What has none is written here:
dnspython takes 2 ms for a name of 126 labels. A guest's EDNS options and most of its header never travel on;
towards a name server each question is built anew. What comes from there is for ``netstack.dns_answers``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from netstack.dns_wire import HEADER_LENGTH, skip_name

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

MAX_OPTIONS = 16
"""EDNS options of a query; clients send some two or three. Each costs 6 us to parse, and 4 KB hold 1,000."""

_ZONE_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})
_OPCODE_MASK = 0x78
_RESPONSE_BIT = 0x80
_ONE_QUESTION = b"\0\1\0\0\0\0"
"""Counts of questions, answers and authority records."""
_KEPT_BITS = 0x79
"""Opcode and RD, in the third byte of the header: a response has those of its query."""
_HEADER = struct.Struct("!6H")
_KIND_AND_CLASS = struct.Struct("!HH")
_OPTION = struct.Struct("!HHBBHH")
"""Type, size for UDP, upper bits of the code, version, flags, length of the options."""
_DNSSEC_OK = 0x8000
_BEFORE_DATA = 10
"""Bytes of a record between its name and its data."""


class Question(NamedTuple):
    """What is asked, as it is sent on and cached: the name in lower case, the bits that change answers."""

    name: dns.name.Name
    kind: dns.rdatatype.RdataType
    dnssec_ok: bool
    checking_disabled: bool

    @property
    def wire(self) -> bytes:
        """The question as it stands in a message."""
        return name_to_wire(self.name) + _KIND_AND_CLASS.pack(self.kind, dns.rdataclass.IN)

    def to_wire(self) -> bytes:
        """Build the query for a name server; its id is 0, to be replaced.

        AD asks for the same bit of the response, for guests that want it (RFC 6840 section 5.7).
        """
        flags = dns.flags.RD | dns.flags.AD | (dns.flags.CD if self.checking_disabled else 0)
        header = _HEADER.pack(0, flags, 1, 0, 0, 1)
        return header + self.wire + _option(0, dnssec_ok=self.dnssec_ok)


class Query(NamedTuple):
    """A guest's query, read and as it came; ``max_size`` is what it takes over UDP."""

    message: dns.message.Message
    question: Question
    max_size: int
    wire: bytes

    @property
    def wants_authentic(self) -> bool:
        """Whether the guest understands AD (RFC 6840 section 5.7)."""
        return self.question.dnssec_ok or bool(self.message.flags & dns.flags.AD)

    def spelling(self) -> bytes:
        """Give the name as the guest wrote it."""
        return name_to_wire(self.message.question[0].name)

    def option(self) -> bytes:
        """Build the OPT record of a response; empty for a guest that sent none (RFC 6891 section 7)."""
        return b"" if self.message.edns < 0 else _option(0, dnssec_ok=self.question.dnssec_ok)

    def size(self, *, over_stream: bool, limit: int = 65_535) -> int:
        """Bytes of a response that the guest and its link take."""
        return 65_535 if over_stream else max(SMALLEST_SIZE, min(self.max_size, limit))

    def refuse(self, code: dns.rcode.Rcode) -> bytes:
        """Build a response without records."""
        wire, asked = self.wire, self.message.question[0]
        has_option = self.message.edns >= 0
        flags = (
            (_RESPONSE_BIT | wire[2] & _KEPT_BITS) << 8 | dns.flags.RA | wire[3] & dns.flags.CD | code & 0x0F
        )
        header = _HEADER.pack(_count(wire, 0), flags, 1, 0, 0, has_option)
        question = self.spelling() + _KIND_AND_CLASS.pack(asked.rdtype, asked.rdclass)
        option = _option(code >> 4, dnssec_ok=self.question.dnssec_ok) if has_option else b""
        return header + question + option

    def skeleton(self) -> dns.message.Message:
        """Begin a response, with CD and DO as in the query (RFC 4035 section 3.2.2, RFC 3225 section 3)."""
        response = dns.message.make_response(self.message, recursion_available=True, our_payload=MAX_UDP_SIZE)
        response.flags |= self.message.flags & dns.flags.CD
        if self.question.dnssec_ok:
            response.want_dnssec()
        return response

    def render(self, response: dns.message.Message, *, over_stream: bool, limit: int = 65_535) -> bytes:
        """Write a response; over UDP it is cut to what the guest and its link take, and says so (TC)."""
        size = self.size(over_stream=over_stream, limit=limit)
        return response.to_wire(max_size=size, prefer_truncation=True, want_shuffle=False)


def _option(code: int, *, dnssec_ok: bool) -> bytes:
    """Build an OPT record; ``code`` has the upper bits of a response's code (RFC 6891, section 6.1.3)."""
    flags = _DNSSEC_OK if dnssec_ok else 0
    return b"\0" + _OPTION.pack(dns.rdatatype.OPT, MAX_UDP_SIZE, code, 0, flags, 0)


def name_to_wire(name: dns.name.Name) -> bytes:
    """Write a name with all its labels."""
    return b"".join(bytes((len(label),)) + label for label in name.labels)


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
        if _options(wire) > MAX_OPTIONS:
            return _bare_response(wire, dns.rcode.FORMERR)
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, IndexError):
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
    query = Query(message, question, size, wire)
    if message.edns > 0:
        return query.refuse(dns.rcode.BADVERS)
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _ZONE_TRANSFERS:
        return query.refuse(dns.rcode.REFUSED)
    return query


def _count(wire: bytes, at: int) -> int:
    return int.from_bytes(wire[at : at + 2], "big")


def _options(wire: bytes) -> int:
    """Count the EDNS options of a query, as far as one too many.

    Raises IndexError or ValueError where it is cut or malformed.
    """
    count = 0
    at = skip_name(wire, HEADER_LENGTH) + _KIND_AND_CLASS.size
    for _ in range(_count(wire, 10)):
        at = skip_name(wire, at)
        kind, data, end = _count(wire, at), at + _BEFORE_DATA, at + _BEFORE_DATA + _count(wire, at + 8)
        while kind == dns.rdatatype.OPT and data < min(end, len(wire)) and count <= MAX_OPTIONS:
            count += 1
            data += 4 + _count(wire, data + 2)
        at = end
    return count


def _bare_response(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """Answer what could not be read: the id, opcode, RD and CD bits of the query, and nothing else."""
    return wire[:2] + bytes((_RESPONSE_BIT | wire[2] & _KEPT_BITS, 0x80 | wire[3] & 0x10 | code)) + bytes(8)

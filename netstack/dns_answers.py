"""Answers of name servers, from their acceptance to what each guest is sent.

An answer is made harmless once, when it comes: what belongs to one hop (OPT, TSIG) is taken off, and records
with addresses that guests may not reach are taken out, which keeps a public name from being pointed at
private ones (rebinding). So are records that lead to the LAN by its names: those that name a host of it as
their target (CNAME, HTTPS, SRV, MX, PTR and the like, and names of one label, which the gateway takes for
guests' too), and those that pretend to be of such a name. All other records stay as they are, byte for byte,
of whatever kind and however odd (RFC 3597). So it is cached. For each guest the id, the flags, the spelling
of the question and the TTLs are written over it, and OPT is put back for who sent one.

Addresses are in A and AAAA records and in the hints of service bindings (RFC 9460). Where these cannot be
read, nobody can tell what a client makes of them: such a record is taken out too. What ``ipv4only.arpa`` has
is no address to be reached: clients find out by it whether there is NAT64 (RFC 7050).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dns.name

from netstack.dns_wire import (
    AAAA,
    ANY,
    HEADER_LENGTH,
    HTTPS,
    OPT,
    SOA,
    SVCB,
    TRUNCATED,
    TSIG,
    A,
    MalformedMessageError,
    NameReader,
    WireMessage,
    age,
    skip_name,
    target_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from netstack.dns_messages import Query, Question

    OfName = Callable[[bytes], bool]
    """Says something of a name, which is written without pointers."""

MAX_NEGATIVE_LIFETIME = 3600
"""Seconds for "there is no such name" (RFC 2308 section 5 suggests one to three hours)."""

SLICE = 100
"""Addresses that are looked at in one go, 1 ms: an answer may have 4,000."""

AUTHENTIC, CHECKING_DISABLED, RECURSION_AVAILABLE = 0x20, 0x10, 0x80
"""AD, CD and RA, in the fourth byte of the header."""

_RESPONSE, _OPCODE, _RECURSION_DESIRED = 0x80, 0x78, 0x01
_RCODE = 0x0F
_NOERROR, _NXDOMAIN = 0, 3
_OF_THE_HOP = frozenset({OPT, TSIG})
_ADDRESS_LENGTH = {A: 4, AAAA: 16}
_HINT_LENGTH = {4: 4, 6: 16}
"""Bytes of an address, by key of a service binding."""
_ADDRESSED = frozenset({A, AAAA, SVCB, HTTPS})
_IPV4_ONLY = dns.name.from_text("ipv4only.arpa.")
_WELL_KNOWN = frozenset({bytes((192, 0, 0, 170)), bytes((192, 0, 0, 171))})
"""Its addresses (RFC 7050 section 2.2)."""
_TYPE_AND_CLASS = 4
_QUESTION_NAME = b"\xc0\x0c"
"""A pointer to the name in the question, which is no name of the LAN: it would not have been asked."""
_SOA_MINIMUM = 4
"""The last bytes of its data."""
_SHORTEST_SOA = 22


class Answer(NamedTuple):
    """An answer as it is cached: without what was taken out. ``lifetime`` is in seconds, 0 for not at all."""

    wire: bytes
    lifetime: int
    addresses_taken_out: int
    """Records that guests are not told for their addresses."""
    names_taken_out: int
    """Records that they are not told for their names."""


def accept(
    wire: bytes, question: Question, may_show: Callable[[bytes], bool] | None, is_ours: OfName | None = None
) -> Generator[None, None, Answer]:
    """Read a name server's response and make it harmless; a step for each slice of the work.

    Without ``may_show`` all addresses are let through, without ``is_ours`` all names. Raises
    MalformedMessageError for what is no answer to ``question``: another question, no response, a code that is
    about the way to us (above 15).
    """
    message = WireMessage(wire)
    if len(message.records) > SLICE:
        yield
    if not wire[2] & _RESPONSE or wire[2] & _OPCODE:
        raise MalformedMessageError("no response")
    if not _is_about(message, question):
        raise MalformedMessageError("an answer to something else")
    code = message.rcode()
    if code > _RCODE:
        raise MalformedMessageError("a code of EDNS")
    pretending: set[int] = set()
    if is_ours is not None:
        yield from _judge_names(message, is_ours, pretending)
    refused: set[int] = set()
    if may_show is not None:
        known = _WELL_KNOWN if question.name == _IPV4_ONLY else frozenset()
        yield from _judge(message, lambda address: address in known or may_show(address), refused)
    of_the_hop = {index for index, record in enumerate(message.records) if record[1] in _OF_THE_HOP}
    seconds = _lifetime(message, code, question)
    plain = bytearray(message.without(of_the_hop | refused | pretending))
    if refused or pretending:
        plain[3] &= ~AUTHENTIC
    lifetime = 0 if plain[2] & TRUNCATED else seconds
    return Answer(bytes(plain), lifetime, len(refused - pretending), len(pretending))


def _is_about(message: WireMessage, question: Question) -> bool:
    """Whether the name, in any case, the type and the class are those of ``question``."""
    asked = message.wire[HEADER_LENGTH : message.question_end]
    name_end = len(question.wire) - _TYPE_AND_CLASS
    return asked[:name_end].lower() + asked[name_end:] == question.wire


def _judge_names(message: WireMessage, is_ours: OfName, refused: set[int]) -> Generator[None, None, None]:
    """Collect the records of the LAN's names, and those that lead to them, in ``refused``.

    A name whose pointers do not lead backwards may be read by a client as any; one that is cut is read by
    none. Raises MalformedMessageError when there are more labels than MAX_LABELS.
    """
    wire, names = message.wire, NameReader(message.wire)
    for index, (start, kind, data, end) in enumerate(message.records, 1):
        if index % SLICE == 0:
            yield
        ours = False
        try:
            if wire[start : start + 2] != _QUESTION_NAME:
                ours = is_ours(names.read(start)[0])
            target = target_at(wire, kind, data)
            if target is not None and target < end:
                name, _ = names.read(target)
                ours = ours or _has_one_label(name) or is_ours(name)
        except IndexError:
            pass
        except MalformedMessageError:
            if names.labels_left <= 0:
                raise
            ours = True
        if ours:
            refused.add(index - 1)


def _has_one_label(name: bytes) -> bool:
    return name != b"\0" and len(name) == name[0] + 2


def _judge(
    message: WireMessage, may_show: Callable[[bytes], bool], refused: set[int]
) -> Generator[None, None, None]:
    """Collect the records with addresses that may not be shown, in ``refused``; a step for each slice."""
    seen = 0
    for index, (_, kind, data, end) in enumerate(message.records):
        if kind not in _ADDRESSED:
            continue
        addresses = _addresses(message.wire, kind, data, end)
        if addresses is None:
            refused.add(index)
            continue
        for address in addresses:
            seen += 1
            if seen % SLICE == 0:
                yield
            if not may_show(address):
                refused.add(index)
                break


def _addresses(wire: bytes, kind: int, data: int, end: int) -> list[bytes] | None:
    """List the addresses in a record's data; None when they cannot be told."""
    if kind in _ADDRESS_LENGTH:
        return [wire[data:end]] if end - data == _ADDRESS_LENGTH[kind] else None
    found = []
    try:
        at = skip_name(wire, data + 2)
        while at < end:
            key, value = int.from_bytes(wire[at : at + 2], "big"), at + 4
            at = value + int.from_bytes(wire[at + 2 : value], "big")
            size = _HINT_LENGTH.get(key)
            if size is not None:
                if (at - value) % size:
                    return None
                found += [wire[start : start + size] for start in range(value, at, size)]
    except (IndexError, MalformedMessageError):
        return None
    return found if at == end else None


def _lifetime(message: WireMessage, code: int, question: Question) -> int:
    """Seconds for which an answer may be cached; 0 when it may not.

    A negative answer lives by its SOA record (RFC 2308 section 5); without one it is not cached.
    """
    if question.dnssec_ok and not message.options():
        # From a server that was asked without EDNS: the signatures are missing (RFC 3225 section 3).
        return 0
    if code not in {_NOERROR, _NXDOMAIN} or message.wire[2] & TRUNCATED:
        return 0
    answers = range(message.answers)
    ttls = [message.ttl(index) for index in answers]
    found = question.kind == ANY and bool(answers)
    found = found or any(message.records[index][1] == question.kind for index in answers)
    if code == _NXDOMAIN or not found:
        authority = range(message.answers, message.answers + message.authority)
        soa = next((index for index in authority if message.records[index][1] == SOA), None)
        if soa is None:
            return 0
        _, _, data, end = message.records[soa]
        if end - data < _SHORTEST_SOA:
            return 0
        minimum = int.from_bytes(message.wire[end - _SOA_MINIMUM : end], "big")
        ttls += [message.ttl(soa), minimum, MAX_NEGATIVE_LIFETIME]
    return min(ttls)


def respond(query: Query, wire: bytes, seconds: int, size: int) -> bytes:
    """Write an answer of :func:`accept` that is ``seconds`` old as the response to a guest's query.

    Of what is more than ``size`` bytes the last records are missing, and TC says so. DO and CD are those of
    the query (RFC 3225 section 3, RFC 4035 section 3.2.2); AD is for who set DO or AD (RFC 6840 section 5.8).
    """
    option = query.option()
    if seconds or len(wire) + len(option) > size:
        message = WireMessage(wire, size)
        out = message.cut(size - len(option))
        if seconds:
            age(out, message, seconds)
    else:
        out = bytearray(wire)
    asked = query.wire
    out[:2] = asked[:2]
    out[2] = _RESPONSE | asked[2] & _RECURSION_DESIRED | out[2] & TRUNCATED
    authentic = AUTHENTIC if query.wants_authentic else 0
    out[3] = RECURSION_AVAILABLE | asked[3] & CHECKING_DISABLED | out[3] & (authentic | _RCODE)
    spelling = query.spelling()
    out[HEADER_LENGTH : HEADER_LENGTH + len(spelling)] = spelling
    if option:
        out[10:12] = (int.from_bytes(out[10:12], "big") + 1).to_bytes(2, "big")
        out += option
    return bytes(out)

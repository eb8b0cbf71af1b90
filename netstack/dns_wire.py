"""DNS messages at wire level (RFC 1035 section 4.1): where the records of an answer lie.

What passes through a forwarder need not be understood. An answer is walked once, 1 us for each record; those
of unknown or odd kinds stay as they are, byte for byte. Only where records are to be left out is the message
written anew, since compression pointers (section 4.1.4) count from its start.

Pointers must lead backwards, so that a name of 255 bytes ends after as many steps at most.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

HEADER_LENGTH = 12

TRUNCATED = 0x02
"""TC, in the third byte of the header."""

A, SOA, AAAA, OPT, SVCB, HTTPS, TSIG, ANY = 1, 6, 28, 41, 64, 65, 250, 255
"""Types of records."""

CNAME, NAPTR = 5, 35

MAX_MESSAGE = 65_535
MAX_LABELS = 32_768
"""Labels that are read for writing one message anew, some 7 ms: 4,000 records have half of these. Pointers
can make millions of labels of 64 KB."""
MAX_NAME = 255
_POINTER = 0xC0
_MAX_LABEL = 63
_MAX_OFFSET = 0x3FFF
_MAX_TTL = 0x7FFFFFFF
_FIXED = struct.Struct("!HHIH")
"""Type, class, TTL and length of the data of a record."""
_COUNTS = struct.Struct("!HHHH")
_TTL = struct.Struct("!I")

_NAMES_IN_DATA = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 30, 39), (0, 1)),  # NS to MR, CNAME, PTR, NXT, DNAME
    **dict.fromkeys((6, 14, 17), (0, 2)),  # SOA, MINFO, RP
    **dict.fromkeys((15, 18, 21, 36), (2, 1)),  # MX, AFSDB, RT, KX
    24: (18, 1),  # SIG
    26: (2, 2),  # PX
    33: (6, 1),  # SRV
}
"""Bytes before the names in a record's data, and how many names: those that may be compressed (RFC 3597
section 4)."""
_TARGET_AFTER = {
    **dict.fromkeys((2, 3, 4, CNAME, 7, 8, 9, 12, 39), 0),  # NS to MR, PTR, DNAME
    **dict.fromkeys((15, 18, 21, 36, SVCB, HTTPS, 107), 2),  # MX, AFSDB, RT, KX, LP
    33: 6,  # SRV
    NAPTR: 4,
}
"""Bytes of a record's data before the name that it leads to, by type. For NAPTR three strings follow them
(RFC 3403 section 4.1)."""
_LAST_OF_RFC_1035 = 15
"""Names in the data of later types are not written compressed (RFC 3597 section 4)."""


class MalformedMessageError(ValueError):
    """The bytes are no DNS message, or lead in circles."""


class WireMessage:
    """Where the parts of a message lie. Each record is (start, type, start of its data, end)."""

    __slots__ = ("answers", "authority", "question_end", "records", "wire")

    def __init__(self, wire: bytes, until: int = MAX_MESSAGE) -> None:
        """Walk a message with one question or none, as far as its first ``until`` bytes.

        With TC the last records may be missing or cut. Raises MalformedMessageError.
        """
        self.wire = wire
        self.records: list[tuple[int, int, int, int]] = []
        if len(wire) < HEADER_LENGTH:
            raise MalformedMessageError("shorter than its header")
        questions, self.answers, self.authority, additional = _COUNTS.unpack_from(wire, 4)
        if questions > 1:
            raise MalformedMessageError("several questions")
        self.question_end = HEADER_LENGTH
        try:
            if questions:
                self.question_end = skip_name(wire, HEADER_LENGTH) + 4
        except IndexError:
            raise MalformedMessageError("the question is cut") from None
        if self.question_end > len(wire):
            raise MalformedMessageError("the question is cut")
        try:
            self._walk(self.answers + self.authority + additional, until)
        except (IndexError, struct.error):
            if not wire[2] & TRUNCATED:
                raise MalformedMessageError("cut within a name or record") from None

    def _walk(self, count: int, until: int) -> None:
        """Note where the records lie. Raises IndexError or struct.error where the message ends within one."""
        wire, at, end = self.wire, self.question_end, len(self.wire)
        unpack = _FIXED.unpack_from
        append = self.records.append
        for _ in range(count):
            start = at
            length = wire[at]
            if length >= _POINTER:
                if (length & _MAX_LABEL) << 8 | wire[at + 1] >= start:
                    raise MalformedMessageError("a pointer that leads forwards")
                at += 2
            elif length:
                at = skip_name(wire, at)
            else:
                at += 1
            kind, _, _, size = unpack(wire, at)
            data = at + 10
            at = data + size
            if at > end:
                raise IndexError
            append((start, kind, data, at))
            if at > until:
                break

    @property
    def end(self) -> int:
        """Where the last record ends; what follows means nothing."""
        return self.records[-1][3] if self.records else self.question_end

    def options(self) -> list[int]:
        """List the indices of OPT records (RFC 6891)."""
        return [index for index, record in enumerate(self.records) if record[1] == OPT]

    def rcode(self) -> int:
        """Code of the response, with the upper bits of the OPT record (RFC 6891 section 6.1.3)."""
        code = self.wire[3] & 0x0F
        options = self.options()
        return code | self.wire[self.records[options[0]][2] - 6] << 4 if options else code

    def ttl(self, index: int) -> int:
        """Seconds; those with the highest bit set are none (RFC 2181 section 8)."""
        (ttl,) = _TTL.unpack_from(self.wire, self.records[index][2] - 6)
        return ttl if ttl <= _MAX_TTL else 0

    def cut(self, size: int) -> bytearray:
        """Copy as many whole records as ``size`` bytes take, the first ones.

        TC is set when answers or authority records are missing; others are a courtesy (RFC 2181 section 9).
        """
        kept = bisect_right(self.records, size, key=itemgetter(3))
        out = bytearray(self.wire[: self.records[kept - 1][3] if kept else self.question_end])
        if kept < self.answers + self.authority:
            out[2] |= TRUNCATED
        self._count(out, range(kept))
        return out

    def without(self, left_out: Container[int]) -> bytes:
        """Write the message without some of its records, given by index.

        Those at the end are cut off; else it is written anew. Then records are left out too whose names
        cannot be followed, and what is more than a message takes (since names get longer), with TC set.
        Raises MalformedMessageError when its names are beyond MAX_LABELS.
        """
        kept = [index for index in range(len(self.records)) if index not in left_out]
        if not kept or kept[-1] == len(kept) - 1:
            out = bytearray(self.wire[: self.records[kept[-1]][3] if kept else self.question_end])
            self._count(out, kept)
            return bytes(out)
        writer = _Writer(self.wire, self.question_end)
        written = []
        for index in kept:
            if not writer.add(self.records[index]):
                continue
            if len(writer.out) > MAX_MESSAGE:
                writer.take_back()
                writer.out[2] |= TRUNCATED
                break
            written.append(index)
        self._count(writer.out, written)
        return bytes(writer.out)

    def _count(self, out: bytearray, kept: Sequence[int]) -> None:
        """Write how many records of each section there are; ``kept`` are indices in ascending order."""
        answers = bisect_left(kept, self.answers)
        authority = bisect_left(kept, self.answers + self.authority)
        counts = (answers, authority - answers, len(kept) - authority)
        _COUNTS.pack_into(out, 4, self.question_end > HEADER_LENGTH, *counts)


class NameReader:
    """Reads names of a message, whole ones where they are compressed.

    Of those that pointers lead to it remembers what it read; MAX_LABELS bound the work.
    """

    __slots__ = ("_known", "_wire", "labels_left")

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._known: dict[int, bytes] = {}
        """Names by their offsets, where a pointer led to."""
        self.labels_left = MAX_LABELS

    def read(self, at: int) -> tuple[bytes, int]:
        """Give a name without pointers, and the offset after it.

        Raises IndexError or MalformedMessageError: the name cannot be followed, or no labels are left.
        """
        wire, known = self._wire, self._known
        name = bytearray()
        targets: list[tuple[int, int]] = []
        end = -1
        before = at
        while True:
            length = wire[at]
            self.labels_left -= 1
            if self.labels_left <= 0:
                raise MalformedMessageError("too many labels")
            if length >= _POINTER:
                target = (length & _MAX_LABEL) << 8 | wire[at + 1]
                if end < 0:
                    end = at + 2
                if target >= before:
                    raise MalformedMessageError("a pointer that does not lead backwards")
                if target in known:
                    name += known[target]
                    break
                targets.append((target, len(name)))
                before = at = target
                continue
            if length > _MAX_LABEL:
                raise MalformedMessageError("a label that is too long")
            name += wire[at : at + 1 + length]
            at += 1 + length
            if length == 0:
                break
            if len(name) > MAX_NAME:
                break
        if len(name) > MAX_NAME:
            raise MalformedMessageError("a name that is too long")
        for target, position in targets:
            known[target] = bytes(name[position:])
        return bytes(name), end if end >= 0 else at


class _Writer:
    """A message that is written anew, record by record."""

    def __init__(self, wire: bytes, question_end: int) -> None:
        self._wire = wire
        self.out = bytearray(wire[:question_end])
        self._written: dict[bytes, int] = {}
        """Offsets of the names written, in lower case."""
        self._new: list[bytes] = []
        """Those of the last record."""
        self._names = NameReader(wire)
        self._before = question_end
        if question_end > HEADER_LENGTH:
            self._written[self._names.read(HEADER_LENGTH)[0].lower()] = HEADER_LENGTH

    def add(self, record: tuple[int, int, int, int]) -> bool:
        """Write a record; False, and nothing written, when its name cannot be followed."""
        start, kind, data, end = record
        out = self.out
        self._before = len(out)
        self._new.clear()
        try:
            self._name(self._names.read(start)[0])
        except (IndexError, MalformedMessageError):
            if self._names.labels_left <= 0:
                raise
            return False
        out += self._wire[data - 10 : data]
        length_at = len(out) - 2
        if kind in _NAMES_IN_DATA:
            self._data(kind, data, end)
            size = len(out) - length_at - 2
            out[length_at : length_at + 2] = min(size, MAX_MESSAGE).to_bytes(2, "big")
        else:
            out += self._wire[data:end]
        return True

    def _data(self, kind: int, data: int, end: int) -> None:
        """Write data with its names; as it is, where there are none that can be followed."""
        out, written, new = self.out, len(self.out), len(self._new)
        before, names = _NAMES_IN_DATA[kind]
        at = data + before
        out += self._wire[data:at]
        try:
            for _ in range(names):
                name, at = self._names.read(at)
                if kind <= _LAST_OF_RFC_1035:
                    self._name(name)
                else:
                    out += name
        except (IndexError, MalformedMessageError):
            if self._names.labels_left <= 0:
                raise
            at = end + 1
        if at <= end:
            out += self._wire[at:end]
            return
        self._take_back(written, new)
        out += self._wire[data:end]

    def take_back(self) -> None:
        """Remove the record that was written last."""
        self._take_back(self._before, 0)

    def _take_back(self, written: int, new: int) -> None:
        del self.out[written:]
        for name in self._new[new:]:
            del self._written[name]
        del self._new[new:]

    def _name(self, name: bytes) -> None:
        lower = name.lower()
        offset = self._written.get(lower)
        if offset is not None and len(name) > 1:
            self.out += (_POINTER << 8 | offset).to_bytes(2, "big")
            return
        if offset is None and len(self.out) <= _MAX_OFFSET:
            self._written[lower] = len(self.out)
            self._new.append(lower)
        self.out += name


def target_at(wire: bytes, kind: int, data: int) -> int | None:
    """Say where the name lies that a record leads its readers to; None for types that lead nowhere.

    Raises IndexError when the data are cut.
    """
    after = _TARGET_AFTER.get(kind)
    if after is None:
        return None
    at = data + after
    if kind == NAPTR:
        for _ in range(3):
            at += 1 + wire[at]
    return at


def skip_name(wire: bytes, at: int) -> int:
    """Give the offset after a name. Raises IndexError or MalformedMessageError."""
    start = at
    while True:
        length = wire[at]
        if length == 0:
            return at + 1
        if length >= _POINTER:
            if (length & _MAX_LABEL) << 8 | wire[at + 1] >= start:
                raise MalformedMessageError("a pointer that leads forwards")
            return at + 2
        if length > _MAX_LABEL or at - start > MAX_NAME:
            raise MalformedMessageError("a label or name that is too long")
        at += 1 + length


def age(wire: bytearray, message: WireMessage, seconds: int) -> None:
    """Lower the TTLs in ``wire``, which begins as ``message`` does and may be shorter, by ``seconds``."""
    size = len(wire)
    for _, kind, data, end in message.records:
        if end > size:
            break
        if kind != OPT:
            (ttl,) = _TTL.unpack_from(wire, data - 6)
            _TTL.pack_into(wire, data - 6, ttl - seconds if seconds < ttl <= _MAX_TTL else 0)

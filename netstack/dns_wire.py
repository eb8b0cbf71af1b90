"""DNS messages at wire level (RFC 1035 section 4.1): where the records of an answer lie.

A message is walked once, 1 us for each record, whatever the records hold. Compression pointers (section
4.1.4) must lead backwards; they are not followed.
"""

from __future__ import annotations

import struct

HEADER_LENGTH = 12

OPT = 41
"""Type of the record of EDNS (RFC 6891)."""

MAX_NAME = 255
_POINTER = 0xC0
_MAX_LABEL = 63
_FIXED = struct.Struct("!HHIH")
"""Type, class, TTL and length of the data of a record."""
_COUNTS = struct.Struct("!HHHH")


class MalformedMessageError(ValueError):
    """The bytes are no DNS message, or lead in circles."""


class WireMessage:
    """Where the parts of a message lie. Each record is (start, type, start of its data, end)."""

    __slots__ = ("answers", "authority", "question_end", "records", "wire")

    def __init__(self, wire: bytes) -> None:
        """Walk a message with one question or none. Raises MalformedMessageError."""
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
            if self.question_end > len(wire):
                raise MalformedMessageError("the question is cut")
            self._walk(self.answers + self.authority + additional)
        except (IndexError, struct.error):
            raise MalformedMessageError("cut within a name or record") from None

    def _walk(self, count: int) -> None:
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
                raise MalformedMessageError("a record longer than the message")
            append((start, kind, data, at))

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

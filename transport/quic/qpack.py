"""How large a field section is, told before it is decoded (RFC 9204 without the dynamic table).

One byte can stand for a field of seventy: what an encoded section costs is known only when it is read. Here
it is read without making an object per field, and no further than to the limit.
"""

from __future__ import annotations

from functools import cache

import pylsqpack

STATIC_ENTRIES = 99
"""RFC 9204, appendix A."""
FIELD_OVERHEAD = 32
"""What a field counts beside its name and value (RFC 9114, 4.2.2)."""
MAX_INTEGER = (1 << 62) - 1

_INDEXED, _STATIC = 0x80, 0x40
_NAME_REFERENCE, _STATIC_NAME = 0x40, 0x10
_LITERAL_NAME = 0x20


@cache
def _static_sizes() -> list[tuple[int, int]]:
    """Lengths of the names and values of the static table, as the decoder has it."""
    decoder = pylsqpack.Decoder(0, 0)
    short = 0x3F  # what fits the prefix of an indexed field line
    lines = [
        bytes((_INDEXED | _STATIC | index,)) if index < short else bytes((0xFF, index - short))
        for index in range(STATIC_ENTRIES)
    ]
    _, fields = decoder.feed_header(0, b"\0\0" + b"".join(lines))
    return [(len(name), len(value)) for name, value in fields]


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """Return an integer with a prefix (RFC 7541, 5.1) and where it ends. Raises IndexError, ValueError."""
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > MAX_INTEGER or shift > 70:  # noqa: PLR2004 - ten bytes, more than any integer needs
            raise ValueError("integer is too large")
        if byte < 0x80:  # noqa: PLR2004 - the bit that says whether more follows
            return value, at


def field_section_size(section: bytes, limit: int) -> int:
    """Return the size of a field section (RFC 9114, 4.2.2), or where it exceeds ``limit``, any size above.

    Huffman strings count as long as they are encoded; decoded they are 1.6 times as long at most. Raises
    ValueError for what refers to the dynamic table or is cut off.
    """
    sizes = _static_sizes()
    size = 0
    end = len(section)
    try:
        required, at = _integer(section, 0, 0xFF)
        if required:
            raise ValueError("there is no dynamic table")
        _, at = _integer(section, at, 0x7F)
        while at < end and size <= limit:
            kind = section[at]
            size += FIELD_OVERHEAD
            if kind & _INDEXED:
                index, at = _integer(section, at, 0x3F)
                if not kind & _STATIC:
                    raise ValueError("there is no dynamic table")
                size += sum(sizes[index])
                continue
            if kind & _NAME_REFERENCE:
                index, at = _integer(section, at, 0x0F)
                if not kind & _STATIC_NAME:
                    raise ValueError("there is no dynamic table")
                size += sizes[index][0]
            elif kind & _LITERAL_NAME:
                length, at = _integer(section, at, 0x07)
                size += length
                at += length
            else:
                raise ValueError("there is no dynamic table")
            length, at = _integer(section, at, 0x7F)
            size += length
            at += length
    except IndexError:
        raise ValueError("field section is cut off") from None
    if at > end and size <= limit:
        raise ValueError("field section is cut off")
    return size

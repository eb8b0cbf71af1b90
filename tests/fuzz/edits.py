"""Inputs that are nearly right: what is right, changed as a string of bytes says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 2048
"""Bytes of an input."""
BYTES_PER_EDIT = 6


def edited(seeds: Sequence[bytes], script: bytes) -> Iterator[bytes]:
    """Give an input for every edit in ``script``, which has :data:`BYTES_PER_EDIT` for each.

    Edits add up until one of them begins with another seed, as every fourth does.
    """
    data = bytearray(seeds[0])
    for start in range(0, len(script) - BYTES_PER_EDIT + 1, BYTES_PER_EDIT):
        seed, high, low, kind, size, value = script[start : start + BYTES_PER_EDIT]
        if seed % 4 == 0:
            data = bytearray(seeds[seed // 4 % len(seeds)])
        at = (high << 8 | low) % (len(data) + 1)
        if kind % 8 == 7:
            other = seeds[value % len(seeds)]
            data[at:] = other[at * size // 256 :]
        else:
            _edit(data, at, kind % 8, size, value)
        del data[LONGEST:]
        yield bytes(data)


def _edit(data: bytearray, at: int, kind: int, size: int, value: int) -> None:
    match kind:
        case 0 | 1:
            data[at : at + 1] = bytes((value,))
        case 2:
            data[at : at + 2] = bytes((size, value))
        case 3:
            data[at:at] = bytes((value,)) * (size % 8)
        case 4:
            del data[at : at + size % 40]
        case 5:
            data[at : at + 1] = bytes((data[at] ^ 1 << size % 8,)) if at < len(data) else b""
        case 6:
            data[at:at] = data[at : at + size]

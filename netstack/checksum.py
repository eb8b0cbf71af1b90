"""The internet checksum (RFC 1071) and what UDP and ICMP do with it.

A sum here is an integer congruent to the one's complement sum modulo 0xFFFF. Sums of parts may be added
with ``+`` as long as every part but the last has an even length; :func:`finish` folds and complements.
One big-integer remainder is an order of magnitude faster in Python than a loop over 16-bit words, and
what is long is brought to a few words first, since a division is slow for each digit. Compiled, the loop is
the faster one, three to four times, and its sums are small. The functions below take either.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, Final

from mypy_extensions import i64

PROTOCOL_ICMP: Final = 1
PROTOCOL_UDP: Final = 17


def _low(bits: int) -> int:
    return (1 << bits) - 1


_IS_COMPILED: Final = not isinstance(_low, FunctionType)
_SMALL: Final = 0xFFFF_FFFF_FFFF
"""What compiled code divides as a machine word, with room to spare."""
_MAX_960: Final = _low(960)
_MAX_1920: Final = _low(1920)
_MAX_3840: Final = _low(3840)
_MAX_5888: Final = _low(5888)
_MAX_7680: Final = _low(7680)


def remainder(total: int) -> int:
    """Return ``total % 0xFFFF`` of a sum, which is not negative.

    2**16 is congruent to 1, so the upper words may be added to the lower ones, whatever their number.
    """
    if total <= _SMALL:
        return total % 0xFFFF
    # Any: compiled, operations of small integers would be tried first.
    left: Any = total
    if left > _MAX_1920:
        if left > _MAX_7680:
            left = (left >> 5888) + (left & _MAX_5888)
        if left > _MAX_3840:
            left = (left >> 3840) + (left & _MAX_3840)
        left = (left >> 1920) + (left & _MAX_1920)
        left = (left >> 960) + (left & _MAX_960)
    result: int = left % 0xFFFF
    return result


def add_up(data: bytes) -> int:
    """Sum of ``data`` as 16-bit big-endian words, an odd last byte padded with zero; 0 only of zeros."""
    size = len(data)
    return add_up_words(data, 0, size) if _IS_COMPILED else add_up_number(data, 0, size)


def add_up_part(data: bytes, start: int, end: int) -> int:
    """As :func:`add_up`, of ``data[start:end]``, which is all there."""
    return add_up_words(data, start, end) if _IS_COMPILED else add_up_number(data, start, end)


def add_up_words(data: bytes, start: i64, end: i64) -> int:
    """As :func:`add_up_part`, word by word: for compiled code."""
    upper: i64 = 0
    lower: i64 = 0
    at = start
    while at < end - 3:  # two words at a time: the loop itself is half of the work
        upper += i64(data[at]) + i64(data[at + 2])
        lower += i64(data[at + 1]) + i64(data[at + 3])
        at += 4
    if at < end - 1:
        upper += i64(data[at])
        lower += i64(data[at + 1])
        at += 2
    if at < end:
        upper += i64(data[at])
    return int((upper << 8) + lower)


def add_up_number(data: bytes, start: int, end: int) -> int:
    """As :func:`add_up_part`, all words as one number: for Python."""
    number = int.from_bytes(data[start:end], "big")
    return number << 8 if (end - start) & 1 else number


def finish(total: int) -> int:
    """Checksum for a sum: fold to 16 bits, then complement. 0 to 0xFFFF."""
    if total == 0:
        return 0xFFFF
    # A remainder of 0 stands for the folded sum 0xFFFF, since only zero words fold to 0.
    return -remainder(total) % 0xFFFF


def checksum(data: bytes) -> int:
    """Checksum of ``data`` in which the checksum field is zero (IPv4 header, ICMPv4 message)."""
    return finish(add_up(data))


def is_valid(total: int) -> bool:
    """Whether data that holds its own checksum and adds up to ``total`` is intact."""
    return total != 0 and remainder(total) == 0


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo-header (RFC 768, RFC 8200 section 8.1): addresses, protocol, upper-layer length."""
    return add_up(source + destination) + protocol + length


def finish_udp(total: int) -> int:
    """Checksum for the UDP field: a computed 0 is sent as 0xFFFF, since 0 means none (RFC 768)."""
    return finish(total) or 0xFFFF


def update_span(old_checksum: int, before: bytes, after: bytes) -> int:
    """Checksum after ``before`` became ``after``, of the same length and at an even offset (RFC 1624)."""
    total = ((old_checksum ^ 0xFFFF) + add_up(after) - add_up(before)) % 0xFFFF
    # Data that are not all zero never fold to 0: congruent to it is 0xFFFF.
    return finish(total or 0xFFFF)


def update(old_checksum: int, old_word: int, new_word: int) -> int:
    """Checksum after one 16-bit word of the data changed (RFC 1624, equation 3)."""
    total = (old_checksum ^ 0xFFFF) + (old_word ^ 0xFFFF) + new_word
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF

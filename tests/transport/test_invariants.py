from __future__ import annotations

import pytest

from transport.quic.invariants import connection_ids_of, version_of

VERSION = b"\x1a\x2a\x3a\x4a"


def long_header(destination, source, first=0xC0):
    return b"".join(
        (bytes((first,)), VERSION, bytes((len(destination),)), destination, bytes((len(source),)), source)
    )


@pytest.mark.parametrize("sizes", [(8, 0), (20, 20), (21, 8), (255, 255), (0, 0)])
@pytest.mark.parametrize("first", [0xC0, 0x80, 0xFF])
def test_connection_ids_have_any_length_and_other_bits_any_value(sizes, first):
    destination, source = (bytes(range(size)) for size in sizes)
    packet = long_header(destination, source, first)
    for rest in (b"", b"whatever the version says"):
        assert connection_ids_of(packet + rest) == (destination, source)
        assert version_of(packet + rest) == 0x1A2A3A4A


def test_a_header_that_is_cut_off_has_none():
    packet = long_header(bytes(21), bytes(3))
    for end in range(1, len(packet)):
        assert connection_ids_of(packet[:end]) is None

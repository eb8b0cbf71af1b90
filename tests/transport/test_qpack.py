"""Field sections measured before they are decoded, with pylsqpack as the oracle."""

from __future__ import annotations

import random

import pylsqpack
import pytest

from transport.quic.qpack import FIELD_OVERHEAD, field_section_size

LIMIT = 16 * 1024


def encoded(fields):
    instructions, section = pylsqpack.Encoder().encode(0, fields)
    assert instructions == b""
    return section


def size_of(fields):
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


REQUEST = [
    (b":method", b"CONNECT"),
    (b":protocol", b"webtransport"),
    (b":scheme", b"https"),
    (b":authority", b"relay.example:4433"),
    (b":path", b"/lan?encap=raw"),
    (b"sec-webtransport-http3-draft02", b"1"),
    (b"accept-encoding", b"gzip, deflate, br"),
]


def test_a_request_counts_no_more_than_it_is_and_not_much_less():
    measured = field_section_size(encoded(REQUEST), LIMIT)
    assert 0.8 * size_of(REQUEST) < measured <= size_of(REQUEST)


@pytest.mark.parametrize("seed", range(20))
def test_any_fields_count_within_what_huffman_saves(seed):
    chance = random.Random(seed)
    fields = [
        (b"x-" + chance.randbytes(chance.randrange(1, 200)).hex().encode(), chance.randbytes(300))
        for _ in range(chance.randrange(1, 20))
    ]
    measured = field_section_size(encoded(fields), 1 << 30)
    actual = size_of(fields)
    assert actual / 1.6 <= measured <= actual


def test_references_to_long_entries_count_what_they_become():
    section = b"\0\0" + b"\xff\x16" * 10  # content-security-policy, 75 bytes
    _, fields = pylsqpack.Decoder(0, 0).feed_header(0, section)
    assert field_section_size(section, LIMIT) == size_of(fields)


def test_no_more_is_read_than_the_limit_takes():
    assert LIMIT < field_section_size(b"\0\0" + b"\xd1" * 100_000 + b"\x80", LIMIT) < LIMIT + 200


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\0",
        b"\x02\0\x80",  # needs an insert
        b"\0\0\x80",  # a dynamic entry
        b"\0\0\x10",  # one after the base
        b"\0\0\x40\1a",  # the name of a dynamic entry
        b"\0\0\0\1a",  # the name of one after the base
        b"\0\0\xff\x7f",  # no such static entry
        b"\0\0\x51\5abc",  # a value that is cut off
        b"\0\0\x27",
        b"\0\0\x51\x7f" + b"\xff" * 20,
    ],
)
def test_what_cannot_be_decoded_is_refused(section):
    with pytest.raises(ValueError, match=r"cut off|dynamic table|too large"):
        field_section_size(section, LIMIT)

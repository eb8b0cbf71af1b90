from __future__ import annotations

import pytest
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.quic.packet import pull_ack_frame, push_ack_frame
from aioquic.quic.rangeset import RangeSet
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.quic import frames
from transport.quic.frames import Ack, Frames, read_frames, read_varint, write_ack, write_varint

LARGEST_VARINT = (1 << 62) - 1

varints = st.one_of(
    st.integers(0, 70),
    st.sampled_from([0x3F, 0x40, 0x3FFF, 0x4000, 0x3FFFFFFF, 0x40000000, LARGEST_VARINT]),
    st.integers(0, LARGEST_VARINT),
)


def rangesets(most=40):
    """Packet number ranges that do not touch, ascending, as aioquic and the path keep them."""
    steps = st.tuples(st.integers(1, 300), st.integers(1, 300))

    def build(parts):
        start, ranges = 0, RangeSet()
        for gap, length in parts:
            start += gap
            ranges.add(start, start + length)
            start += length
        return ranges

    return st.lists(steps, min_size=1, max_size=most).map(build)


# -- the oracle: what aioquic makes of a payload ------------------------------------------------------


def aioquic_reads(plain):
    """Read a payload with aioquic's own parsers; None where it has other frames or is malformed."""
    buffer = Buffer(data=plain)
    datagrams, acks, eliciting = [], [], False
    try:
        while not buffer.eof():
            kind = buffer.pull_uint_var()
            if kind in (frames.ACK, frames.ACK_ECN):
                ranges, delay = pull_ack_frame(buffer)
                if kind == frames.ACK_ECN:
                    for _ in range(3):
                        buffer.pull_uint_var()
                acks.append(Ack([(block.start, block.stop - 1) for block in reversed(ranges)], delay))
            elif kind == frames.DATAGRAM_WITH_LENGTH:
                datagrams.append(buffer.pull_bytes(buffer.pull_uint_var()))
                eliciting = True
            elif kind == frames.DATAGRAM:
                datagrams.append(buffer.pull_bytes(len(plain) - buffer.tell()))
                eliciting = True
            elif kind == frames.PING:
                eliciting = True
            elif kind != frames.PADDING:
                return None
    except (BufferReadError, ValueError):
        return None
    return Frames(datagrams, acks, eliciting) if plain else None


def aioquic_writes_ack(ranges, delay):
    buffer = Buffer(capacity=4096)
    push_ack_frame(buffer, ranges, delay, 4096)
    return b"\x02" + buffer.data


# -- integers -----------------------------------------------------------------------------------------


@settings(derandomize=True)
@given(varints)
def test_integers_are_written_as_aioquic_writes_them(value):
    assert write_varint(value) == encode_uint_var(value)


@settings(derandomize=True)
@given(st.binary(max_size=12))
def test_integers_are_read_as_aioquic_reads_them(data):
    buffer = Buffer(data=data)
    try:
        expected = buffer.pull_uint_var(), buffer.tell()
    except BufferReadError:
        with pytest.raises(IndexError):
            read_varint(data, 0)
    else:
        assert read_varint(data, 0) == expected


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_integers_longer_than_they_need_be_are_read(size):
    encoded = {
        1: b"\x25",
        2: b"\x40\x25",
        4: b"\x80\x00\x00\x25",
        8: b"\xc0\x00\x00\x00\x00\x00\x00\x25",
    }[size]
    assert read_varint(b"x" + encoded + b"y", 1) == (0x25, 1 + size)


# -- acknowledgements ---------------------------------------------------------------------------------


@settings(derandomize=True)
@given(rangesets(frames.MAX_RANGES_WRITTEN), st.integers(0, 1 << 20))
def test_acknowledgements_are_written_as_aioquic_writes_them(ranges, delay):
    assert write_ack(ranges, delay) == aioquic_writes_ack(ranges, delay)


@settings(derandomize=True)
@given(rangesets(), st.integers(0, 1 << 20))
def test_what_is_written_is_read_again(ranges, delay):
    read = read_frames(write_ack(ranges, delay))
    newest = list(reversed(ranges))[: frames.MAX_RANGES_WRITTEN]
    assert read == Frames([], [Ack([(block.start, block.stop - 1) for block in newest], delay)], False)


def test_only_the_newest_ranges_are_written():
    ranges = RangeSet([range(10 * n, 10 * n + 3) for n in range(frames.MAX_RANGES_WRITTEN + 9)])
    read = read_frames(write_ack(ranges, 0))
    assert len(read.acks[0].ranges) == frames.MAX_RANGES_WRITTEN
    assert read.acks[0].ranges[0][1] == ranges[-1].stop - 1


def test_counts_of_ecn_marks_are_passed_over():
    plain = b"\x03" + encode_uint_var(9) + b"\0\0\0" + encode_uint_var(70_000) * 3 + b"\x01"
    assert read_frames(plain) == Frames([], [Ack([(9, 9)], 0)], True)


def test_an_acknowledgement_of_negative_numbers_is_left_to_aioquic():
    assert read_frames(b"\x02\x05\x00\x00\x06") is None
    assert read_frames(b"\x02\x05\x00\x01\x01\x02\x01") is None


def test_more_ranges_than_anyone_needs_are_left_to_aioquic():
    count = frames.MAX_RANGES_READ
    fits = b"\x02" + write_varint(5000) + b"\0" + write_varint(count) + b"\0" + b"\0\0" * count
    assert len(read_frames(fits).acks[0].ranges) == count + 1
    count += 1
    too_many = b"\x02" + write_varint(5000) + b"\0" + write_varint(count) + b"\0" + b"\0\0" * count
    assert read_frames(too_many) is None


# -- packets ------------------------------------------------------------------------------------------


def with_length(data):
    return b"\x31" + write_varint(len(data)) + data


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        (with_length(b"abc"), Frames([b"abc"], [], True)),
        (with_length(b""), Frames([b""], [], True)),
        (with_length(b"a") + with_length(b"b"), Frames([b"a", b"b"], [], True)),
        (b"\x30abc", Frames([b"abc"], [], True)),
        (b"\x30", Frames([b""], [], True)),
        (b"\x01", Frames([], [], True)),
        (bytes(1000), Frames([], [], False)),
        (bytes(3) + with_length(b"a") + bytes(7), Frames([b"a"], [], True)),
        (bytes(3) + b"\x01" + bytes(7), Frames([], [], True)),
    ],
)
def test_frames_of_the_path(plain, expected):
    assert read_frames(plain) == expected


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x31\x05abcd",  # longer than the packet
        b"\x31",
        b"\x31\x40",
        b"\x02\x05",
        b"\x02\x05\x00\x02\x00\x00",
        b"\x03\x05\x00\x00\x00\x00",
        b"\x06\x00\x01x",  # CRYPTO
        b"\x08\x00x",  # STREAM
        b"\x1a12345678",  # PATH_CHALLENGE
        b"\x1d\x00\x00",  # CONNECTION_CLOSE
        b"\x40\x31\x00",  # DATAGRAM in two bytes where one would do
        b"\x21",
        with_length(b"abc") + b"\x08\x00x",
    ],
)
def test_everything_else_is_left_to_aioquic(plain):
    assert read_frames(plain) is None


known_frames = st.one_of(
    st.integers(1, 40).map(bytes),
    st.just(b"\x01"),
    st.binary(max_size=80).map(with_length),
    st.tuples(rangesets(), st.integers(0, 5000)).map(lambda ack: write_ack(*ack)),
    st.tuples(varints, varints, varints).map(
        lambda counts: b"\x03\x07\x00\x00\x02" + b"".join(map(write_varint, counts))
    ),
)
payloads = st.lists(known_frames, max_size=6).map(b"".join)


@st.composite
def damaged_payloads(draw):
    plain = bytearray(draw(payloads))
    for _ in range(draw(st.integers(0, 3))):
        if plain:
            plain[draw(st.integers(0, len(plain) - 1))] = draw(st.integers(0, 255))
    return bytes(plain[: draw(st.integers(0, len(plain)))] if draw(st.booleans()) else plain)


@settings(derandomize=True, max_examples=300)
@given(st.one_of(payloads, damaged_payloads(), st.binary(max_size=60)))
def test_what_is_accepted_is_what_aioquic_sees(plain):
    read = read_frames(plain)
    if read is not None:
        assert read == aioquic_reads(plain)


@settings(derandomize=True)
@given(payloads)
def test_every_packet_of_known_frames_is_accepted(plain):
    assert read_frames(plain) == aioquic_reads(plain)


ACK_OF_0 = b"\x02\0\0\0\0"


@pytest.mark.parametrize("sign", [b"\1", b"\1\0", ACK_OF_0, ACK_OF_0 + b"\0", b"\1" + ACK_OF_0])
def test_packets_of_more_signs_than_anybody_sends_are_for_aioquic(sign):
    """Each costs microseconds, there is room for a thousand, and 64 packets are read between two looks."""
    many = sign * frames.MAX_SIGNS_READ
    datagrams = b"\x31\1x" * 500
    assert read_frames(many + sign) is None
    assert read_frames(datagrams + many + sign) is None
    assert read_frames(datagrams + sign) is not None

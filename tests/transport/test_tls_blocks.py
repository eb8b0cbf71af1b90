"""Blocks with their length before them, as they are read and written."""

from __future__ import annotations

import contextlib

import pytest
from aioquic.buffer import Buffer, BufferReadError
from aioquic.tls import AlertDecodeError

from transport.quic.tls_blocks import (
    PulledBlock,
    PushedBlock,
    PushedMessage,
    pull_opaque,
    push_extension,
    push_opaque,
)


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_a_block_that_is_left_by_an_error_says_nothing_of_its_own(capacity):
    buf = Buffer(data=bytes(capacity - 1) + b"\x02ab")
    with contextlib.suppress(KeyError), PulledBlock(buf, capacity) as length:
        assert length == len(b"ab")
        raise KeyError
    written = Buffer(capacity=10)
    with contextlib.suppress(KeyError), PushedBlock(written, capacity):
        written.push_bytes(b"ab")
        raise KeyError
    assert (written.tell(), written.data[capacity:]) == (capacity + 2, b"ab")


@pytest.mark.parametrize("read", [b"", b"a", b"abc"])
def test_a_block_is_to_be_read_as_far_as_it_goes(read):
    buf = Buffer(data=b"\x02abc")
    with pytest.raises(AlertDecodeError), PulledBlock(buf, 1):
        buf.pull_bytes(len(read))


def test_blocks_within_blocks_have_their_lengths():
    buf = Buffer(capacity=50)
    with push_extension(buf, 0x1234), PushedBlock(buf, 2):
        push_opaque(buf, 1, b"abc")
    assert buf.data == bytes.fromhex("1234 0006 0004 03") + b"abc"
    written = Buffer(data=buf.data)
    assert written.pull_uint16() == 0x1234
    with PulledBlock(written, 2) as outer, PulledBlock(written, 2) as inner:
        assert (outer, inner) == (6, 4)
        assert pull_opaque(written, 1) == b"abc"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\3ab"])
def test_bytes_that_are_not_all_there_are_not_read(data):
    with pytest.raises(BufferReadError):
        pull_opaque(Buffer(data=data), 2)


def test_a_message_is_hashed_once_it_is_whole():
    hashed, buf = [], Buffer(capacity=50)

    class Schedule:
        update_hash = staticmethod(hashed.append)

    buf.push_bytes(b"before")
    with PushedMessage(Schedule(), buf):
        buf.push_bytes(b"message")
        assert not hashed
    assert hashed == [b"message"]
    with contextlib.suppress(KeyError), PushedMessage(Schedule(), buf):
        buf.push_bytes(b"half")
        raise KeyError
    assert hashed == [b"message"]

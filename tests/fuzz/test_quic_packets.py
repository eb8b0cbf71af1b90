"""QUIC packets and HTTP/3 streams that are nearly right, in a client's name and with its keys.

Whatever comes, the connection goes on and is served as before, or it ends, with an error that is not the
relay's own fault, and leaves nothing behind.
"""

from __future__ import annotations

import functools
import os

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicErrorCode
from edits import BYTES_PER_EDIT, edited
from forged_initials import ForgedInitials, crypto_frame
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from quic_parts import (
    CLIENT_ADDRESS,
    START,
    Forge,
    Host,
    Pair,
    PairConnection,
    Relay,
    close_capsule_frame,
    datagram_frame,
    relay_configuration,
)
from stream_frames import stream_frame

from transport.quic.aioquic_internals import RelayQuicConnection
from transport.quic.webtransport import encode_close_capsule

EXAMPLES = 500 if os.environ.get("CI", "").lower() in {"1", "true"} else 100
PACKETS = 4
DRAINING = 60.0
"""Seconds in which a connection that was ended is gone."""

_HELLO = bytes.fromhex("010000f80303") + bytes(246)
FRAMES = [
    b"\x01",
    b"\x02\x05\x00\x00\x05",
    b"\x03\x05\x00\x01\x02\x00\x01\x01\x02\x03",
    b"\x04\x00\x41\x0c\x05",
    b"\x04\x04\x00\x01",
    b"\x05\x03\x00",
    crypto_frame(0, b"\x04\0\0\2ab"),
    b"\x07\x03abc",
    stream_frame(0, 3, b"abc"),
    stream_frame(4, 0, b"\x40\x54\x00data", fin=True),
    close_capsule_frame(7, "bye", offset=100),
    b"\x10\x80\x10\x00\x00" + b"\x11\x00\x80\x10\x00\x00" + b"\x12\x40\x80",
    b"\x14\x40\x80\x15\x00\x40\x80\x16\x40\x80",
    b"\x18\x05\x02\x08" + bytes(range(8)) + bytes(16),
    b"\x19\x01",
    b"\x1a" + bytes(8),
    b"\x1b" + bytes(8),
    b"\x1c\x00\x00\x03bye",
    b"\x1d\x41\x00\x03bye",
    b"\x1e",
    b"\x24\x00\x41\x0c\x0a\x05",
    datagram_frame(b"x" * 40),
    b"\x30\0" + b"y" * 40,
    b"\x40\xaf\x40\x64",
]
"""QUIC frames of a client and of a relay."""


def _http3(kind, payload):
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


STREAMS = [
    _http3(0, encode_close_capsule(7, "bye")),
    _http3(0, b"\x40\x99\x03abc"),
    _http3(1, b"\0\0\xd1\xd7\x50\x01a"),
    _http3(1, b"\0\0\x27\x02:method\x07CONNECT"),
    _http3(4, b"\x08\x01\x33\x01"),
    _http3(7, b"\0"),
    _http3(0x0D, b"\x05"),
    _http3(3, b"\0"),
    _http3(5, b"\0\0\0\xd1"),
    _http3(0x21, b"grease"),
    b"\x00\x04\x00",
    b"\x02\x3f\xe1\x1f",
    b"\x03\x80",
    b"\x40\x54\x00datagram",
    b"\x40\x41\x00stream",
]
"""What HTTP/3 streams carry."""


@functools.cache
def _established():
    return Pair.established(stock=True)


def is_served(pair, forge):
    """Whether the session takes a datagram as before."""
    before = len(pair.relay.peer.datagrams)
    pair.relay.receive(forge.datagram(b"still here"), now=pair.relay.host.now)
    return pair.relay.peer.datagrams[before:] == [b"still here"]


def ends_cleanly(relay):
    """An ended connection is gone after a while, and its session was told once."""
    relay.pass_time(DRAINING)
    assert relay.host.ended
    assert [len(peer.closed) for peer in relay.host.peers] == [1] * len(relay.host.peers)


def check(relay):
    ended = relay.quic.ended
    assert ended is None or ended.error_code != QuicErrorCode.INTERNAL_ERROR, ended


@pytest.mark.parametrize("stock", [False, True], ids=["datagram path", "aioquic"])
@settings(max_examples=EXAMPLES, phases=[Phase.generate])  # to shrink takes minutes
@given(st.binary(min_size=PACKETS * (2 + BYTES_PER_EDIT), max_size=PACKETS * (2 + BYTES_PER_EDIT)))
def test_packets_of_a_client_with_a_session(stock, script):
    pair = _established().fork(stock=stock)
    forge = Forge(pair.client)
    kinds, choices, edits = script[:PACKETS], script[PACKETS : 2 * PACKETS], script[2 * PACKETS :]
    offsets = {
        stream: pair.client.quic._streams[stream].sender.highest_offset
        for stream in pair.client.quic._streams
        if stream % 4 != 3
    }
    frames, streams = edited(FRAMES, edits), edited(STREAMS, edits)
    for kind, choice in zip(kinds, choices, strict=True):
        frame, data = next(frames)[:1000], next(streams)[:1000]
        if kind % 2:
            stream = (0, 2, 4, 6, 8, 10, 14, 18)[choice % 8]
            frame = stream_frame(stream, offsets.get(stream, 0), data, fin=choice > 240)
            offsets[stream] = offsets.get(stream, 0) + len(data)
        pair.relay.receive(forge.packet(frame), now=pair.relay.host.now)
        pair.relay.pass_time(kind / 1000)
        check(pair.relay)
        if pair.relay.quic.ended is not None or pair.relay.peer.closed:
            break
    else:
        assert is_served(pair, forge)
    if pair.relay.quic.ended is None:
        pair.relay.receive(forge.packet(b"\x1d\x41\x00\x00"), now=pair.relay.host.now)
    ends_cleanly(pair.relay)


@settings(max_examples=EXAMPLES, phases=[Phase.generate])
@given(st.binary(min_size=4 * BYTES_PER_EDIT, max_size=4 * BYTES_PER_EDIT), st.booleans())
def test_first_packets_of_strangers(edits, whole):
    forged, host = ForgedInitials(), Host()
    quic = RelayQuicConnection(relay_configuration(), forged.destination)
    relay = Relay(host, PairConnection(quic, host, CLIENT_ADDRESS, START))
    host.add_connection_id(quic.host_cid, relay.connection)
    seeds = [crypto_frame(0, _HELLO), *FRAMES]
    for number, data in enumerate(edited(seeds, edits)):
        packet = forged.packet(data[:1000])
        # The endpoint makes a connection for what has the head of an Initial.
        if number and not whole:
            (packet,) = list(edited([packet], edits[:BYTES_PER_EDIT]))
        relay.receive(packet)
        check(relay)
    ends_cleanly(relay)

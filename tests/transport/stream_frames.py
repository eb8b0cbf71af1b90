"""STREAM frames of any content, and packets full of frames."""

from __future__ import annotations

from aioquic.buffer import encode_uint_var


def stream_frame(stream, offset, data, *, fin=False):
    head = bytes((0x0E | fin,)) + encode_uint_var(stream) + encode_uint_var(offset)
    return head + encode_uint_var(len(data)) + data


def cut(stream, data, size=1000, start=0):
    """STREAM frames of ``size`` bytes of data each."""
    return [stream_frame(stream, start + at, data[at : at + size]) for at in range(0, len(data), size)]


def in_packets(forge, frames, room=1100):
    """Frames in as few packets as hold them."""
    packets, current = [], b""
    for frame in frames:
        if len(current) + len(frame) > room:
            packets.append(forge.packet(current))
            current = b""
        current += frame
    return [*packets, forge.packet(current)]

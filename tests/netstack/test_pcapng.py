from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from netstack import pcapng
from netstack.pcapng import MAX_TEXT


def read(data):
    return list(RawPcapNgReader(io.BytesIO(data)))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.floats(0, 2**33, allow_nan=False),
            st.binary(min_size=1, max_size=200),
            st.sampled_from(["in", "out"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=50),
        ),
        max_size=10,
    )
)
def test_scapy_reads_what_was_written(packets):
    data = pcapng.section("test") + pcapng.interface("a", "first") + pcapng.interface("b", "second")
    data += b"".join(pcapng.packet(*packet[:4], comment=packet[4]) for packet in packets)
    for (number, time, frame, way, comment), (got, told) in zip(packets, read(data), strict=True):
        assert got == frame
        assert (told.ifname, told.direction) == (b"ab"[number : number + 1], {"in": 1, "out": 2}[way])
        assert b"".join(told.comments or ()).decode() == comment
        assert abs((told.tshigh << 32 | told.tslow) / told.tsresol - time) < 1e-5


def test_frames_are_cut_and_their_length_is_told():
    data = pcapng.section("test") + pcapng.interface("a", "", 60)
    ((frame, told),) = read(data + pcapng.packet(0, 1.0, bytes(1000), "in", snap_length=60))
    assert (len(frame), told.wirelen) == (60, 1000)


def test_texts_are_bounded_and_stay_utf_8():
    data = pcapng.section("test") + pcapng.interface("a", "")
    ((_, told),) = read(data + pcapng.packet(0, 1.0, b"x", "in", comment="x" + "é" * MAX_TEXT))
    assert told.comments[0].decode() == "x" + "é" * ((MAX_TEXT - 1) // 2)

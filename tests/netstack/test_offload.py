"""Segmentation and merging against scapy: what is cut is what a card would send; what is merged was that."""

from __future__ import annotations

import contextlib
import itertools
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from netstack.offload import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_TCP6,
    MAX_PACKET,
    NEEDS_CHECKSUM,
    NO_OFFLOAD,
    OFFLOAD_HEADER,
    merge,
    split,
)

GUEST, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
ANY_MTU = MAX_PACKET + 100
TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))]
CWR, ECE, PSH, FIN, URG = 0x80, 0x40, 0x08, 0x01, 0x20


def headers(version, *, vlan=0, ident=1, **fields):
    """Scapy's headers of a segment; ``fields`` are TCP's."""
    ether = Ether(src=GUEST, dst=OTHER)
    for tag in range(vlan):
        ether /= Dot1Q(vlan=tag + 5)
    if version == 4:
        ip = IP(src="10.0.2.10", dst="10.0.2.11", id=ident & 0xFFFF, flags="DF", tos=3)
    else:
        ip = IPv6(src="fd00::10", dst="fd00::11", tc=3, fl=77)
    return ether / ip / TCP(**({"sport": 5000, "dport": 6000, "flags": "A", "options": TIMESTAMPS} | fields))


def segment(version, payload=b"", **options):
    return bytes(headers(version, **options) / Raw(payload))


def large(version, payload, size, *, ecn=False, **options):
    """What a kernel hands over that leaves segmentation to the card."""
    packet = headers(version, **options)
    start = len(packet) - len(packet[TCP])
    packet[TCP].chksum = 0x1234  # the pseudo-header's sum, which nobody has to believe
    kind = (GSO_TCP4 if version == 4 else GSO_TCP6) | ecn * GSO_ECN
    # The length that a kernel gives for the headers may cover data, too.
    header = struct.pack("<BBHHHH", NEEDS_CHECKSUM, kind, len(packet) + 100, size, start, 16)
    return header + bytes(packet / Raw(payload))


def expected(version, payload, size, *, flags=0x10, seq=0, ident=1, **options):
    """The segments, one by one, as scapy makes them."""
    found = []
    for number, at in enumerate(range(0, len(payload), size)):
        own = flags & ~(CWR if at else 0)
        if at + size < len(payload):
            own &= ~(PSH | FIN)
        found.append(
            segment(
                version,
                payload[at : at + size],
                flags=own,
                seq=(seq + at) & 0xFFFFFFFF,
                ident=ident + number,
                **options,
            )
        )
    return found


FIELDS = st.fixed_dictionaries(
    {
        "flags": st.sampled_from([0x10, 0x10 | PSH, 0x10 | FIN | PSH, 0x10 | CWR, 0x10 | ECE | CWR | PSH]),
        "seq": st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFF0000]),
        "ack": st.sampled_from([0, 0xFFFFFFFF]),
        "ident": st.sampled_from([0, 1, 0xFFFE]),
        "vlan": st.integers(0, 2),
        "options": st.sampled_from([[], TIMESTAMPS]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    version=st.sampled_from([4, 6]),
    payload=st.builds(
        lambda seed, length: random.Random(seed).randbytes(length),
        st.integers(0, 1 << 30),
        st.integers(1, 9000),
    ),
    size=st.integers(50, 3000),
    fields=FIELDS,
)
def test_what_is_cut_is_what_scapy_makes_of_each_piece(version, payload, size, fields):
    data = large(version, payload, size, ecn=bool(fields["flags"] & CWR), **fields)
    assert split(data, ANY_MTU) == expected(version, payload, size, **fields)


@pytest.mark.parametrize("version", [4, 6])
def test_the_largest_that_a_kernel_gives(version):
    payload = random.Random(1).randbytes(65535 - 60 - 20)
    assert split(large(version, payload, 1208), ANY_MTU) == expected(version, payload, 1208)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [576, 930, 1280, 1500])
def test_nothing_is_larger_than_the_lans_mtu(version, mtu):
    """A guest behind a bridge may have a larger MTU, and bridges let large TCP pass."""
    payload = random.Random(2).randbytes(20_000)
    frames = split(large(version, payload, 1448, vlan=1), mtu)
    overhead = (20 if version == 4 else 40) + 32
    assert frames == expected(version, payload, min(1448, mtu - overhead), vlan=1)
    assert max(map(len, frames)) == min(1448 + overhead, mtu) + 18


@pytest.mark.parametrize("layer", [UDP(sport=1, dport=2), TCP(sport=1, dport=2)], ids=["UDP", "TCP"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", [0, 1, 100, 1001])
def test_a_checksum_is_completed(layer, version, length):
    ip = IP(src="10.0.2.10", dst="10.0.2.11") if version == 4 else IPv6(src="fd00::10", dst="fd00::11")
    whole = Ether(src=GUEST, dst=OTHER) / ip / layer / Raw(random.Random(3).randbytes(length))
    right = bytes(whole)
    start = 14 + len(ip)
    at = start + (6 if isinstance(layer, UDP) else 16)
    total = struct.unpack(">H", right[at : at + 2])[0] ^ 0xFFFF
    words = right[start:at] + right[at + 2 :] + b"\0" * (length % 2)
    rest = sum(struct.unpack(f">{len(words) // 2}H", words))
    partial = ((total - rest) % 0xFFFF) or 0xFFFF
    data = struct.pack("<BBHHHH", NEEDS_CHECKSUM, GSO_NONE, 0, 0, start, at - start)
    assert split(data + right[:at] + partial.to_bytes(2, "big") + right[at + 2 :], 1500) == [right]


def test_a_udp_checksum_of_zero_is_sent_as_ones():
    frame = bytearray(bytes(Ether() / IP(src="10.0.2.10", dst="10.0.2.11") / UDP(sport=1, dport=2, chksum=0)))
    # All that is added up is 0xFFFF then, and its complement 0 would mean that there is no checksum.
    frame[40:42] = ((-sum(struct.unpack(">3H", frame[34:40]))) % 0xFFFF).to_bytes(2, "big")
    data = struct.pack("<BBHHHH", NEEDS_CHECKSUM, GSO_NONE, 0, 0, 34, 6) + bytes(frame)
    [done] = split(data, 1500)
    assert done[40:42] == b"\xff\xff"


def test_what_needs_nothing_is_left_as_it_is():
    frame = bytes(Ether() / IP() / ICMP())
    assert split(NO_OFFLOAD + frame, 1500) == [frame]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.binary(max_size=14))
def test_what_no_kernel_asks_for_is_a_value_error(frame, header):
    data = header[:OFFLOAD_HEADER].ljust(OFFLOAD_HEADER, b"\1") + frame
    with contextlib.suppress(ValueError):
        assert isinstance(split(data, 1500), list)


@pytest.mark.parametrize(
    ("flags", "kind", "size", "start"),
    [
        (0, GSO_TCP4, 1000, 34),
        (NEEDS_CHECKSUM, GSO_TCP4, 0, 34),
        (NEEDS_CHECKSUM, GSO_TCP6, 1000, 34),
        (NEEDS_CHECKSUM, 3, 1000, 34),
        (NEEDS_CHECKSUM, 5, 1000, 34),
        (NEEDS_CHECKSUM, GSO_TCP4, 1000, 20),
        (NEEDS_CHECKSUM, GSO_TCP4, 1000, 60_000),
        (NEEDS_CHECKSUM, GSO_NONE, 0, 60_000),
    ],
)
def test_contradictions_are_value_errors(flags, kind, size, start):
    frame = segment(4, bytes(3000))
    with pytest.raises(ValueError, match=r".+"):
        split(struct.pack("<BBHHHH", flags, kind, 66, size, start, 16) + frame, 1500)


def test_frames_that_are_cut_short_are_value_errors():
    data = large(4, bytes(3000), 1000)
    for length in range(66 + OFFLOAD_HEADER + 1):
        with pytest.raises(ValueError, match=r".+"):
            split(data[:length], 1500)


# -- merging ---------------------------------------------------------------------------------------


def unmerged(merged):
    """What the kernel has before it when it takes the frames apart again."""
    frames = []
    for data, count in merged:
        parts = split(data, ANY_MTU)
        assert len(parts) == count
        frames += parts
    return frames


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x10, 0x10 | PSH])
@pytest.mark.parametrize("length", [2416, 20_000, 20_001])
def test_segments_that_follow_one_another_become_one_frame(version, flags, length):
    payload = random.Random(4).randbytes(length)
    segments = expected(version, payload, 1208, seq=0xFFFFFF00, flags=flags, ident=0xFFFE)
    [merged] = merge(segments)
    assert merged.frames == len(segments)
    assert unmerged([merged]) == segments
    # What the kernel is told and given: the payload in one piece, and the pseudo-header's sum.
    frame = Ether(merged.data[OFFLOAD_HEADER:])
    assert bytes(frame[TCP].payload) == payload
    whole = Ether(segment(version, payload, seq=0xFFFFFF00, flags=flags, ident=0xFFFE))
    start = 34 if version == 4 else 54
    tcp = bytes(whole[TCP])
    rest = sum(struct.unpack(f">{len(tcp) // 2}H", tcp[: len(tcp) // 2 * 2])) - whole[TCP].chksum
    rest += tcp[-1] << 8 if len(tcp) % 2 else 0
    assert (frame[TCP].chksum + rest + whole[TCP].chksum) % 0xFFFF == 0
    assert struct.unpack("<BBHHHH", merged.data[:OFFLOAD_HEADER]) == (
        NEEDS_CHECKSUM,
        GSO_TCP4 if version == 4 else GSO_TCP6,
        start + 32,
        1208,
        start,
        16,
    )
    if version == 4:
        assert frame[IP].chksum == whole[IP].chksum


def test_no_frame_is_larger_than_an_ip_packet():
    segments = expected(4, bytes(200_000), 1448)
    merged = merge(segments)
    assert len(merged) == 4
    assert max(len(data) for data, _ in merged) <= MAX_PACKET + 14 + OFFLOAD_HEADER
    assert unmerged(merged) == segments


UNLIKE: dict[str, Any] = {
    "a gap": {"seq": 1500},
    "again": {"seq": 0},
    "another acknowledgement": {"seq": 1000, "ack": 1},
    "another window": {"seq": 1000, "window": 1},
    "other options": {"seq": 1000, "options": []},
    "another port": {"seq": 1000, "dport": 1},
    "FIN": {"seq": 1000, "flags": "FA"},
    "RST": {"seq": 1000, "flags": "RA"},
    "URG": {"seq": 1000, "flags": "UA", "urgptr": 3},
    "CWR": {"seq": 1000, "flags": "CA"},
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("unlike", UNLIKE)
def test_what_differs_is_not_merged(version, unlike):
    frames = [segment(version, bytes(1000)), segment(version, bytes(1000), ident=2, **UNLIKE[unlike])]
    assert merge(frames) == [(NO_OFFLOAD + frame, 1) for frame in frames]


def test_pieces_that_are_larger_than_the_first_begin_anew():
    frames = [segment(4, bytes(500)), segment(4, bytes(1000), seq=500), segment(4, bytes(1000), seq=1500)]
    assert [count for _, count in merge(frames)] == [1, 2]


@pytest.mark.parametrize("last", [{"flags": "PA"}, {}], ids=["PSH", "short"])
def test_what_ends_a_burst_ends_the_frame(last):
    frames = [
        segment(4, bytes(1000)),
        segment(4, bytes(1000 if last else 998), seq=1000, ident=2, **last),
        segment(4, bytes(1000), seq=2000 if last else 1998, ident=3),
    ]
    merged = merge(frames)
    assert [count for _, count in merged] == [2, 1]
    assert unmerged(merged) == frames


@pytest.mark.parametrize("version", [4, 6])
def test_segments_with_a_wrong_checksum_reach_the_kernel_as_they_came(version):
    frames = expected(version, random.Random(5).randbytes(5000), 1000)
    for number, at in ((2, -5), (0, 60 if version == 4 else 80), *(((1, 25),) if version == 4 else ())):
        broken = list(frames)
        frame = bytearray(broken[number])
        frame[at] ^= 4
        broken[number] = bytes(frame)
        merged = merge(broken)
        assert (NO_OFFLOAD + broken[number], 1) in merged
        assert sorted(unmerged(merged)) == sorted(broken)


def test_vlan_tagged_frames_are_left_alone():
    frames = [segment(4, bytes(1000), vlan=1), segment(4, bytes(1000), seq=1000, ident=2, vlan=1)]
    assert merge(frames) == [(NO_OFFLOAD + frame, 1) for frame in frames]


def test_ethernet_padding_and_fragments_are_left_alone():
    padded = [segment(4, b"ab") + bytes(4), segment(4, b"cd", seq=2) + bytes(4)]
    packet = headers(4)
    packet[IP].flags = "MF"
    fragment = bytes(packet / Raw(bytes(100)))
    assert merge([*padded, fragment, fragment]) == [
        (NO_OFFLOAD + frame, 1) for frame in (*padded, fragment, fragment)
    ]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_every_connections_frames_come_out_as_they_went_in(seed):
    """Whatever is mixed: nothing is lost, made up or, within a connection, put in another order."""
    chance = random.Random(seed)
    counters = [itertools.count(1) for _ in range(4)]
    sequences = [chance.choice([0, 0xFFFFFB00]) for _ in range(4)]
    frames = []
    for _ in range(30):
        flow = chance.randrange(4)
        size = chance.choice([1000, 1000, 1000, 1000, 501, 400, 0])
        frames.append(
            segment(
                4 if flow < 2 else 6,
                chance.randbytes(size),
                sport=flow + 1,
                seq=sequences[flow],
                ident=next(counters[flow]),
                flags=chance.choice(["A"] * 8 + ["PA", "FA"]),
                window=chance.choice([100] * 8 + [200]),
            )
        )
        sequences[flow] = (sequences[flow] + size * chance.choice([1, 1, 1, 1, 1, 2])) & 0xFFFFFFFF
        if chance.random() < 0.1:
            frames.append(bytes(Ether() / IP() / UDP() / Raw(chance.randbytes(20))))

    def by_flow(found):
        flows = {}
        for frame in found:
            packet = Ether(frame)
            flows.setdefault(packet[TCP].sport if TCP in packet else 0, []).append(frame)
        return flows

    assert by_flow(unmerged(merge(frames))) == by_flow(frames)

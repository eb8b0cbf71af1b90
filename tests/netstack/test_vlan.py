"""Tags and wrappings of frames, with scapy to make them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from netstack.vlan import MAX_TAGS, hides_protocol, without_priority_tags, without_tags

ETHER = {"src": "52:54:00:00:00:01", "dst": "52:54:00:00:00:02"}
SNAP_HEADER = Dot3(**ETHER) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
PLAIN = bytes(Ether(**ETHER) / IP() / UDP() / b"data")


def tagged(*tags):
    frame = Ether(**ETHER)
    for tag in tags:
        frame /= tag
    return bytes(frame / IP() / UDP() / b"data")


@pytest.mark.parametrize(
    ("tags", "left"),
    [
        ((), ()),
        ((Dot1Q(vlan=0, prio=7),), ()),
        ((Dot1AD(vlan=0),), ()),
        ((Dot1Q(vlan=0), Dot1Q(vlan=0), Dot1AD(vlan=0)), ()),
        ((Dot1Q(vlan=5),), (Dot1Q(vlan=5),)),
        ((Dot1AD(vlan=0), Dot1Q(vlan=5)), (Dot1Q(vlan=5),)),
        ((Dot1Q(vlan=5), Dot1Q(vlan=0)), (Dot1Q(vlan=5), Dot1Q(vlan=0))),
    ],
)
def test_tags_that_carry_a_priority_only_are_taken_off(tags, left):
    assert without_priority_tags(tagged(*tags)) == tagged(*left)
    assert without_tags(tagged(*tags)) == PLAIN


def test_a_frame_with_many_tags_is_none_to_look_into():
    assert without_tags(tagged(*[Dot1Q(vlan=5)] * MAX_TAGS)) == PLAIN
    assert without_tags(tagged(*[Dot1Q(vlan=5)] * (MAX_TAGS + 1))) is None


@pytest.mark.parametrize("organisation", [0x000000, 0x0000F8, 0x0080C2, 0xFFFFFF])
@pytest.mark.parametrize("payload", [IP() / UDP(), ARP(), Dot1Q() / ARP()])
def test_ip_arp_and_tags_behind_snap_are_hidden(organisation, payload):
    snap = SNAP(OUI=organisation, code={IP: 0x0800, ARP: 0x0806, Dot1Q: 0x8100}[type(payload)])
    assert hides_protocol(bytes(SNAP_HEADER / snap / payload))


@pytest.mark.parametrize("llc", [b"\xaa\xab\x03", b"\xab\xaa\x03", b"\xaa\xaa\x13"])
@pytest.mark.parametrize("length", [0, 28, 1500, 1501, 1535])
def test_no_odd_header_and_no_length_hides_arp_behind_snap(llc, length):
    hidden = PLAIN[:12] + length.to_bytes(2, "big") + llc + bytes(3) + b"\x08\x06" + bytes(ARP())
    assert hides_protocol(hidden)
    assert not hides_protocol(hidden[:12] + (1536).to_bytes(2, "big") + hidden[14:])


@pytest.mark.parametrize(("access_point", "packet"), [(0x06, IP() / UDP()), (0x98, ARP())])
def test_ip_and_arp_behind_llc_alone_are_hidden(access_point, packet):
    assert hides_protocol(bytes(Dot3(**ETHER) / LLC(dsap=access_point, ssap=access_point, ctrl=3) / packet))


@pytest.mark.parametrize(
    "frame",
    [
        PLAIN,
        bytes(Dot3(**ETHER) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(40))),
        bytes(
            Dot3(**ETHER) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0x00000C, code=0x2000) / Raw(b"cdp")
        ),
        bytes(SNAP_HEADER / SNAP(OUI=0, code=0x809B) / Raw(b"atalk")),
    ],
)
def test_other_frames_hide_nothing(frame):
    assert not hides_protocol(frame)


@given(st.binary(max_size=64), st.integers(0, 6))
def test_no_frame_is_too_odd(data, tags):
    frame = data[:12] + b"\x81\0\0\0" * tags + data[12:]
    stripped = without_priority_tags(frame)
    assert len(stripped) <= len(frame)
    without_tags(frame)
    hides_protocol(frame)

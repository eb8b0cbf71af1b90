"""Frames as the guest sees them and as the LAN does, both built by scapy: one must become the other."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import (
    DUID_LL,
    DUID_LLT,
    DHCP6_InfoRequest,
    DHCP6_Reply,
    DHCP6OptClientId,
    DHCP6OptElapsedTime,
    DHCP6OptServerId,
)
from scapy.layers.inet import IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from netstack.ipv6 import interface_id, link_local_of, solicited_node
from netstack.mac_rewriter import QEMU_DEFAULT, MacRewriter, is_qemu_default

DEFAULT = QEMU_DEFAULT.hex(":")
OWN = "52:54:00:aa:bb:cc"
OTHER = "52:54:00:00:00:77"
BROADCAST = "ff:ff:ff:ff:ff:ff"
PREFIX = "fd00:1:2:3"
REMOTE = "2001:db8::7"


class View(NamedTuple):
    """Who has which MAC for whom is looking."""

    guest: str
    gateway: str

    @property
    def link_local(self):
        return link_local(self.guest)

    @property
    def router(self):
        return link_local(self.gateway)

    @property
    def address(self):
        """The guest's by SLAAC."""
        return str(IPv6Address(IPv6Address(f"{PREFIX}::").packed[:8] + interface_id(raw(self.guest))))


def raw(mac):
    return bytes.fromhex(mac.replace(":", ""))


def link_local(mac):
    return str(IPv6Address(link_local_of(raw(mac))))


def solicited(address):
    group = solicited_node(IPv6Address(address).packed)
    return {"dst": str(IPv6Address(group))}, "33:33:" + group[12:].hex(":")


def out(v):
    return Ether(src=v.guest, dst=v.gateway)


def back(v):
    return Ether(src=v.gateway, dst=v.guest)


def dhcp(v, op, *options):
    message = BOOTP(op=op, chaddr=raw(v.guest) + bytes(10), xid=7) / DHCP(
        options=[("message-type", op), *options, "end"]
    )
    if op == 1:
        return (
            Ether(src=v.guest, dst=BROADCAST) / IP(dst="255.255.255.255") / UDP(sport=68, dport=67) / message
        )
    return back(v) / IP(src="10.0.2.2", dst="10.0.2.10") / UDP(sport=67, dport=68) / message


def ask(v, target, source):
    destination, mac = solicited(target)
    option = ICMPv6NDOptSrcLLAddr(lladdr=v.guest) if source != "::" else Raw(b"")
    return Ether(src=v.guest, dst=mac) / IPv6(src=source, **destination) / ICMPv6ND_NS(tgt=target) / option


def asked(v, target, asker):
    destination, mac = solicited(target)
    option = ICMPv6NDOptSrcLLAddr(lladdr=asker)
    return (
        Ether(src=asker, dst=mac)
        / IPv6(src=link_local(asker), **destination)
        / ICMPv6ND_NS(tgt=target)
        / option
    )


def quoted(v, inner):
    return bytes(inner(v))[14:]


TO_LAN = {
    "a plain packet": lambda v: out(v) / IP(dst="192.0.2.1") / TCP(dport=80) / b"x",
    "a broadcast": lambda v: Ether(src=v.guest, dst=BROADCAST) / IP() / UDP(dport=9) / b"x",
    "an unknown protocol": lambda v: Ether(src=v.guest, dst=OTHER, type=0x88B5) / raw(DEFAULT),
    "an ARP request": lambda v: (
        Ether(src=v.guest, dst=BROADCAST) / ARP(hwsrc=v.guest, psrc="10.0.2.9", pdst="10.0.2.2")
    ),
    "an ARP reply": lambda v: (
        out(v) / ARP(op=2, hwsrc=v.guest, psrc="10.0.2.9", hwdst=v.gateway, pdst="10.0.2.2") / Raw(bytes(18))
    ),
    "a reverse ARP request": lambda v: (
        Ether(src=v.guest, dst=BROADCAST, type=0x8035) / ARP(op=3, hwsrc=v.guest, hwdst=v.guest)
    ),
    "ARP in a VLAN": lambda v: (
        Ether(src=v.guest, dst=BROADCAST) / Dot1Q(vlan=5) / ARP(hwsrc=v.guest, psrc="1.2.3.4", pdst="1.2.3.5")
    ),
    "ARP in two VLANs": lambda v: (
        Ether(src=v.guest, dst=BROADCAST) / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ARP(hwsrc=v.guest)
    ),
    "DHCP with the hardware address as identifier": lambda v: dhcp(
        v, 1, ("client_id", b"\1" + raw(v.guest)), ("hostname", b"vm")
    ),
    "DHCP with a DUID as identifier": lambda v: dhcp(
        v, 1, ("hostname", b"v"), ("client_id", b"\xff\0\0\0\1\0\3\0\1" + raw(v.guest))
    ),
    "DHCP behind IPv4 options": lambda v: (
        Ether(src=v.guest, dst=BROADCAST)
        / IP(dst="255.255.255.255", options=[IPOption(b"\x94\x04\0\0")])
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=raw(v.guest) + bytes(10))
        / DHCP(options=[("message-type", 1), "end"])
    ),
    "DHCP without a checksum": lambda v: (
        out(v) / IP() / UDP(sport=68, dport=67, chksum=0) / BOOTP(chaddr=raw(v.guest) + bytes(10))
    ),
    "a PXE request": lambda v: out(v) / IP() / UDP(sport=68, dport=4011) / BOOTP(chaddr=raw(v.guest)),
    "duplicate detection of the link-local address": lambda v: ask(v, v.link_local, "::"),
    "duplicate detection of a global address": lambda v: ask(v, v.address, "::"),
    "a question for the gateway": lambda v: ask(v, v.router, v.link_local),
    "a question for somebody else": lambda v: ask(v, link_local(OTHER), v.address),
    "a question to the gateway alone": lambda v: (
        out(v)
        / IPv6(src=v.address, dst=v.router)
        / ICMPv6ND_NS(tgt=v.router)
        / ICMPv6NDOptSrcLLAddr(lladdr=v.guest)
    ),
    "a neighbour advertisement": lambda v: (
        out(v)
        / IPv6(src=v.address, dst=v.router)
        / ICMPv6ND_NA(tgt=v.address)
        / ICMPv6NDOptDstLLAddr(lladdr=v.guest)
    ),
    "a router solicitation": lambda v: (
        Ether(src=v.guest, dst="33:33:00:00:00:02")
        / IPv6(src=v.link_local, dst="ff02::2")
        / ICMPv6ND_RS()
        / ICMPv6NDOptSrcLLAddr(lladdr=v.guest)
    ),
    "ping by IPv6": lambda v: out(v) / IPv6(src=v.link_local, dst=v.router) / ICMPv6EchoRequest(data=b"odd"),
    "TCP by IPv6": lambda v: out(v) / IPv6(src=v.address, dst=REMOTE) / TCP(dport=80) / b"odd",
    "UDP by IPv6": lambda v: out(v) / IPv6(src=v.address, dst=REMOTE) / UDP(dport=53) / b"even",
    "UDP in a VLAN": lambda v: (
        out(v) / Dot1Q(vlan=5) / IPv6(src=v.address, dst=v.router) / UDP(dport=53) / b"odd"
    ),
    "UDP behind extension headers": lambda v: (
        out(v)
        / IPv6(src=v.address, dst=REMOTE)
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrDestOpt()
        / IPv6ExtHdrFragment()
        / UDP(dport=53)
        / b"odd"
    ),
    "a host elsewhere with the default's identifier": lambda v: (
        out(v) / IPv6(src=v.address, dst="2001:db8::5054:ff:fe12:3456") / TCP(dport=80)
    ),
    "an error about what came": lambda v: (
        out(v)
        / IPv6(src=v.address, dst=REMOTE)
        / ICMPv6DestUnreach(code=4)
        / quoted(v, lambda v: back(v) / IPv6(src=REMOTE, dst=v.address) / Raw(b"quoted"))
    ),
    "DHCPv6": lambda v: (
        Ether(src=v.guest, dst="33:33:00:01:00:02")
        / IPv6(src=v.link_local, dst="ff02::1:2")
        / UDP(sport=546, dport=547)
        / DHCP6_InfoRequest(trid=7)
        / DHCP6OptElapsedTime()
        / DHCP6OptClientId(duid=DUID_LLT(timeval=9, lladdr=v.guest))
        / DHCP6OptServerId(duid=DUID_LL(lladdr=v.gateway))
    ),
}
"""Frames that the guest sends, for each view."""

TO_GUEST = {
    "a plain packet": lambda v: back(v) / IP(src="192.0.2.1", dst="10.0.2.10") / TCP(sport=80) / b"x",
    "a frame between others": lambda v: Ether(src=OTHER, dst=BROADCAST) / IP() / UDP(dport=9) / b"x",
    "an ARP request": lambda v: (
        Ether(src=v.gateway, dst=BROADCAST)
        / ARP(hwsrc=v.gateway, psrc="10.0.2.2", pdst="10.0.2.10", hwdst=v.guest)
    ),
    "an ARP reply": lambda v: (
        back(v) / ARP(op=2, hwsrc=v.gateway, psrc="10.0.2.2", hwdst=v.guest, pdst="10.0.2.10")
    ),
    "an ARP reply of somebody else": lambda v: (
        Ether(src=OTHER, dst=v.guest) / ARP(op=2, hwsrc=OTHER, hwdst=v.guest)
    ),
    "DHCP": lambda v: dhcp(v, 2, ("client_id", b"\1" + raw(v.guest)), ("lease_time", 60)),
    "a router advertisement": lambda v: (
        back(v)
        / IPv6(src=v.router, dst="ff02::1")
        / ICMPv6ND_RA()
        / ICMPv6NDOptSrcLLAddr(lladdr=v.gateway)
        / ICMPv6NDOptMTU()
        / ICMPv6NDOptPrefixInfo(prefix=f"{PREFIX}::")
    ),
    "a neighbour advertisement": lambda v: (
        back(v)
        / IPv6(src=v.router, dst=v.link_local)
        / ICMPv6ND_NA(tgt=v.router)
        / ICMPv6NDOptDstLLAddr(lladdr=v.gateway)
    ),
    "a question for the guest's link-local address": lambda v: asked(v, v.link_local, v.gateway),
    "a question for its global address": lambda v: asked(v, v.address, OTHER),
    "a question for the gateway": lambda v: asked(v, v.router, OTHER),
    "a redirect": lambda v: (
        back(v)
        / IPv6(src=v.router, dst=v.address)
        / ICMPv6ND_Redirect(tgt=v.router, dst=REMOTE)
        / ICMPv6NDOptDstLLAddr(lladdr=v.gateway)
    ),
    "TCP by IPv6": lambda v: back(v) / IPv6(src=REMOTE, dst=v.address) / TCP(sport=80) / b"odd",
    "a host elsewhere with the default's identifier": lambda v: (
        back(v) / IPv6(src="2001:db8::5054:ff:fe12:3456", dst=v.address) / TCP(sport=80)
    ),
    "an error about what the guest sent": lambda v: (
        back(v)
        / IPv6(src=v.router, dst=v.address)
        / ICMPv6PacketTooBig(mtu=1280)
        / quoted(v, lambda v: out(v) / IPv6(src=v.address, dst=REMOTE) / Raw(b"quoted"))
    ),
    "an error between neighbours": lambda v: (
        Ether(src=OTHER, dst=v.guest)
        / IPv6(src=link_local(OTHER), dst=v.link_local)
        / ICMPv6DestUnreach(code=4)
        / quoted(v, lambda v: out(v) / IPv6(src=v.link_local, dst=link_local(OTHER)) / Raw(b"quoted"))
    ),
    "DHCPv6": lambda v: (
        back(v)
        / IPv6(src=v.router, dst=v.link_local)
        / UDP(sport=547, dport=546)
        / DHCP6_Reply(trid=7)
        / DHCP6OptServerId(duid=DUID_LL(lladdr=v.gateway))
        / DHCP6OptClientId(duid=DUID_LL(lladdr=v.guest))
    ),
}
"""Frames that come to it."""


def from_mac(mac):
    """A frame that tells of its sender and nothing else."""
    return raw(BROADCAST) + mac + b"\x88\xb5"


def started(own=OWN, default=DEFAULT):
    """A rewriter that has seen the guest's MAC, with the two views of it."""
    rewriter = MacRewriter(b"", raw(own))
    rewriter.to_lan([from_mac(raw(default))])
    return rewriter, View(default, own), View(own, default)


def same(found, wanted):
    assert found == wanted, f"{Ether(found).show2(dump=True)}\nis not\n{Ether(wanted).show2(dump=True)}"


@pytest.mark.parametrize("name", TO_LAN)
def test_what_the_guest_sends_is_what_one_with_its_own_mac_would(name):
    rewriter, inside, outside = started()
    build = TO_LAN[name]
    (found,) = rewriter.to_lan([bytes(build(inside))])
    same(found, bytes(build(outside)))


@pytest.mark.parametrize("name", TO_GUEST)
def test_what_comes_to_it_is_for_the_mac_that_it_has(name):
    rewriter, inside, outside = started()
    build = TO_GUEST[name]
    (found,) = rewriter.to_guest([bytes(build(outside))])
    same(found, bytes(build(inside)))


macs = st.binary(min_size=6, max_size=6).map(lambda mac: bytes((mac[0] & 0xFE | 2,)) + mac[1:])


@given(macs.filter(lambda mac: not is_qemu_default(mac)), st.binary(max_size=3), st.integers(0x56, 0xFE))
def test_checksums_hold_whatever_the_macs(own, data, last):
    rewriter, inside, outside = started(own.hex(":"), DEFAULT[:-2] + f"{last:02x}")
    for build in (
        lambda v: out(v) / IPv6(src=v.address, dst=v.router) / UDP(dport=53) / data,
        lambda v: out(v) / IPv6(src=v.link_local, dst=v.router) / ICMPv6EchoRequest(data=data),
        lambda v: ask(v, v.link_local, "::"),
        lambda v: dhcp(v, 1, ("client_id", b"\1" + raw(v.guest)), ("hostname", b"x" * len(data))),
    ):
        (found,) = rewriter.to_lan([bytes(build(inside))])
        same(found, bytes(build(outside)))


def test_a_udp_checksum_that_comes_to_zero_is_not_taken_for_none():
    rewriter, inside, outside = started()

    def build(view, word):
        return bytes(out(view) / IPv6(src=view.address, dst=REMOTE) / UDP(dport=53) / word)

    word = Ether(build(outside, bytes(2)))[UDP].chksum.to_bytes(2, "big")
    (found,) = rewriter.to_lan([build(inside, word)])
    same(found, build(outside, word))
    assert Ether(found)[UDP].chksum == 0xFFFF


def test_a_broken_checksum_stays_broken():
    rewriter, inside, _ = started()
    frame = bytearray(bytes(out(inside) / IPv6(src=inside.address, dst=REMOTE) / UDP(dport=53) / b"data"))
    frame[-1] ^= 1
    (found,) = rewriter.to_lan([bytes(frame)])
    told = Ether(found)[UDP].chksum
    right = Ether(found)
    del right[UDP].chksum
    assert told != Ether(bytes(right))[UDP].chksum


def test_fragments_of_ipv6_can_be_put_together():
    rewriter, inside, outside = started()
    whole = [
        IPv6(src=v.address, dst=REMOTE) / IPv6ExtHdrFragment(id=5) / UDP(dport=53) / Raw(b"data" * 500)
        for v in (inside, outside)
    ]
    pieces, wanted = (
        [bytes(out(v) / piece) for piece in fragment6(one, 1280)]
        for v, one in zip((inside, outside), whole, strict=True)
    )
    assert len(pieces) == 2
    assert list(rewriter.to_lan(pieces)) == wanted


def test_later_fragments_of_ipv4_are_no_dhcp():
    rewriter, inside, outside = started()
    # What would be a message with the guest's MAC, had it a UDP header before it.
    data = bytes((0, 68, 0, 67)) + bytes(4) + bytes(BOOTP(chaddr=raw(DEFAULT) + bytes(10)))
    _, later = fragment(IP(dst="10.0.2.2") / UDP(dport=9) / Raw(bytes(992) + data), 1000)
    (found,) = rewriter.to_lan([bytes(out(inside) / later)])
    same(found, bytes(out(outside) / later))


def test_only_defaults_are_rewritten_and_each_is_told_once():
    told = []
    rewriter = MacRewriter(b"seed", on_new=lambda guest, lan: told.append((guest, lan)))
    frames = [from_mac(mac) for mac in (raw(OTHER), QEMU_DEFAULT[:5] + b"\x55", QEMU_DEFAULT[:5] + b"\xff")]
    assert rewriter.to_lan(frames) is frames
    assert rewriter.to_guest(frames) is frames
    assert told == []
    for _ in range(2):
        found = rewriter.to_lan([from_mac(mac) for mac in (QEMU_DEFAULT, QEMU_DEFAULT[:5] + b"\xfe")])
    assert [guest for guest, _ in told] == [QEMU_DEFAULT, QEMU_DEFAULT[:5] + b"\xfe"]
    assert [frame[6:12] for frame in found] == [lan for _, lan in told]


def test_own_macs_are_stations_that_follow_from_the_seed():
    made = {MacRewriter(bytes((seed,))).lan_mac(QEMU_DEFAULT) for seed in range(200)}
    assert len(made) == 200
    for mac in made:
        assert mac[0] & 3 == 2, "one NIC's address, locally administered"
        assert mac[2] & 0x80, "not of 52:54:00, where the defaults are"
    assert MacRewriter(b"a").lan_mac(QEMU_DEFAULT) == MacRewriter(b"a").lan_mac(QEMU_DEFAULT)
    assert MacRewriter(b"a").lan_mac(QEMU_DEFAULT) != MacRewriter(b"a").lan_mac(QEMU_DEFAULT[:5] + b"\x57")


def test_a_chosen_mac_goes_to_the_first_guest_and_a_chosen_default_stays():
    second = QEMU_DEFAULT[:5] + b"\x57"
    rewriter = MacRewriter(b"", raw(OWN))
    assert rewriter.lan_mac(QEMU_DEFAULT) == raw(OWN)
    assert rewriter.lan_mac(second) not in (raw(OWN), second)
    rewriter = MacRewriter(b"", second)
    assert rewriter.lan_mac(second) == second
    assert rewriter.lan_mac(QEMU_DEFAULT) not in (second, QEMU_DEFAULT)
    assert rewriter.to_lan([from_mac(second)]) == [from_mac(second)]
    assert MacRewriter(b"", QEMU_DEFAULT).lan_mac(QEMU_DEFAULT) != QEMU_DEFAULT, "the gateway's is nobody's"


SAMPLES = [bytes(build(View(DEFAULT, OWN))) for build in TO_LAN.values()]


@pytest.mark.parametrize("sample", SAMPLES, ids=list(TO_LAN))
def test_frames_that_end_anywhere_keep_their_length(sample):
    rewriter, *_ = started()
    frames = [sample[:length] for length in range(len(sample))]
    for rewrite in (rewriter.to_lan, rewriter.to_guest):
        assert [len(frame) for frame in rewrite(frames)] == list(range(len(sample)))


@given(st.sampled_from(SAMPLES), st.data())
def test_malformed_frames_keep_their_length_and_harm_nothing(sample, data):
    rewriter, *_ = started()
    frame = bytearray(sample[: data.draw(st.integers(0, len(sample)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    for rewrite in (rewriter.to_lan, rewriter.to_guest):
        (found,) = rewrite([bytes(frame)])
        assert len(found) == len(frame)


@pytest.mark.parametrize("sample", SAMPLES, ids=list(TO_LAN))
def test_frames_that_name_none_of_the_macs_stay_as_they_are(sample):
    rewriter, *_ = started(own="02:00:00:00:00:01")
    frame = sample.replace(QEMU_DEFAULT, raw(OTHER))
    frame = frame.replace(interface_id(QEMU_DEFAULT), interface_id(raw(OTHER)))
    assert rewriter.to_lan([frame]) == [frame]
    assert rewriter.to_guest([frame]) == [frame]

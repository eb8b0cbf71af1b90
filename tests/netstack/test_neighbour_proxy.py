"""Answers for guests of other workers, as scapy reads them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from netstack.address_pool import AddressPool
from netstack.neighbour import AddressBindings
from netstack.neighbour_proxy import NeighbourProxy, answer_for

HOLDER, ASKER = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
IP4, IP6 = "10.0.2.77", "fd00::77"
ALL = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def proxy():
    pool, bindings = AddressPool(), AddressBindings()
    pool.hold_elsewhere(HOLDER, (ip_address(IP4).packed,))
    bindings.hold_elsewhere(HOLDER, (ip_address(IP6).packed,))
    return NeighbourProxy(pool, bindings)


def arp(**fields):
    return bytes(Ether(src=ASKER.hex(":"), dst=ALL) / ARP(hwsrc=ASKER.hex(":"), **fields))


def solicitation(target=IP6, source="fe80::1"):
    ether = Ether(src=ASKER.hex(":"), dst="33:33:ff:00:00:77")
    packet = IPv6(src=source, dst="ff02::1:ff00:77", hlim=255) / ICMPv6ND_NS(tgt=target)
    return bytes(ether / packet / ICMPv6NDOptSrcLLAddr(lladdr=ASKER.hex(":")))


@pytest.mark.parametrize("sender", ["10.0.2.10", "0.0.0.0"])
def test_an_arp_request_is_answered_as_its_holder_would(proxy, sender):
    frame = arp(psrc=sender, pdst=IP4)
    assert proxy.holder(frame) == HOLDER
    answer = Ether(answer_for(HOLDER, frame))
    assert (answer.src, answer.dst) == (HOLDER.hex(":"), ASKER.hex(":"))
    assert (answer[ARP].op, answer[ARP].psrc, answer[ARP].pdst) == (2, IP4, sender)
    assert (answer[ARP].hwsrc, answer[ARP].hwdst) == (HOLDER.hex(":"), ASKER.hex(":"))


@pytest.mark.parametrize(
    ("source", "to", "solicited"), [("fe80::1", "fe80::1", 1), ("::", "ff02::1", 0)], ids=["asked", "DAD"]
)
def test_a_solicitation_is_answered_as_its_holder_would(proxy, source, to, solicited):
    frame = solicitation(source=source)
    assert proxy.holder(frame) == HOLDER
    answer = Ether(answer_for(HOLDER, frame))
    assert (answer.src, answer.dst) == (HOLDER.hex(":"), ASKER.hex(":"))
    assert (answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (IP6, to, 255)
    advertised = answer[ICMPv6ND_NA]
    assert (advertised.tgt, advertised.R, advertised.S, advertised.O) == (IP6, 0, solicited, 1)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == HOLDER.hex(":")
    rebuilt = answer.copy()
    del rebuilt[ICMPv6ND_NA].cksum
    assert bytes(rebuilt) == bytes(answer)


@pytest.mark.parametrize(
    "frame",
    [
        arp(psrc=IP4, pdst=IP4),
        arp(psrc="10.0.2.10", pdst="10.0.2.78"),
        arp(op=2, psrc="10.0.2.10", pdst=IP4),
        arp(psrc="10.0.2.10", pdst=IP4)[:41],
        solicitation(target="fd00::78"),
        solicitation()[:77],
        solicitation()[:20],
        solicitation().replace(b"\x86\xdd", b"\x08\0", 1),
        bytes(60),
    ],
    ids=["announces", "unknown", "reply", "runt", "unknown v6", "runt v6", "header", "not v6", "neither"],
)
def test_all_else_is_left_to_others(proxy, frame):
    assert proxy.holder(frame) is None

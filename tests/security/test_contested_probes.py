"""A Linux kernel that is about to take an address, and a neighbour who says that it has or wants it."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address
from types import SimpleNamespace

import pytest
from guests import BROADCAST, Guest
from kernel_guest import KernelGuest
from processes import Program
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from watch import spares_the_neighbour

from netstack.ipv6 import format_ipv6, multicast_mac, solicited_node

GATEWAY6, ADDRESSES6 = "fd76:6d72:656c:6179::2", "fd76:6d72:656c:6179::a{}"
ADDRESS4 = "10.0.2.77"
ALL_NODES_MAC = "33:33:00:00:00:01"
SETTLED = """
ip address add $0/64 dev $1
while ip -6 address show tentative | grep -v dadfailed | grep -q tentative; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def victim(relay):
    this_machine = SimpleNamespace(start=Program)
    guest = KernelGuest("victim", relay, this_machine)
    guest.run("sh", "-c", "while ip -6 address show tentative | grep -q .; do sleep 0.05; done")
    yield guest
    guest.leave()


def has_it6(attacker, target):
    packet = IPv6(src=target, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1)
    return Ether(dst=ALL_NODES_MAC) / packet / ICMPv6NDOptDstLLAddr(lladdr=attacker.mac)


def wants_it6(_attacker, target):
    group = solicited_node(IPv6Address(target).packed)
    packet = IPv6(src="::", dst=format_ipv6(group), hlim=255) / ICMPv6ND_NS(tgt=target)
    return Ether(dst=multicast_mac(group).hex(":")) / packet


def has_it4(attacker, target):
    return Ether(dst=BROADCAST) / ARP(op=2, hwsrc=attacker.mac, psrc=target, pdst=target)


def probed(packet):
    """The address for which a frame looks whether anybody has it."""
    if ICMPv6ND_NS in packet and packet[IPv6].src == "::":
        return packet[ICMPv6ND_NS].tgt
    if ARP in packet and packet[ARP].psrc == "0.0.0.0":
        return packet[ARP].pdst
    return None


async def contradict(relay, say, meanwhile):
    """Answer whoever looks for an address until a function has returned, in a thread of its own."""
    attacker = await Guest.join(relay)
    seen = []

    async def answer():
        while True:
            for frame in await attacker.next_frames():
                target = probed(Ether(frame))
                if target is not None:
                    claim = say(attacker, target)
                    claim.src = attacker.mac
                    attacker.send_frames([bytes(claim)])
                    seen.append(target)

    answering = asyncio.create_task(answer())
    await asyncio.to_thread(meanwhile)
    answering.cancel()
    attacker.client.close()
    return seen


@pytest.mark.parametrize("say", [has_it6, wants_it6])
def test_a_kernel_gets_the_ipv6_address_that_it_takes_whatever_a_neighbour_says(relay, victim, say):
    address = ADDRESSES6.format([has_it6, wants_it6].index(say))

    def take():
        victim.run("sh", "-c", SETTLED, address, victim.device)

    assert address in spares_the_neighbour(relay, lambda: contradict(relay, say, take))
    assert "dadfailed" not in victim.run("ip", "-6", "address", "show", "to", address).stdout
    assert victim.ping(GATEWAY6, "-I", address, count=1)[0] == 1


def test_arping_finds_an_address_free_whatever_a_neighbour_says(relay, victim):
    def look():
        victim.run("arping", "-D", "-c", 2, "-w", 3, "-I", victim.device, ADDRESS4)

    assert ADDRESS4 in spares_the_neighbour(relay, lambda: contradict(relay, has_it4, look))

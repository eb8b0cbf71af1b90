"""What no guest may say, behind every kind of tag, to a Linux kernel that believes what reaches it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from guests import GATEWAY_MAC, Guest
from kernel_guest import KernelGuest
from processes import PATIENCE, Program
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptPrefixInfo, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from watch import spares_the_neighbour

WRAPPINGS = {
    "none": [],
    "priority": [Dot1Q(vlan=0, prio=5)],
    "service tag": [Dot1AD(vlan=0)],
    "two priorities": [Dot1Q(vlan=0), Dot1Q(vlan=0)],
    "priority and service tag": [Dot1AD(vlan=0), Dot1Q(vlan=0)],
}
ROGUE_PREFIX = "2001:db8:bad::"


@pytest.fixture(scope="module")
def victim(relay):
    this_machine = SimpleNamespace(start=Program)
    guest = KernelGuest("victim", relay, this_machine)
    # An entry that was just learned may be overwritten, as any is a second later.
    guest.run("sysctl", "-qw", f"net.ipv4.neigh.{guest.device}.locktime=0")
    yield guest
    guest.leave()


def claims(attacker, victim, tags):
    """Frames that say that the attacker is the gateway and a router, to the victim and to all."""
    for destination in (victim.mac, "ff:ff:ff:ff:ff:ff"):
        header = Ether(src=attacker.mac, dst=destination)
        for tag in tags:
            header /= tag
        yield header / ARP(op=2, hwsrc=attacker.mac, psrc="10.0.2.2", hwdst=victim.mac, pdst=victim.address)
        router = IPv6(src="fe80::bad", dst="ff02::1", hlim=255) / ICMPv6ND_RA(routerlifetime=1800)
        prefix = ICMPv6NDOptPrefixInfo(prefix=ROGUE_PREFIX, prefixlen=64, A=1, L=1)
        yield header / router / ICMPv6NDOptSrcLLAddr(lladdr=attacker.mac) / prefix


async def attack(relay, victim, tags):
    """Send the claims; return when the victim has answered what was sent behind them."""
    attacker = await Guest.join(relay)
    frames = [bytes(frame) for frame in claims(attacker, victim, tags)]
    ping = IP(src=attacker.address, dst=victim.address) / ICMP(id=9, seq=1)
    who_has = ARP(hwsrc=attacker.mac, psrc=attacker.address, pdst=victim.address)
    attacker.send_frames(
        [
            *frames,
            bytes(Ether(src=attacker.mac, dst=victim.mac) / who_has),
            bytes(Ether(src=attacker.mac, dst=victim.mac) / ping),
        ]
    )
    async with asyncio.timeout(PATIENCE):
        while True:
            for frame in await attacker.next_frames():
                packet = Ether(frame)
                if ICMP in packet and packet[ICMP].type == 0:
                    attacker.client.close()
                    return


@pytest.mark.parametrize("tags", WRAPPINGS.values(), ids=WRAPPINGS)
def test_no_tag_makes_a_kernel_believe_a_neighbour_to_be_its_gateway(relay, victim, tags):
    assert victim.ping(victim.gateway, count=1)[0] == 1
    spares_the_neighbour(relay, lambda: attack(relay, victim, tags))
    assert GATEWAY_MAC in victim.run("ip", "neighbour", "show", victim.gateway).stdout
    assert ROGUE_PREFIX not in victim.run("ip", "-6", "address").stdout
    assert "fe80::bad" not in victim.run("ip", "-6", "route").stdout
    assert victim.ping(victim.gateway, count=1)[0] == 1

"""Frames in the name of others, to a Linux kernel that believes what reaches it, with a real third guest."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from guests import Guest
from kernel_guest import KernelGuest
from processes import PATIENCE, Program
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from watch import spares_the_neighbour

PORT = 7777


@pytest.fixture(scope="module")
def guests(relay):
    """Two kernels that know each other: the victim, and the third one in whose name it is told things."""
    this_machine = SimpleNamespace(start=Program)
    guests = [KernelGuest(role, relay, this_machine) for role in ("victim", "third")]
    for guest in guests:
        guest.run("sysctl", "-qw", f"net.ipv4.neigh.{guest.device}.locktime=0")
        guest.run("sh", "-c", "while ip -6 address show tentative | grep -q .; do :; done")
    yield guests
    for guest in guests:
        guest.leave()


def link_local(guest):
    (address,) = [a for a in guest.namespace.addresses(guest.device) if a.startswith("fe80:")]
    return address.partition("/")[0]


async def send_and_wait(relay, victim, *packets):
    """Send as an attacker; return when the victim has answered what was sent behind it."""
    attacker = await Guest.join(relay)
    header = Ether(src=attacker.mac, dst=victim.mac)
    ping = IP(src=attacker.address, dst=victim.address) / ICMP(id=9, seq=1)
    who_has = ARP(hwsrc=attacker.mac, psrc=attacker.address, pdst=victim.address)
    frames = [bytes(header / packet) for packet in (*(p(attacker.mac) for p in packets), who_has, ping)]
    attacker.send_frames(frames)
    async with asyncio.timeout(PATIENCE):
        while True:
            for frame in await attacker.next_frames():
                packet = Ether(frame)
                if ICMP in packet and packet[ICMP].type == 0:
                    attacker.client.close()
                    return


def neighbour(victim, address):
    return victim.run("ip", "neighbour", "show", address).stdout


def test_arp_for_a_third_guest_changes_nothing(relay, guests):
    victim, third = guests
    assert victim.ping(third.address, count=1)[0] == 1

    def reply(attacker):
        return ARP(op=2, hwsrc=attacker, psrc=third.address, hwdst=victim.mac, pdst=victim.address)

    def request(attacker):
        return ARP(op=1, hwsrc=attacker, psrc=third.address, pdst=victim.address)

    spares_the_neighbour(relay, lambda: send_and_wait(relay, victim, reply, request))
    assert third.mac in neighbour(victim, third.address)
    assert victim.ping(third.address, count=1)[0] == 1


def test_neighbour_discovery_for_a_third_guest_changes_nothing(relay, guests):
    victim, third = guests
    theirs, own = link_local(third), link_local(victim)
    assert victim.ping(f"{theirs}%{victim.device}", count=1)[0] == 1

    def advertisement(attacker):
        packet = IPv6(src=theirs, dst=own, hlim=255) / ICMPv6ND_NA(tgt=theirs, S=1, O=1, R=0)
        return packet / ICMPv6NDOptDstLLAddr(lladdr=attacker)

    def in_its_own_name(attacker):
        packet = IPv6(src="fe80::bad", dst=own, hlim=255) / ICMPv6ND_NA(tgt=theirs, S=0, O=1, R=0)
        return packet / ICMPv6NDOptDstLLAddr(lladdr=attacker)

    def solicitation(attacker):
        packet = IPv6(src=theirs, dst=own, hlim=255) / ICMPv6ND_NS(tgt=own)
        return packet / ICMPv6NDOptSrcLLAddr(lladdr=attacker)

    claims = advertisement, in_its_own_name, solicitation
    spares_the_neighbour(relay, lambda: send_and_wait(relay, victim, *claims))
    assert third.mac in neighbour(victim, theirs)
    assert victim.ping(f"{theirs}%{victim.device}", count=1)[0] == 1


@pytest.mark.parametrize("source", ["third", "10.0.2.2", "8.8.8.8", "10.0.2.255"])
def test_datagrams_in_the_name_of_others_do_not_arrive(relay, guests, source):
    victim, third = guests
    with victim.namespace.socket() as listener:
        listener.bind(("0.0.0.0", PORT))
        address = third.address if source == "third" else source

        def datagram(_attacker):
            return IP(src=address, dst=victim.address) / UDP(sport=1, dport=PORT) / Raw(b"spoofed")

        spares_the_neighbour(relay, lambda: send_and_wait(relay, victim, datagram))
        with third.namespace.socket() as sender:
            sender.sendto(b"true", (victim.address, PORT))
        assert listener.recvfrom(100)[0] == b"true"

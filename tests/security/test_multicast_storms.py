"""Multicast among Linux kernels: who joined a group gets it, who did not is not troubled by it."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from types import SimpleNamespace

import pytest
from kernel_guest import KernelGuest
from processes import PATIENCE, Program
from watch import spares_the_neighbour

from netstack.multicast import may_be_membership

PORT = 5004
COUNT = 1000
"""Datagrams: five seconds' worth of what a port may flood."""
GROUPS = {4: ("239.1.2.3", "01:00:5e:01:02:03"), 6: ("ff05::1234", "33:33:00:00:12:34")}
ETH_P_ALL = 3


@pytest.fixture(scope="module")
def guests(relay):
    """Two that will join, one that will not, and one that sends."""
    this_machine = SimpleNamespace(start=Program)
    guests = [KernelGuest(role, relay, this_machine) for role in ("one", "two", "third", "sender")]
    for guest in guests:
        guest.run("sh", "-c", "while ip -6 address show tentative | grep -q .; do :; done")
    yield guests
    for guest in guests:
        guest.leave()


def index_of(guest):
    return int(guest.run("cat", f"/sys/class/net/{guest.device}/ifindex").stdout)


@contextlib.contextmanager
def member(guest, version):
    """A program on a guest that joined the group."""
    group, index = GROUPS[version][0], index_of(guest)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with (
        guest.namespace.socket(socket.SOCK_DGRAM, family=family) as receiver,
        guest.namespace.socket(socket.SOCK_RAW, family=socket.AF_PACKET) as tap,
    ):
        tap.bind((guest.device, ETH_P_ALL))
        receiver.settimeout(PATIENCE)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind((group, PORT))
        if version == 4:
            request = struct.pack("4s4si", socket.inet_aton(group), bytes(4), index)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        while True:  # until the kernel has reported it
            frame, (*_, direction, _, _) = tap.recvfrom(2000)
            if direction == socket.PACKET_OUTGOING and may_be_membership(frame):
                break
        # Its answer comes behind the report.
        assert guest.ping(guest.gateway, count=1)[0] == 1
        yield receiver


def send(guest, version, payloads):
    """Send to the group, little by little, as video would come."""
    group, index = GROUPS[version][0], index_of(guest)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with guest.namespace.socket(socket.SOCK_DGRAM, family=family) as sender:
        if version == 4:
            request = struct.pack("4s4si", bytes(4), bytes(4), index)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for number, payload in enumerate(payloads):
            sender.sendto(payload, (group, PORT))
            if number % 20 == 19:
                time.sleep(0.005)  # the pace of the sender, not a wait for anything


@contextlib.contextmanager
def frames_of(guest, version):
    """Count the frames for the group that reach a guest's NIC; a list that fills at the end."""
    seen, wanted = [], bytes.fromhex(GROUPS[version][1].replace(":", ""))
    with guest.namespace.socket(socket.SOCK_RAW, family=socket.AF_PACKET) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        tap.bind((guest.device, ETH_P_ALL))
        yield seen
        # Its answer comes behind all that was on its way.
        assert guest.ping(guest.gateway, count=1)[0] == 1
        tap.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = tap.recv(2000)
                if frame.startswith(wanted):
                    seen.append(frame)


def received(receiver, last):
    """What comes, up to ``last``."""
    found = []
    while not found or found[-1] != last:
        found.append(receiver.recv(100))
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_who_joined_gets_all_and_who_did_not_gets_none(relay, guests, version):
    one, two, third, sender = guests
    payloads = [b"%d" % number for number in range(COUNT)]
    before = relay.counters()
    with member(one, version) as first, member(two, version) as second:

        def attack():
            send(sender, version, payloads)
            assert received(first, payloads[-1]) == payloads
            assert received(second, payloads[-1]) == payloads

        with frames_of(third, version) as seen:
            spares_the_neighbour(relay, attack)
    assert seen == []
    counters = relay.counters() - before
    assert counters["switch.multicast"] >= COUNT
    assert counters["switch.drop.flood_rate"] == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_group_that_nobody_joined_is_flooded_within_the_budget(relay, guests, version):
    *_, third, sender = guests
    group = {4: ("239.77.0.1", "01:00:5e:4d:00:01"), 6: ("ff05::77", "33:33:00:00:00:77")}[version]
    before = relay.counters()
    saved, GROUPS[version] = GROUPS[version], group
    try:
        with frames_of(third, version) as seen:
            spares_the_neighbour(relay, lambda: send(sender, version, [b"x"] * COUNT))
    finally:
        GROUPS[version] = saved
    dropped = (relay.counters() - before)["switch.drop.flood_rate"]
    assert 0 < len(seen) < COUNT
    assert dropped > 0

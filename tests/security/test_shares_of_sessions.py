"""Sessions that take all flows or addresses, clients that take all descriptors: others still get through."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading

import pytest
from guests import GATEWAY_MAC, Guest
from name_server import ANSWER, answer
from processes import PATIENCE, Relay
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from watch import spares_the_neighbour

LOOPBACK = ("--allow-cidr", "127.0.0.1")


class Answering:
    """A UDP port of this machine that answers every datagram with what ``answer`` makes of it."""

    def __init__(self, make_answer):
        self._answer = make_answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(PATIENCE)
        self._socket.close()

    def _run(self):
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._answer(data), client)


def packet_to(guest, destination, transport):
    return bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src=guest.address, dst=destination) / transport)


async def answer_to(guest, frame, expected):
    """Send a frame until a frame comes back that ``expected`` takes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            guest.send_frames([frame])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while True:
                        for got in map(Ether, await guest.next_frames()):
                            if expected(got):
                                return got


def is_echo(port):
    return lambda got: UDP in got and got[UDP].dport == port and got[UDP].payload.load == b"question"


async def takes_all_flows(relay, port):
    """A session that opens as many UDP flows as it gets."""
    guest = await Guest.join(relay)
    for first in range(1000, 1600, 50):
        frames = [
            packet_to(guest, "127.0.0.1", UDP(sport=number, dport=port) / Raw(b"question"))
            for number in range(first, first + 50)
        ]
        guest.send_frames(frames)
        await asyncio.sleep(0.02)
    return guest


def test_two_sessions_that_open_flows_without_end():
    relay = Relay(*LOOPBACK, "--max-flows-total", 60)

    async def main(port):
        attackers = [await takes_all_flows(relay, port) for _ in range(2)]
        guest = await Guest.join(relay)
        question = UDP(sport=4000, dport=port) / Raw(b"question")
        await answer_to(guest, packet_to(guest, "127.0.0.1", question), is_echo(4000))
        for client in (*attackers, guest):
            client.client.close()

    with Answering(bytes) as echo:
        spares_the_neighbour(relay, lambda: main(echo.port))
    assert relay.counters()["gateway.drop.flow_share"] > 0
    relay.stop()


async def takes_all_addresses(relay, number):
    """A session with as many guests as a port may have, that use as many addresses as they get."""
    guest = await Guest.join(relay)
    for last in range(10, 255):
        mac = f"52:54:00:99:{number:02x}:{last % 8:02x}"
        announcement = ARP(op=1, hwsrc=mac, psrc=f"10.0.2.{last}", pdst=f"10.0.2.{last}")
        guest.send_frames([bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / announcement)])
        await guest.client.wait_writable()
    return guest


def test_seven_sessions_that_take_addresses_without_end():
    relay = Relay()

    async def main():
        guests = []
        for _ in range(2):  # again, for what they are allowed at a time
            guests += [await takes_all_addresses(relay, number) for number in range(7)]
            await asyncio.sleep(1)
        guests += [await asyncio.wait_for(Guest.join(relay), PATIENCE) for _ in range(20)]
        for guest in guests:
            guest.client.close()

    spares_the_neighbour(relay, main)
    counters = relay.counters()
    assert counters["switch.drop.address_share"] > 0
    assert counters["gateway.pool_full"] == 0
    relay.stop()


def test_no_socket_is_opened_for_what_is_denied():
    relay = Relay()

    async def main():
        guest = await Guest.join(relay)
        for number in range(100):
            frame = packet_to(guest, "127.0.0.1", UDP(sport=2000 + number, dport=9) / Raw(b"question"))
            guest.send_frames([frame])
        await answer_to(guest, guest.echo_request(7, b"payload"), lambda got: got.haslayer("ICMP"))
        guest.client.close()

    spares_the_neighbour(relay, main)
    counters = relay.counters()
    assert counters["gateway.drop.denied"] > 0
    assert counters["gateway.flows_opened"] == 0
    relay.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the number of descriptors is Linux's to limit here")
def test_idle_clients_leave_descriptors_to_those_inside():
    with (
        Answering(bytes) as echo,
        Answering(answer) as names,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        relay = Relay(
            *LOOPBACK,
            "--allow-cidr",
            ANSWER,
            "--upstream-dns",
            f"127.0.0.1:{names.port}",
            before=("sh", "-c", 'ulimit -n 256; exec "$@"', "sh"),
        )

        async def main():
            guest = await Guest.join(relay)
            with contextlib.ExitStack() as stack:
                for _ in range(250):
                    stack.enter_context(socket.create_connection((relay.host, relay.port)))
                question = UDP(sport=4000, dport=echo.port) / Raw(b"question")
                await answer_to(guest, packet_to(guest, "127.0.0.1", question), is_echo(4000))
                query = UDP(sport=4001, dport=53) / DNS(rd=1, qd=DNSQR(qname="www.example.com"))
                got = await answer_to(guest, packet_to(guest, "10.0.2.2", query), lambda got: DNS in got)
                assert got[DNS].an[0].rdata == ANSWER
                syn = TCP(sport=4002, dport=server.getsockname()[1], flags="S", seq=1)
                got = await answer_to(guest, packet_to(guest, "127.0.0.1", syn), lambda got: TCP in got)
                assert got[TCP].flags == "SA"
            guest.client.close()

        spares_the_neighbour(relay, main)
        counters = relay.counters()
        assert counters["web.drop.too_many_of_one_address"] + counters["web.evicted"] > 0
        relay.stop()

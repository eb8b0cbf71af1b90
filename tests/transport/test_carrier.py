"""What a carrier does on real sockets: batches through the kernel, and links that are narrow.

How both roles treat packets, timers and aioquic is in test_connection, test_connection_shares and
test_client_connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from endpoint_parts import pinned, receive, running_endpoint
from host_parts import in_namespace, ip
from waiting import until

from guest import client as client_module
from guest.client import connect
from netstack.counters import Counters
from transport.quic.carrier import PACKET_OVERHEAD
from transport.quic.path_mtu import BASE, CEILING

IP_AND_UDP = 28


async def exchange(client, batches):
    """Have the relay echo datagrams that fit the smallest packets."""
    size = BASE - PACKET_OVERHEAD - 1
    for number in range(batches):
        sent = [bytes([number, n]) + bytes(size - 2) for n in range(20)]
        client.send(sent)
        assert await receive(client, len(sent)) == sent


class Counting:
    """A socket that counts the calls which move packets."""

    def __init__(self, inner):
        self.inner = inner
        self.sends = self.receives = 0

    def sendmsg(self, *args):
        self.sends += 1
        return self.inner.sendmsg(*args)

    def send(self, *args):
        self.sends += 1
        return self.inner.send(*args)

    def recvmsg(self, *args):
        received = self.inner.recvmsg(*args)
        self.receives += 1
        return received

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_client_takes_and_gives_many_packets_with_one_call():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            await exchange(client, 20)  # the window has grown
            opened: Any = client._socket
            assert opened.send_offload
            assert opened.receive_offload
            counting = opened._socket = Counting(opened._socket)
            await exchange(client, 10)
            client.close()
            assert counting.sends <= 40  # 200 datagrams and their acknowledgements
            assert counting.receives <= 60

    asyncio.run(scenario())


def test_packets_grow_on_a_link_that_takes_more():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            await exchange(client, 20)
            await until(lambda: client.datagram_limit == CEILING - PACKET_OVERHEAD - 1)
            sent = [bytes([n]) * client.datagram_limit for n in range(50)]
            client.send(sent)
            assert await receive(client, len(sent)) == sent
            client.close()

    asyncio.run(scenario())


def test_a_link_too_narrow_for_a_probe_does_not_end_the_session(monkeypatch):
    """The kernel refuses such a probe with EMSGSIZE, which says nothing of the relay."""
    monkeypatch.setattr(client_module, "REFUSED_GRACE", 0.05)

    async def main():
        ip(f"link set lo mtu {BASE + 100 + IP_AND_UDP}")
        counters = Counters()
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned(), counters=counters)
            await exchange(client, 20)
            await until(lambda: counters["udp.drop.send_error"])
            await asyncio.sleep(0.2)  # longer than a server may be silent that is taken for gone
            await exchange(client, 1)
            assert client.end is None
            assert client.datagram_limit + PACKET_OVERHEAD < BASE + 100
            client.close()

    in_namespace(main)

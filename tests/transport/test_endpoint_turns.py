"""Who waits in which line when a turn of the endpoint has no time for all."""

from __future__ import annotations

import contextlib
import socket

from endpoint_parts import ask, first_packet, headers, run, running_endpoint, udp_client
from quic_parts import Forge, client_configuration
from waiting import until

from transport.quic.endpoint import FEW_PACKETS
from transport.work_shares import BEHIND_SHARE, WorkAccount


def port_of(opened):
    return opened.getsockname()[1]


def ports_in(line):
    return {connection.pending_address[1] for connection in line}


async def session(relay, stack):
    """The port of a session, and a function that sends some of its datagrams."""
    client = await stack.enter_async_context(udp_client(client_configuration(), relay.address))
    assert await ask(client, headers()) == b"200"
    forge = Forge(client.client)

    def send(count):
        for number in range(count):
            client.transport.sendto(forge.datagram(b"%d" % number))

    return port_of(client.transport.get_extra_info("socket")), send


def test_who_has_few_packets_waits_apart_from_floods_and_handshakes():
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            relay = await stack.enter_async_context(running_endpoint())
            # Each may send an acknowledgement as well.
            counts = {"many": FEW_PACKETS + 1, "costly": 1, "enough": FEW_PACKETS - 2, "few": 4, "served": 1}
            ways = {name: await session(relay, stack) for name in counts}
            port = {name: way[0] for name, way in ways.items()}
            for connection in relay.endpoint._live:
                # Whatever this machine did while they began.
                connection.watched_until = 0.0
                connection.work = WorkAccount(now := relay.endpoint.clock())
                if connection._address[1] == port["costly"]:
                    connection.work.charge(1.0, 0.0, now)
            last = relay.endpoint.last_turns
            last.share = 0.0  # nobody is served but the first
            newcomer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for name, count in counts.items():
                ways[name][1](count)
                if name == "many":
                    newcomer.sendto(first_packet(), relay.address)
            await until(lambda: len(last) >= 5)
            assert ports_in(last._light) == {port["few"], port["enough"]}
            assert ports_in(last._heavy) == {port["many"], port["costly"], port_of(newcomer)}
            last.share = BEHIND_SHARE
            await until(lambda: len(last) == 0)

    run(scenario)

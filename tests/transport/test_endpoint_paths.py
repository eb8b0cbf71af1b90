"""Where packets go: to addresses of the machine and of clients that move, and by connection IDs."""

from __future__ import annotations

import socket
from functools import partial

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from endpoint_parts import (
    UdpClient,
    answer_to,
    ask,
    exchange,
    first_packet,
    headers,
    run,
    running_endpoint,
    udp_client,
)
from host_parts import has_addresses
from quic_parts import Forge, client_configuration
from waiting import until

from transport.quic import endpoint as endpoint_module
from transport.quic.aioquic_internals import CONNECTION_IDS

# -- every address of the machine ----------------------------------------------------------------------

EVERYWHERE = [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")]


@pytest.mark.parametrize("retry", [False, True], ids=["", "after a Retry"])
@pytest.mark.parametrize(("anywhere", "host"), EVERYWHERE)
def test_a_client_is_answered_from_the_address_that_it_writes_to(monkeypatch, anywhere, host, retry):
    if retry:
        monkeypatch.setattr(endpoint_module, "RETRY_HANDSHAKES", 0)

    async def scenario():
        async with running_endpoint(host=anywhere) as relay:
            address = (host, relay.endpoint.port)
            async with udp_client(client_configuration(), address) as client:
                assert await ask(client, headers()) == b"200"
                await exchange(client, 5)
                own, port = client.transport.get_extra_info("sockname")[:2]
                shown = f"[{own}]" if ":" in own else own
                assert relay.peers[0].session.remote == f"{shown}:{port}"
                assert relay.counters["endpoint.retry"] == retry
                assert relay.counters["endpoint.invalid_token"] == 0
            packet = bytearray(first_packet())
            packet[1:5] = b"\x1a\x2a\x3a\x4a"
            answer = await answer_to(bytes(packet), address)
            assert pull_quic_header(Buffer(data=answer), host_cid_length=8).packet_type == (
                QuicPacketType.VERSION_NEGOTIATION
            )

    run(scenario)


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "::"])
def test_a_client_that_writes_to_another_address_is_answered_from_there(anywhere):
    async def scenario():
        async with running_endpoint(host=anywhere) as relay:
            port = relay.endpoint.port
            async with udp_client(client_configuration(), ("127.0.0.2", port)) as client:
                assert await ask(client, headers()) == b"200"
                await exchange(client, 5)
                own = client.transport.get_extra_info("sockname")[:2]
                for turn, host in enumerate(("127.0.0.3", "127.0.0.4", "127.0.0.2", "127.0.0.3")):
                    await client.open_socket((host, port), local=own)
                    await exchange(client, 5 * (turn + 2))
                    # And when the relay speaks first.
                    relay.peers[0].session.send([b"to %s" % host.encode()])
                    await client.until(lambda host=host: b"to %s" % host.encode() in client.client.datagrams)
                    client.client.datagrams.remove(b"to %s" % host.encode())
                assert relay.peers[0].session.remote == "{}:{}".format(*own)
                assert relay.counters["connection.failed"] == 0

    run(scenario)


def test_clients_come_to_any_address_of_a_name_and_may_change_to_another(monkeypatch):
    hosts = ("127.0.0.1", "127.0.0.2", "::1")
    has_addresses(monkeypatch, "relay.example", *hosts)

    async def scenario():
        async with running_endpoint(host="relay.example") as relay:
            port = relay.endpoint.port
            for host in hosts:
                async with udp_client(client_configuration(), (host, port)) as client:
                    assert await ask(client, headers()) == b"200"
                    await exchange(client, 5)
                    own, number = client.transport.get_extra_info("sockname")[:2]
                    shown = f"[{own}]" if ":" in own else own
                    assert relay.peers[-1].session.remote == f"{shown}:{number}"
            async with udp_client(client_configuration(), ("127.0.0.1", port)) as client:
                assert await ask(client, headers()) == b"200"
                await exchange(client, 5)
                for turn, host in enumerate(("127.0.0.2", "127.0.0.1")):
                    await client.open_socket((host, port))
                    await exchange(client, 5 * (turn + 2))
            assert relay.counters["connection.failed"] == 0

    run(scenario)


# -- clients that move ---------------------------------------------------------------------------------


async def go_on(client, forge):
    """Have the client's own packets follow those that were forged in its name, and be answered."""
    client.quic._packet_number = forge.number
    client.client.send(b"here")
    client.flush()
    await client.until(lambda: b"here" in client.client.datagrams)


def junk(forge):
    """What anybody can send who has seen a packet of the connection."""
    return b"\x40" + forge.cid + bytes(100)


def charge(relay):
    """Have the work of the only connection charged to it."""
    (connection,) = relay.endpoint._live
    connection.watched_until = float("inf")


@pytest.mark.parametrize("most", [1, 0], ids=["", "whose work is charged"])
def test_who_sends_from_two_ports_by_turns_moves_once_in_a_turn(most):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            if not most:
                charge(relay)
            forge = Forge(client.client)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(junk(forge), relay.address)  # has a turn for itself, perhaps
                for number in range(20):
                    other.sendto(forge.datagram(b"b%d" % number), relay.address)
                    client.transport.sendto(forge.datagram(b"a%d" % number))
                await until(lambda: relay.counters["endpoint.drop.moving"] >= 18)
            await go_on(client, forge)
            told = relay.peers[0].datagrams
            assert [data for data in told if data[:1] == b"a"] == [b"a%d" % number for number in range(20)]
            assert len([data for data in told if data[:1] == b"b"]) <= most
            assert relay.counters["connection.failed"] == 0

    run(scenario)


def test_who_sends_in_a_clients_name_from_elsewhere_keeps_nothing_from_it():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            charge(relay)
            forge = Forge(client.client)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(junk(forge), relay.address)  # has a turn for itself, perhaps
                for number in range(20):
                    other.sendto(junk(forge), relay.address)
                    client.transport.sendto(forge.datagram(b"%d" % number))
            await go_on(client, forge)
            assert relay.peers[0].datagrams == [*(b"%d" % number for number in range(20)), b"here"]
            assert relay.counters["endpoint.drop.moving"] > 0

    run(scenario)


# -- connection IDs ------------------------------------------------------------------------------------


class Restless(UdpClient):
    """A client that takes a new connection ID for whatever it sends, as soon as it has been given one."""

    def __init__(self, *arguments, limit):
        super().__init__(*arguments)
        self.quic._local_active_connection_id_limit = limit
        self.changes = 0

    def flush(self):
        if self.quic._peer_cid_available:
            self.quic.change_connection_id()
            self.changes += 1
        elif self.quic._handshake_confirmed and not self.changes:
            return  # its first word after the handshake is under another ID
        super().flush()


@pytest.mark.parametrize("retry", [False, True], ids=["", "after a Retry"])
@pytest.mark.parametrize("limit", [2, CONNECTION_IDS])
def test_connection_ids_are_good_from_the_moment_they_are_issued(monkeypatch, retry, limit):
    if retry:
        monkeypatch.setattr(endpoint_module, "RETRY_HANDSHAKES", 0)

    async def scenario():
        make = partial(Restless, limit=limit)
        async with (
            running_endpoint() as relay,
            udp_client(client_configuration(), relay.address, make) as client,
        ):
            assert await ask(client, headers()) == b"200"
            await exchange(client, 20)
            assert client.changes > 20
            assert client.client.datagrams == [b"%d" % turn for turn in range(20)]
            assert relay.counters["endpoint.retry"] == retry
            assert relay.counters["endpoint.drop.unknown_connection"] == 0

    run(scenario)


def test_retired_connection_ids_are_forgotten_and_replaced_at_once():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            (connection,) = relay.endpoint._live
            original = {client.quic.original_destination_connection_id}
            for turn in range(3 * CONNECTION_IDS):
                before = {entry.cid for entry in connection.quic._host_cids}
                client.quic.change_connection_id()
                client.client.send(b"%d" % turn)
                client.flush()
                await client.until(lambda turn=turn: b"%d" % turn in client.client.datagrams)
                await client.until(lambda: len(client.quic._peer_cid_available) == CONNECTION_IDS - 1)
                issued = {entry.cid for entry in connection.quic._host_cids}
                assert len(issued - before) == len(before - issued) == 1
                assert set(relay.endpoint._connections) == issued | original

    run(scenario)

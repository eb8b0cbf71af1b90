"""What strangers are answered: versions, Retry, and how many connections there may be."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header
from endpoint_parts import (
    answer_to,
    ask,
    first_packet,
    headers,
    pinned,
    receive,
    run,
    running_endpoint,
    udp_client,
)
from quic_parts import Forge, client_configuration
from waiting import until

from guest.client import connect
from transport.quic import connection as connection_module
from transport.quic import endpoint as endpoint_module
from transport.quic.invariants import connection_ids_of
from transport.quic.path_mtu import LARGEST_PACKET
from transport.quic.udp import send_run

CLIENT = ("192.0.2.1", 4000)


@pytest.mark.parametrize("first", [0xC0, 0x80, 0xF0], ids=["as version 1", "no fixed bit", "another type"])
@pytest.mark.parametrize("sizes", [(8, 8), (20, 0), (21, 8), (255, 255)])
def test_an_unknown_version_is_told_the_known_ones(first, sizes):
    """Of such a packet nothing is known but its connection IDs, which may have 255 bytes (RFC 8999)."""
    destination, source = (bytes(range(size)) for size in sizes)
    packet = bytes((first, 0x1A, 0x2A, 0x3A, 0x4A, sizes[0])) + destination + bytes((sizes[1],)) + source

    async def scenario():
        async with running_endpoint() as relay:
            answer = await answer_to(packet.ljust(1200, b"\xff"), relay.address)
            assert answer[0] & 0x80
            assert connection_ids_of(answer) == (source, destination)
            ids = 7 + sum(sizes)
            assert answer[1:5] == bytes(4)
            assert answer[ids:] == QuicProtocolVersion.VERSION_1.to_bytes(4, "big")
            assert relay.endpoint.connection_count == 0
            assert relay.counters["endpoint.version_negotiation"] == 1

    run(scenario)


def test_a_packet_of_another_version_for_a_connection_is_not_answered():
    async def scenario():
        async with running_endpoint() as relay:
            packet = bytearray(first_packet())
            await answer_to(bytes(packet), relay.address)
            packet[1:5] = b"\x1a\x2a\x3a\x4a"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.setblocking(False)
                raw.connect(relay.address)
                raw.send(bytes(packet))
                await until(lambda: relay.counters["endpoint.drop.unsolicited"] == 1)
                with pytest.raises(BlockingIOError):
                    raw.recv(2000)

    run(scenario)


def test_small_packets_of_strangers_are_not_answered():
    async def scenario():
        async with running_endpoint() as relay:
            packet = bytearray(first_packet())
            packet[1:5] = b"\x1a\x2a\x3a\x4a"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.setblocking(False)
                raw.connect(relay.address)
                raw.send(bytes(packet[:1100]))
                raw.send(first_packet()[:1199])
                await until(lambda: relay.counters["endpoint.drop.unsolicited"] == 2)
                with pytest.raises(BlockingIOError):
                    raw.recv(2000)

    run(scenario)


def test_packets_larger_than_any_path_carries_are_dropped_unread():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            assert client.quic.peer_packet_limit == LARGEST_PACKET, "clients that search for more know"
            forge = Forge(client.client)
            room = LARGEST_PACKET - (len(forge.datagram(bytes(100))) - 100)
            for size in (room, room + 1, 4_000, 9_000):
                client.transport.sendto(forge.datagram(b"x" * size))
            await until(lambda: relay.counters["endpoint.drop.too_large"] == 3)
            assert len(forge.datagram(b"x" * room)) == LARGEST_PACKET
            await until(lambda: relay.peers[0].datagrams == [b"x" * room])
            assert not relay.peers[0].closed.done()

    run(scenario)


def test_each_packet_of_a_run_that_is_too_large_is_counted():
    async def scenario():
        async with running_endpoint() as relay:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.connect(relay.address)
                packets = [b"\x40" + bytes(LARGEST_PACKET)] * 3
                try:
                    send_run(stranger, packets, None)
                except OSError:  # a kernel that cuts no runs
                    for packet in packets:
                        stranger.send(packet)
                await until(lambda: relay.counters["endpoint.drop.too_large"] == 3)

    run(scenario)


def test_under_load_clients_show_their_address_first(monkeypatch):
    monkeypatch.setattr(endpoint_module, "RETRY_HANDSHAKES", 0)

    async def scenario():
        async with running_endpoint() as relay:
            answer = await answer_to(first_packet(), relay.address)
            header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
            assert header.packet_type == QuicPacketType.RETRY
            assert header.source_cid[:1] == b"\0"
            assert len(header.source_cid) == 8
            assert relay.endpoint.connection_count == 0
            clients = await asyncio.gather(*[connect(relay.url, pinned()) for _ in range(5)])
            for client in clients:
                client.send([b"through a retry"])
                assert await receive(client, 1) == [b"through a retry"]
                client.close()
            assert relay.counters["endpoint.retry"] >= 6
            assert relay.counters["endpoint.invalid_token"] == 0

    run(scenario)


@pytest.mark.parametrize("kind", ["of this version", "of another version", "short"])
def test_of_a_crowd_of_strangers_some_are_answered_in_a_turn_and_clients_are_served(kind, monkeypatch):
    packet = bytearray(first_packet())
    if kind == "of another version":
        packet[1:5] = b"\x1a\x2a\x3a\x4a"
    elif kind == "short":
        packet[0] = 0x40

    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            for limit, value in (("RETRY_HANDSHAKES", 0), ("STRANGERS_SHARE", 0.0), ("FEW_STRANGERS", 3)):
                monkeypatch.setattr(endpoint_module, limit, value)
            (connection,) = relay.endpoint._live
            forge = Forge(client.client)
            known = [forge.datagram(b"%d" % number) for number in range(2)]
            relay.endpoint._turn(
                [
                    (known[:1], connection.address),
                    ([bytes(packet)] * 10, CLIENT),
                    (known[1:], connection.address),
                ]
            )
            assert relay.counters["endpoint.drop.crowd"] == 7
            assert relay.peers[0].datagrams == [b"0", b"1"]

    run(scenario)


def test_packets_of_a_handshake_are_told_from_a_crowds(monkeypatch):
    monkeypatch.setattr(endpoint_module, "STRANGERS_SHARE", 0.0)
    monkeypatch.setattr(endpoint_module, "FEW_STRANGERS", 1)

    async def scenario():
        async with running_endpoint() as relay:
            packet = first_packet()
            relay.endpoint._turn([([packet], CLIENT)])
            (connection,) = relay.endpoint._live
            heard = connection.quic._network_paths[0].bytes_received
            relay.endpoint._turn([([b"\x40" + bytes(99)] * 3 + [packet], CLIENT)])
            assert connection.quic._network_paths[0].bytes_received == 2 * heard
            assert relay.counters["endpoint.drop.crowd"] == 2

    run(scenario)


def test_a_forged_token_does_not_hurt(monkeypatch):
    async def scenario():
        configuration = client_configuration()
        configuration.token = b"from an earlier life"
        async with running_endpoint() as relay, udp_client(configuration, relay.address) as client:
            assert await ask(client, headers()) == b"200"
            assert relay.counters["endpoint.invalid_token"] == 1

    run(scenario)


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_HANDSHAKES"])
def test_connections_and_handshakes_have_a_limit(monkeypatch, limit):
    monkeypatch.setattr(endpoint_module, limit, 3)
    monkeypatch.setattr(connection_module, "SESSION_DEADLINE", 1.0)

    async def scenario():
        async with running_endpoint() as relay:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.connect(relay.address)
                for _ in range(10):
                    raw.send(first_packet())
                await until(lambda: relay.counters["endpoint.drop.too_many_connections"] == 7)
            assert relay.endpoint.connection_count == 3
            await until(lambda: relay.endpoint.connection_count == 0)
            client = await connect(relay.url, pinned())
            client.close()

    run(scenario)


@pytest.mark.parametrize(("limit", "left"), [("MAX_CONNECTIONS", 1), ("MAX_HANDSHAKES", 4)])
def test_one_address_leaves_connections_and_handshakes_for_others(monkeypatch, bound, limit, left):
    monkeypatch.setattr(endpoint_module, limit, 8)

    async def scenario():
        async with running_endpoint(client_share=98) as relay:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.bind(("127.0.0.2", 0))
                raw.connect(relay.address)
                for _ in range(10):
                    raw.send(first_packet())
                await until(lambda: relay.counters["endpoint.drop.too_many_of_one_address"] == 2 + left)
                assert relay.endpoint.connection_count == 8 - left
                client = await connect(relay.url, pinned())
                client.close()

    run(scenario)
    event = next(extra for extra in bound if extra.get("event") == "refused")
    assert (event["carrier"], event["why"]) == ("webtransport", "too many connections of one address")
    assert event["remote"].startswith("127.0.0.2:")

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest
from admission_parts import OpenDoor
from aioquic.h3.connection import ErrorCode
from endpoint_parts import (
    Crowd,
    EchoPeer,
    FailingCounters,
    ask,
    errors_of_the_loop,
    exchange,
    first_packet,
    headers,
    pinned,
    receive,
    run,
    running_endpoint,
    udp_client,
)
from forged_initials import ForgedInitials, crypto_frame
from quic_parts import CERTIFICATES, client_configuration
from waiting import PATIENCE, until

from actors.runtime import current_scheduler
from guest.client import connect
from netstack.counters import Counters
from transport.certificates import EphemeralCertificateStore
from transport.quic import connection as connection_module
from transport.quic import endpoint as endpoint_module
from transport.quic.endpoint import Endpoint, carries_frames
from transport.quic.udp import bound_udp_sockets, receive_buffer
from transport.work_shares import BEHIND_SHARE, BEHIND_SHARE_OF_SMALL

CLIENT = ("192.0.2.1", 4000)


# -- sessions ------------------------------------------------------------------------------------------


def test_many_clients_get_their_own_echo():
    async def scenario():
        async with running_endpoint() as relay:
            clients = await asyncio.gather(*[connect(relay.url, pinned()) for _ in range(20)])
            assert len({peer.session.id for peer in relay.peers}) == 20
            assert relay.endpoint.connection_count == 20
            for round_trip in range(3):
                for number, client in enumerate(clients):
                    client.send([b"%d %d %d" % (round_trip, number, n) for n in range(30)])
                for number, client in enumerate(clients):
                    assert await receive(client, 30) == [
                        b"%d %d %d" % (round_trip, number, n) for n in range(30)
                    ]
            for client in clients:
                client.close()
            for peer in relay.peers:
                await asyncio.wait_for(peer.closed, 10)
            await until(lambda: relay.endpoint.connection_count == 0)
            assert relay.counters.total("session.drop.") == 0
            assert relay.counters["endpoint.accepted"] == 20

    run(scenario)


@pytest.mark.parametrize(("buffer", "share"), [(212_992, BEHIND_SHARE_OF_SMALL), (2 << 20, BEHIND_SHARE)])
def test_a_socket_that_holds_little_is_looked_at_more_often(buffer, share):
    async def scenario():
        [opened] = bound_udp_sockets("127.0.0.1", 0)
        force = 33  # SO_RCVBUFFORCE (socket(7)); without privileges the system's limit holds
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, force, buffer)
        if receive_buffer(opened) < buffer:
            pytest.skip("the kernel grants less")
        async with running_endpoint(sockets=[opened]) as relay:
            assert relay.endpoint.last_turns.share == share
            client = await connect(relay.url, pinned())
            client.send([b"hello"])
            assert await receive(client, 1) == [b"hello"]
            client.close()

    run(scenario)


def test_ended_connections_are_freed_without_the_garbage_collector():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            client.send([b"hello"])
            assert await receive(client, 1) == [b"hello"]
            (connection,) = relay.endpoint._live
            gone = weakref.ref(connection.quic)
            del connection
            gc.collect()
            gc.disable()
            try:
                client.close()
                await asyncio.wait_for(relay.peers.pop().closed, 10)
                await until(lambda: gone() is None)
            finally:
                gc.enable()

    run(scenario)


def test_lone_packets_of_several_clients_all_arrive_in_order():
    async def scenario():
        async with running_endpoint() as relay:
            clients = [await connect(relay.url, pinned()) for _ in range(3)]
            for number in range(100):
                for client in clients[: 1 + number % 3]:
                    client.send([b"%d" % number])
                for client in clients[: 1 + number % 3]:
                    assert await receive(client, 1) == [b"%d" % number]
            assert [len(peer.datagrams) for peer in relay.peers] == [100, 66, 33]
            assert relay.counters.total("path.drop.") == 0

    run(scenario)


@pytest.mark.parametrize(
    ("sizes", "expected"), [([34], False), ([64], False), ([65], True), ([30, 30], True), ([1200], True)]
)
def test_a_bare_acknowledgement_is_told_by_its_size(sizes, expected):
    assert carries_frames(([bytes(size) for size in sizes], CLIENT)) is expected


def test_bulk_in_both_directions_arrives_whole():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            sent = [b"%5d" % n + bytes([n % 256]) * (n % 1000) for n in range(3000)]
            got = []
            for at in range(0, len(sent), 20):
                client.send(sent[at : at + 20])
                got += await receive(client, 20)
            assert got == sent
            assert relay.peers[0].datagrams == sent
            client.close()

    run(scenario)


def test_a_clients_data_is_told_before_its_end():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            client.send([b"last words"])
            client.close(3, "bye")
            assert await asyncio.wait_for(relay.peers[0].closed, 10) == (3, "bye")
            assert relay.peers[0].datagrams == [b"last words"]

    run(scenario)


def test_a_turn_of_many_packets_is_one_message():
    batches = []

    class Counting(EchoPeer):
        def tell(self, message):
            if hasattr(message, "datagrams"):
                batches.append(len(message.datagrams))
            super().tell(message)

    async def scenario():
        async with running_endpoint(make_peer=Counting) as relay:
            client = await connect(relay.url, pinned())
            client.send([bytes(900)] * 8)
            await receive(client, 8)
            client.close()
        assert len(batches) < 8

    run(scenario)


# -- requests that open no session ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (headers(method=b"GET", protocol=None), b"405"),
        (headers(protocol=None), b"501"),
        (headers(protocol=b"connect-udp"), b"501"),
        (headers(extra=[(b"cookie", b"c" * 20_000)]), b"431"),
    ],
)
def test_requests_that_open_no_session_get_a_status(fields, status):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, fields) == status
            assert relay.peers == []
            assert relay.counters[f"request.status_{status.decode()}"] == 1
            assert await ask(client, headers()) == b"200"
            assert await ask(client, headers()) == b"429"
            assert len(relay.peers) == 1
            assert not relay.peers[0].closed.done()

    run(scenario)


def test_a_page_of_another_origin_is_refused_before_there_is_a_session():
    async def scenario():
        async with running_endpoint(allow_origin=["https://app.example"]) as relay:
            for origin, status in (
                (b"https://evil.example", b"403"),
                (b"null", b"403"),
                (b"http://localhost:8000", b"200"),
                (b"https://app.example", b"200"),
            ):
                before = len(relay.peers)
                async with udp_client(client_configuration(), relay.address) as client:
                    assert await ask(client, headers(extra=[(b"origin", origin)])) == status
                    assert len(relay.peers) - before == (status == b"200")
            assert relay.counters["request.status_403"] == 2

    run(scenario)


def test_two_hundred_kilobytes_of_headers_close_the_connection():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            huge = [(b"x-%d" % n, random.Random(n).randbytes(700).hex().encode()) for n in range(200)]
            await ask(client, headers(extra=huge))
            await client.until(lambda: client.quic.ended is not None)
            assert client.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
            assert relay.counters["connection.excessive_stream_data"] == 1
            await until(lambda: relay.endpoint.connection_count == 0)

    run(scenario)


def test_without_a_session_in_time_the_connection_is_closed(monkeypatch):
    monkeypatch.setattr(connection_module, "SESSION_DEADLINE", 0.3)

    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            await client.until(lambda: client.quic.ended is not None)
            assert client.quic.ended.reason_phrase == "no WebTransport session was opened"
            assert relay.counters["connection.no_session"] == 1
            await until(lambda: relay.endpoint.connection_count == 0)

    run(scenario)


# -- hostile and unlucky -------------------------------------------------------------------------------


def test_garbage_is_counted_and_hurts_nobody():
    chance = random.Random(7)

    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            cid = next(iter(relay.endpoint._connections))
            initial = first_packet()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.connect(relay.address)
                for turn in range(400):
                    size = chance.randrange(1, 1500)
                    noise = chance.randbytes(size)
                    raw.send(
                        [
                            noise,
                            b"\x40" + cid + noise,
                            b"\xe0\0\0\0\1\x08" + cid + noise,
                            b"\xc0\0\0\0\1\x08" + cid + bytes(1200) + noise[:100],
                            b"\xc0\0\0\0\1\x14" + noise.ljust(1200, b"\0"),
                            initial[: size % len(initial)],
                            initial[:30] + noise.ljust(1200, b"\0"),
                            b"",
                        ][turn % 8]
                    )
                    if turn % 40 == 0:
                        client.send([b"%d" % turn])
                        assert await receive(client, 1) == [b"%d" % turn]
            client.close()
            assert relay.counters["connection.failed"] == 0
            assert relay.counters.total("endpoint.drop.") > 100

    run(scenario)


def test_an_error_in_one_connection_does_not_hurt_others(monkeypatch):
    class Faulty(EchoPeer):
        def tell(self, message):
            if getattr(message, "datagrams", None) == [b"boom"]:
                raise RuntimeError("a fault of the test's own")
            super().tell(message)

    async def scenario():
        async with running_endpoint(make_peer=Faulty) as relay:
            victim, other = await asyncio.gather(*[connect(relay.url, pinned()) for _ in range(2)])
            victim.send([b"boom"])
            await until(lambda: relay.counters["connection.failed"] == 1)
            other.send([b"fine"])
            assert await receive(other, 1) == [b"fine"]
            assert relay.endpoint.connection_count == 1
            assert sorted(peer.closed.done() for peer in relay.peers) == [False, True]
            victim.close()
            other.close()

    run(scenario)


def test_a_packet_that_cannot_be_judged_keeps_no_others_from_their_connections(monkeypatch):
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            client.send([b"first"])
            assert await receive(client, 1) == [b"first"]

            def fail(*_packet):
                raise RuntimeError("a fault of the test's own")

            monkeypatch.setattr(endpoint_module, "pull_quic_header", fail)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                client.send([b"before"])
                await asyncio.sleep(0)  # on its way, and not yet read: that takes a look at the sockets
                stranger.sendto(b"\xc0" + bytes(1199), relay.address)
                assert await receive(client, 1) == [b"before"]
            client.send([b"behind"])
            assert await receive(client, 1) == [b"behind"]
            await until(lambda: relay.counters["endpoint.drop.failed"] == 1)
            client.close()

    run(scenario)


@pytest.mark.parametrize("length", range(8))
def test_no_connection_begins_with_an_id_that_is_too_short(length):
    async def scenario():
        async with running_endpoint() as relay:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(ForgedInitials(bytes(length)).packet(crypto_frame(1, b"x")), relay.address)
                await until(lambda: relay.counters["endpoint.drop.malformed"] == 1)
                assert relay.endpoint.connection_count == 0
                # One of eight bytes does.
                stranger.sendto(ForgedInitials(bytes(8)).packet(crypto_frame(1, b"x")), relay.address)
                await until(lambda: relay.endpoint.connection_count == 1)

    run(scenario)


def test_empty_datagrams_keep_no_others_from_their_connections():
    async def scenario():
        async with running_endpoint() as relay:
            errors = errors_of_the_loop()
            clients = [await connect(relay.url, pinned()) for _ in range(3)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                # Whoever begins with an ID of no bytes would be whom they are for.
                stranger.sendto(ForgedInitials(b"").packet(crypto_frame(1, b"x")), relay.address)
                await until(lambda: relay.counters["endpoint.drop.malformed"] == 1)
                for number in range(10):
                    for client in clients:
                        stranger.sendto(b"", relay.address)
                        client.send([b"%d" % number + bytes(100)])
                    for client in clients:
                        assert await receive(client, 1) == [b"%d" % number + bytes(100)]
            await until(lambda: relay.counters["endpoint.drop.malformed"] == 31)
            assert relay.counters["endpoint.drop.failed"] == 0
            assert errors == []
            for client in clients:
                client.close()

    run(scenario)


def test_a_turn_that_fails_is_over():
    async def scenario():
        counters = FailingCounters("endpoint.drop.malformed")
        async with (
            running_endpoint(counters=counters) as relay,
            udp_client(client_configuration(), relay.address) as client,
        ):
            assert await ask(client, headers()) == b"200"
            heard = client.fall_silent()
            errors = errors_of_the_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"", relay.address)
                await until(lambda: errors)
            heard.clear()
            # Who has something to send has it sent, though no packet comes that begins another turn.
            relay.peers[0].session.send([b"so long"])
            await until(lambda: heard)

    run(scenario)


def test_an_actor_that_closes_in_the_same_turn_is_obeyed():
    class Closing(EchoPeer):
        def tell(self, message):
            if hasattr(message, "datagrams"):
                self.session.send([b"so long"])
                self.session.close(5, "said enough")

    async def scenario():
        async with running_endpoint(make_peer=Closing) as relay:
            client = await connect(relay.url, pinned())
            client.send([b"hello"])
            await asyncio.wait_for(client.wait_closed(), 10)
            assert client.end == "said enough"
            await until(lambda: relay.endpoint.connection_count == 0)

    run(scenario)


def test_a_client_that_moves_is_followed():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            before = relay.peers[0].session.remote
            await client.open_socket(relay.address)
            await exchange(client, 20)
            assert relay.peers[0].session.remote != before
            port = client.transport.get_extra_info("sockname")[1]
            assert relay.peers[0].session.remote == f"127.0.0.1:{port}"

    run(scenario)


# -- the end -------------------------------------------------------------------------------------------


def test_closing_tells_every_client_why():
    async def scenario():
        async with running_endpoint() as relay:
            clients = await asyncio.gather(*[connect(relay.url, pinned()) for _ in range(10)])
            relay.endpoint.close(6, "the relay stops")
            await asyncio.wait_for(relay.endpoint.wait_closed(), PATIENCE)
            for client in clients:
                await asyncio.wait_for(client.wait_closed(), 10)
                assert client.end == "the relay stops"
            for peer in relay.peers:
                assert peer.closed.result() == (6, "the relay stops")
            assert relay.endpoint.connection_count == 0

    run(scenario)


def test_closing_twice_and_sending_afterwards_is_harmless():
    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            session = relay.peers[0].session
            relay.endpoint.close(6, "over")
            relay.endpoint.close(7, "again")
            session.send([b"to nobody"])
            session.close(1, "again")
            await asyncio.sleep(0)
            await client.wait_closed()
            assert client.end == "over"

    run(scenario)


def test_closing_leaves_no_timer_and_frees_the_port():
    async def scenario():
        loop: Any = asyncio.get_running_loop()
        async with running_endpoint() as relay:
            clients = await asyncio.gather(*[connect(relay.url, pinned()) for _ in range(5)])
            port = relay.endpoint.port
            relay.endpoint.close(6, "over")
            for client in clients:
                await client.wait_closed()
            await asyncio.wait_for(relay.endpoint.wait_closed(), PATIENCE)
            assert [handle for handle in loop._scheduled if not handle.cancelled()] == []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", port))

    run(scenario)


def test_a_taken_port_is_an_oserror():
    async def scenario():
        async with running_endpoint() as relay:
            second = Endpoint(
                host="127.0.0.1",
                port=relay.endpoint.port,
                certificates=CERTIFICATES,
                admission=OpenDoor(None),
                turns=current_scheduler(),
                counters=Counters(),
            )
            with pytest.raises(OSError, match="in use"):
                await second.start()

    run(scenario)


def test_a_new_certificate_is_for_new_connections():
    class Store:
        current = CERTIFICATES.current

    async def scenario():
        store = Store()
        renewed = EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC))
        async with running_endpoint(certificates=store) as relay:
            old = await connect(relay.url, pinned())
            store.current = renewed.current
            new = await connect(relay.url, pinned(renewed))
            for client in (old, new):
                client.send([b"alive"])
                assert await receive(client, 1) == [b"alive"]
                client.close()

    run(scenario)


# -- many at once --------------------------------------------------------------------------------------


def test_timers_do_not_grow_with_packets():
    async def scenario():
        loop: Any = asyncio.get_running_loop()
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            made = 0
            call_at = loop.call_at

            def counting_call_at(when, callback, *args, **options):
                nonlocal made
                made += callback == relay.endpoint._on_timer
                return call_at(when, callback, *args, **options)

            loop.call_at = counting_call_at
            most = 0
            for _ in range(300):
                client.send([bytes(900)] * 10)
                await receive(client, 10)
                most = max(most, len(loop._scheduled))
            # Two of three thousand datagrams may find a turn of their own; no packet has a timer.
            assert most < 250
            assert made < 1200
            client.close()

    run(scenario)


@pytest.mark.no_cover
def test_a_crowd_that_leaves_at_once_is_handled_in_one_go():
    async def scenario():
        async with running_endpoint() as relay:
            with Crowd(60, relay.address, headers()) as crowd:

                def has_sessions():
                    crowd.exchange()
                    return crowd.has_sessions

                await until(has_sessions)
                assert relay.endpoint.connection_count == len(relay.peers) == 60
                for client in crowd.clients:
                    client.quic.close(error_code=0x100, reason_phrase="their host died")
                crowd.exchange()
                await until(lambda: all(peer.closed.done() for peer in relay.peers))
                assert {peer.closed.result() for peer in relay.peers} == {(0x100, "their host died")}
                await until(lambda: relay.endpoint.connection_count == 0)
                assert relay.endpoint._connections == {}
                assert relay.endpoint._handshakes == set()

    run(scenario)

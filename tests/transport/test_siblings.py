"""Workers that share a port, and get packets that are for others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from endpoint_parts import PATIENCE, FailingCounters, errors_of_the_loop, pinned, running_endpoint
from waiting import until

from guest.client import connect
from netstack.counters import Counters
from transport.quic.siblings import READS_PER_TURN, Siblings
from transport.quic.udp import bound_udp_sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")

ADDRESSES = [
    ("192.0.2.1", 1000),
    ("2001:db8::1", 1000, 0, 7),
    ("192.0.2.1", 1000, 0, bytes(range(12))),
    ("192.0.2.1", 1000, 0, b""),
    ("2001:db8::1", 1000, 3, bytes(range(20))),
    ("192.0.2.1", 1000, 1, ("192.0.2.1", 1000)),
    ("2001:db8::1", 1000, 2, ("2001:db8::1", 1000, 0, 7)),
]
"""In all forms that ``transport.quic.udp`` has them: bound to an address, to all, to several of a name."""

CLIENTS = 48
"""Each is at the wrong worker with a probability of a half: of twelve now and then only two are, which say no
more than the check asks for."""


def short(first):
    return b"\x40" + bytes([first]) + bytes(40)


def initial(first):
    return b"\xc0\0\0\0\1\x08" + bytes([first]) + bytes(1200)


@pytest.fixture
def pair(tmp_path):
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(Siblings(number, 2, tmp_path, Counters())))
            for number in (0, 1)
        ]


@pytest.mark.parametrize("count", [2, 3, 64])
def test_connection_ids_lead_to_the_worker_that_issues_them(tmp_path, count):
    for number in (0, count - 1):
        with contextlib.closing(Siblings(number, count, tmp_path, Counters())) as siblings:
            made = {siblings.new_connection_id() for _ in range(200)}
        assert len(made) == 200
        assert {len(made_id) for made_id in made} == {8}
        assert {made_id[0] % count for made_id in made} == {number}


@pytest.mark.parametrize("client", ADDRESSES, ids=str)
def test_a_packet_reaches_its_worker_with_the_clients_address(pair, client):
    zero, one = pair
    largest = short(1) + bytes(65000)
    assert zero.pass_on(short(1), client, is_new=False)
    assert zero.pass_on(largest, client, is_new=False)
    assert one.drain() == [([short(1)], client), ([largest], client)]
    assert one.drain() == []
    assert zero._counters["endpoint.passed_on"] == 2


def test_what_is_ones_own_stays(pair):
    zero, one = pair
    assert not zero.pass_on(short(2), ADDRESSES[0], is_new=False)
    assert not one.pass_on(initial(1), ADDRESSES[0], is_new=True)
    assert zero.drain() == one.drain() == []


def test_who_leaves_passes_newcomers_on_and_keeps_what_is_its_own(pair):
    zero, one = pair
    for siblings in pair:
        siblings.accepting = (0,)
    assert one.pass_on(initial(1), ADDRESSES[0], is_new=True)
    assert zero.drain() == [([initial(1)], ADDRESSES[0])]
    assert not one.pass_on(short(1), ADDRESSES[0], is_new=False)
    assert not zero.pass_on(initial(1), ADDRESSES[0], is_new=True)


def test_a_worker_that_was_killed_has_its_place_again(pair, tmp_path):
    zero, one = pair
    with contextlib.closing(Siblings(1, 2, tmp_path, Counters())) as again:
        assert zero.pass_on(short(1), ADDRESSES[0], is_new=False)
        assert (one.drain(), again.drain()) == ([], [([short(1)], ADDRESSES[0])])


def test_where_no_place_can_be_taken_nothing_is_left_open(tmp_path):
    with pytest.raises(FileNotFoundError):
        Siblings(0, 2, tmp_path / "none", Counters())


def test_of_a_worker_that_is_gone_the_others_answer(pair):
    zero, one = pair
    one.close()
    assert not zero.pass_on(short(1), ADDRESSES[0], is_new=False), "nobody has told yet"
    assert zero._counters["endpoint.sibling_gone"] == 1
    zero.live = zero.accepting = (0,)
    assert not zero.pass_on(short(1), ADDRESSES[0], is_new=False)
    assert zero._counters["endpoint.sibling_gone"] == 1


def test_a_worker_that_reads_nothing_costs_no_memory(pair):
    zero, one = pair
    client = ADDRESSES[0]
    sent = 0
    while not zero._counters["endpoint.drop.sibling_busy"]:
        assert zero.pass_on(short(1), client, is_new=False)
        sent += 1
        assert sent < 100_000
    got = 0
    while runs := one.drain():
        assert len(runs) <= READS_PER_TURN
        got += len(runs)
    assert got == sent - 1 == zero._counters["endpoint.passed_on"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_empty_packet_that_is_passed_on_hurts_nobody(tmp_path, fails):
    async def scenario():
        counters = FailingCounters("endpoint.drop.malformed" if fails else "")
        errors = errors_of_the_loop()
        with contextlib.closing(Siblings(1, 2, tmp_path, Counters())) as other:
            siblings = Siblings(0, 2, tmp_path, own := Counters())
            async with running_endpoint(siblings=siblings, counters=counters) as relay:
                assert other.pass_on(b"", ADDRESSES[0], is_new=False)
                await until(lambda: relay.counters["endpoint.drop.malformed"] == 1)
                await until(lambda: len(errors) == fails)
                # What comes by itself is still given to whom it is for.
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                    stranger.sendto(short(1), relay.address)
                    await until(lambda: own["endpoint.passed_on"] == 1)
                assert [packets for packets, _ in other.drain()] == [[short(1)]]

    asyncio.run(scenario())


def test_clients_that_the_kernel_gives_to_the_wrong_worker_do_not_notice(tmp_path):
    """Without the program the kernel goes by addresses and ports: half the clients are at the wrong one."""

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            port, endpoints = 0, []
            for number in (0, 1):
                sockets = bound_udp_sockets("127.0.0.1", port, shared=True)
                port = sockets[0].getsockname()[1]
                endpoints.append(
                    await stack.enter_async_context(
                        running_endpoint(
                            port=port, sockets=sockets, siblings=Siblings(number, 2, tmp_path, Counters())
                        )
                    )
                )
            url = f"https://127.0.0.1:{port}/"
            for n in range(CLIENTS):
                client = await connect(url, pinned())
                client.send([b"echo %d" % n])
                assert await client.receive() == [b"echo %d" % n]
                client.close()
            siblings = [running.endpoint._siblings for running in endpoints]
            assert sum(found._counters["endpoint.passed_on"] for found in siblings) > CLIENTS
            assert all(running.counters["endpoint.accepted"] for running in endpoints)
            assert sum(running.counters["endpoint.accepted"] for running in endpoints) == CLIENTS

    async def bounded():
        async with asyncio.timeout(PATIENCE):
            await scenario()

    asyncio.run(bounded())

"""Clients that come back at another worker than the one that has their port: what they had goes on.

Everything between the sessions is real, sockets of flows too.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from carrying_parts import STATE, TERMS, Told, opened
from lan_parts import FakeSession, control, mac
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from waiting import until
from workers_of_one_loop import workers

from actors.close_codes import CloseCode
from actors.lan.detour import MAX_BEHIND
from actors.messages import ClosePeer
from actors.port_policy import usual_policy
from actors.runtime import run_ready
from netstack import carried_wire as wire
from netstack.room_wire import Flag, Kind, pack_head
from relay.carried_end import Worker
from relay.carrying import MAX_SESSIONS, Carrying
from relay.draining import Draining
from relay.snapshots import Snapshots

HOST = "10.0.2.4"
"""Where guests reach the relay's own machine."""
GATEWAY_MAC = "52:54:00:12:34:56"


def play(scenario, folder, count=2, **settings):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
            echo.bind(("127.0.0.1", 0))
            echo.setblocking(False)
            async with workers(folder, count, host_access=True, **settings) as started:
                return await scenario(echo, *started)

    return asyncio.run(main())


def datagram(guest, echo, payload):
    """A frame with a UDP datagram of the guest's for the echo server."""
    packet = IP(src=guest.ip, dst=HOST) / UDP(sport=4000, dport=echo.getsockname()[1]) / payload
    return Ether(src=guest.mac.hex(":"), dst=GATEWAY_MAC) / packet


async def heard(echo, payload):
    """Wait until the server is asked this, and answer; give where it came from."""
    said, sender = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(echo, 100), 5)
    assert said == payload
    echo.sendto(b"answer to " + payload, sender)
    return sender


async def asks(guest, echo, payload):
    """Ask, and wait for the answer; give the address of the guest's mapping."""
    guest.sends(datagram(guest, echo, payload))
    sender = await heard(echo, payload)
    await guest.hears(lambda frame: UDP in frame and bytes(frame[UDP].payload) == b"answer to " + payload)
    return sender


async def known(worker, guests=1):
    """Wait until a worker knows so many guests of the others."""
    await until(lambda: len(worker.trunk.state.all_elsewhere("default")) == guests)


async def carried(guest, worker, *, host="198.51.100.7", lost=True):
    """Have a guest's client come back at another worker; give the guest with its new session."""
    await known(worker)
    if lost:
        guest.is_lost()
    again = worker.guest(1, host=host)
    await again.joins(resume=guest.resume)
    return again


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "unnoticed"])
def test_a_client_that_comes_back_at_another_worker_has_its_address_and_its_mappings(tmp_path, lost):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        before = await asks(guest, echo, b"first")
        again = await carried(guest, two, lost=lost)
        after = await asks(again, echo, b"second")
        assert (again.ip, after) == (guest.ip, before)
        assert guest.session.closed == (
            None if lost else (CloseCode.TAKEN_OVER, "its client is back in another session")
        )
        assert (two.total("switch.carried"), one.total("switch.resumed")) == (1, 1)
        assert two.trunk.state.own("default", guest.mac) is None, "it is a guest of the other worker still"

    play(scenario, tmp_path)


def test_it_may_come_back_anywhere_again_and_again(tmp_path):
    async def scenario(echo, *started):
        guest = await started[0].guest(1).joins()
        mapping = await asks(guest, echo, b"0")
        for turn in (1, 2, 0, 1, 1, 0, 2):
            if turn:
                guest = await carried(guest, started[turn], lost=bool(turn % 2))
            else:
                guest = await started[0].guest(1).joins(resume=guest.resume)
            assert await asks(guest, echo, f"{turn}".encode()) == mapping
        assert started[0].total("switch.resumed") == 7
        await until(lambda: sum(len(w.trunk.carrying._passages) for w in started) == 1)
        assert len(started[0].trunk.carrying._sessions) == 1

    play(scenario, tmp_path, 3)


def test_what_came_while_it_was_away_reaches_it_by_the_other_worker(tmp_path):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        mapping = await asks(guest, echo, b"first")
        await known(two)
        guest.is_lost()
        echo.sendto(b"meanwhile", mapping)
        (peer,) = one.lan().peers
        await until(lambda: peer._actor_weakref()._held._frames)
        again = await two.guest(1, host="198.51.100.7").joins(resume=guest.resume)
        await again.hears(lambda frame: UDP in frame and bytes(frame[UDP].payload) == b"meanwhile")

    play(scenario, tmp_path)


def test_frames_right_behind_the_register_go_their_way(tmp_path):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        mapping = await asks(guest, echo, b"first")
        await known(two)
        guest.is_lost()
        again = two.guest(1, host="198.51.100.7")
        register = control(type="Register", mac=list(guest.mac), resume=guest.resume)
        frames = [b"\1" + bytes(datagram(guest, echo, b"%d" % n)) for n in range(MAX_BEHIND)]
        again.says(register, *frames)
        for number in range(MAX_BEHIND):
            assert await heard(echo, b"%d" % number) == mapping

    play(scenario, tmp_path)


def test_without_the_secret_nothing_is_carried(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        await known(two)
        guest.is_lost()
        await until(lambda: two.trunk.state.all_elsewhere("default")[0][1].flags & Flag.SILENT)
        await two.guest(1, host="198.51.100.7").joins(resume="0" * 32)
        return one.total("carried.sessions"), two.total("switch.carried")

    assert play(scenario, tmp_path) == (0, 0)


def test_a_session_that_has_a_guest_here_is_not_carried_for_another(tmp_path):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        await known(two)
        other = await two.guest(2).joins()
        other.says(control(type="Register", mac=list(guest.mac), resume=guest.resume))
        await until(lambda: guest.session.closed)
        return two.total("switch.carried")

    assert play(scenario, tmp_path) == 0


@pytest.mark.parametrize("same", [True, False])
def test_rights_go_with_the_session_and_a_port_of_other_rights_is_not_taken(tmp_path, same):
    async def scenario(echo, one, two):
        policy = replace(usual_policy(one.lan().settings), macs=frozenset({mac(1)}), max_flows=7)
        guest = one.guest(1, policy=policy, name="web", token="t1")
        await guest.joins()
        mapping = await asks(guest, echo, b"first")
        await known(two)
        guest.is_lost()
        policy = policy if same else replace(policy, max_flows=8)
        again = two.guest(1, host="198.51.100.7", policy=policy, name="web", token="t1")
        await again.joins(resume=guest.resume)
        assert (await asks(again, echo, b"second") == mapping) is same
        (binding,) = [binding for _, binding in two.trunk.state.all_elsewhere("default")]
        assert binding.name == "web"
        return again.ip == guest.ip

    assert play(scenario, tmp_path)


def test_an_expired_token_ends_a_session_that_is_carried(tmp_path):
    async def scenario(_echo, one, two):
        now = asyncio.get_running_loop().time()
        guest = await one.guest(1).joins()
        await known(two)
        again = two.guest(1, host="198.51.100.7", expires=now + 0.5)
        await again.joins(resume=guest.resume)
        await until(lambda: again.session.closed)
        return again.session.closed

    assert play(scenario, tmp_path) == (CloseCode.EXPIRED, "the token has expired")


# -- ends -----------------------------------------------------------------------------------------------


def test_when_the_clients_connection_ends_the_port_waits_at_its_worker(tmp_path):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        mapping = await asks(guest, echo, b"first")
        again = await carried(guest, two)
        again.is_lost()
        await until(lambda: one.total("peer.absences") == 2)
        last = await one.guest(1).joins(resume=again.resume)
        return await asks(last, echo, b"third") == mapping

    assert play(scenario, tmp_path)


def test_a_client_that_leaves_leaves_nothing(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        again = await carried(guest, two)
        again.says(control(type="Disconnect"))
        await until(lambda: again.session.closed)
        await until(lambda: two.trunk.state.all_elsewhere("default") == [])
        assert again.session.closed[0] == CloseCode.DONE
        for worker in (one, two):
            assert not worker.trunk.carrying._passages
            assert not worker.trunk.carrying._sessions
            assert worker.lan().is_empty
        sent = sum(session.path_state().packets_sent for session in (guest.session, again.session))
        assert one.total("peer.packets_sent") + two.total("peer.packets_sent") == sent, "of each once"

    play(scenario, tmp_path)


def test_what_ends_the_session_at_its_port_ends_it_for_the_client(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        again = await carried(guest, two)
        (peer,) = one.lan().peers
        peer.tell(ClosePeer(CloseCode.REFUSED, "banned"))
        run_ready()
        await until(lambda: again.session.closed)
        return again.session.closed

    assert play(scenario, tmp_path) == (CloseCode.REFUSED, "banned")


def test_a_carrier_that_is_replaced_sends_its_client_away_and_the_port_waits(tmp_path):
    async def scenario(echo, one, two):
        guest = await one.guest(1).joins()
        mapping = await asks(guest, echo, b"first")
        again = await carried(guest, two)
        for peer in two.lan().peers:
            peer.tell(ClosePeer(CloseCode.SHUTDOWN, "come again"))
        run_ready()
        assert again.session.closed == (CloseCode.SHUTDOWN, "come again")
        await until(lambda: one.total("peer.absences") == 2)
        last = await one.guest(1).joins(resume=again.resume)
        return await asks(last, echo, b"third") == mapping

    assert play(scenario, tmp_path)


def test_a_carrier_that_dies_leaves_the_port_waiting(tmp_path):
    async def scenario(echo, one, two, three):
        guest = await one.guest(1).joins()
        mapping = await asks(guest, echo, b"first")
        again = await carried(guest, two)
        two.trunk.carrying._busy.clear()
        two.trunk._unix.close()
        for worker in (one, three):
            worker.trunk.lost(1)
        run_ready()
        assert one.total("peer.absences") == 2
        last = await carried(again, three, lost=False)
        return await asks(last, echo, b"third") == mapping

    assert play(scenario, tmp_path, 3)


def test_when_the_worker_of_the_port_dies_the_client_comes_back_as_new(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        again = await carried(guest, two)
        one.dies()
        two.trunk.lost(0)
        run_ready()
        assert again.session.closed[0] == CloseCode.SHUTDOWN
        assert not two.trunk.carrying._passages
        last = await two.guest(1, host="198.51.100.7").joins(resume=again.resume)
        return last.ip == guest.ip

    assert play(scenario, tmp_path)


def test_a_worker_that_does_not_answer_costs_the_flows_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("relay.carrying.ANSWERED_WITHIN", 0.1)

    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        await known(two)
        guest.is_lost()
        one.trunk.carrying.receive = lambda _message: None
        again = await two.guest(1, host="198.51.100.7").joins(resume=guest.resume)
        assert again.session.closed is None
        await known(one)
        return again.ip == guest.ip, two.total("carried.unanswered"), len(two.trunk.carrying._passages)

    assert play(scenario, tmp_path) == (True, 1, 0)


def test_a_session_is_described_once_by_the_worker_of_its_port(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        again = await carried(guest, two)
        told = [await Snapshots(cast("Any", [worker.lan()])).peers() for worker in (one, two)]
        ((peer,), nobody) = told
        assert nobody == []
        assert (peer.address, peer.remote, peer.carrier) == (guest.ip, again.session.remote, "webtransport")
        again.session.remote = "203.0.113.9:1"
        (peer,) = one.lan().peers
        await until(lambda: session_of(one).remote == "203.0.113.9:1")

    play(scenario, tmp_path)


def test_a_relay_that_drains_waits_for_those_that_it_carries_too(tmp_path):
    async def scenario(_echo, one, two):
        guest = await one.guest(1).joins()
        again = await carried(guest, two)
        drains = Draining(
            cast("Any", DrainedRooms([two.lan()])), cast("Any", SimpleNamespace(draining=False)), int
        )
        waiting = asyncio.create_task(drains.until_empty(60))
        await until(lambda: any(message["type"] == "Draining" for message in again.told) or not again.look())
        assert not waiting.done()
        again.says(control(type="Disconnect"))
        await asyncio.wait_for(waiting, 5)

    play(scenario, tmp_path)


class DrainedRooms(list):
    def tell_of_drain(self, seconds):
        for lan in self:
            lan.tell_of_drain(seconds)


def session_of(worker):
    (session,) = worker.trunk.carrying._sessions.values()
    return session


# -- one session, by hand -----------------------------------------------------------------------------


def test_of_sessions_there_are_so_many_and_no_more(pair, monkeypatch):
    monkeypatch.setattr("relay.carrying.MAX_SESSIONS", 2)
    peers = [Told() for _ in range(3)]
    for number, peer in enumerate(peers):
        pair.carrier.carry(2, "lab", FakeSession(number), TERMS, peer)
    pair.passes()
    assert [len(peer) for peer in peers] == [0, 0, 1]
    assert pair.counters["carried.refused"] == 1
    other = Carrying(
        Worker(1, 11), now=float, incarnation_of=pair.live.get, work_at_end=int, counters=pair.counters
    )
    pair.ends[1] = other
    other.carry(2, "lab", FakeSession(9), TERMS, refused := Told())
    for worker, message in other.take_outgoing():
        pair.ends[worker].receive(message)
    pair.passes()
    assert len(refused) == 1


def test_a_room_that_is_not_there_takes_nobody(pair):
    pair.carrier.carry(2, "other", pair.session, TERMS, pair.peer)
    while pair.passes():
        pass
    assert [type(message).__name__ for message in pair.peer] == ["NotCarried"]
    pair.holder.accept_by("lab", None)
    pair.carrier.carry(2, "lab", pair.session, TERMS, pair.peer)
    while pair.passes():
        pass
    assert len(pair.peer) == 2
    assert pair.accepted == []


def test_an_end_that_the_carrier_did_not_hear_is_told_again(pair):
    _, session = opened(pair)
    session.close(CloseCode.FULL, "full")
    pair.passes(drop=1)
    assert pair.peer == []
    pair.carrier.tick()
    while pair.passes():
        pass
    assert [message.code for message in pair.peer] == [CloseCode.SHUTDOWN]


def test_an_end_that_the_holder_did_not_hear_is_told_again(pair):
    passage, session = opened(pair)
    passage.end(0, "", lost=True)
    pair.passes(drop=1)
    assert pair.told == []
    session.send([b"more"])
    while pair.passes():
        pass
    assert [message.lost for message in pair.told] == [True]


def test_a_worker_that_was_started_again_knows_nothing_of_before(pair):
    _, session = opened(pair)
    pair.live[2] = 23
    session.send([b"late"])
    pair.passes()
    assert pair.session.sent == []
    assert pair.counters["carried.drop.unknown_worker"] == 1
    pair.carrier.tick()
    assert [message.code for message in pair.peer] == [CloseCode.SHUTDOWN]


def test_malformed_messages_are_counted(pair):
    opened(pair)
    head = pack_head(Kind.CARRIED, 1, 11)
    state = wire.pack_state(8, STATE)[9:]
    bodies = [b"", b"\x09", wire.pack_open(8, wire.Open("lab", STATE, b"{"))]
    bodies += [wire.pack_open(8, wire.Open("lab", STATE, terms)) for terms in (b"[]", b"{}", b'"x"', b"\xff")]
    bodies.append(b"\1" + bytes(8) + b"\3l/b" + state + b"{}")
    for body in bodies:
        pair.holder.receive(head + body)
    assert pair.counters["trunk.drop.malformed"] == len(bodies)
    assert len(pair.accepted) == 1


def test_answers_to_what_is_unknown_are_bounded(pair):
    for number in range(MAX_SESSIONS + 10):
        pair.holder.receive(pack_head(Kind.CARRIED, 1, 11) + wire.pack_up(number, [b"x"]))
    assert len(list(pair.holder.take_outgoing())) == MAX_SESSIONS


def test_a_session_that_fails_keeps_nothing_from_the_others_of_its_turn(pair, monkeypatch):
    passages = [pair.carrier.carry(2, "lab", FakeSession(number), TERMS, pair.peer) for number in range(3)]
    while pair.passes():
        pass

    def fail():
        raise RuntimeError("a defect")

    monkeypatch.setattr(passages[1], "messages", fail)
    for passage in passages:
        passage.pass_on([b"up"])
    while pair.passes():
        pass
    assert [message.datagrams for message in pair.told] == [[b"up"]] * 2
    assert pair.counters["carried.drop.internal_error"] == 1

from __future__ import annotations

import asyncio

import pykka
import pytest
from lan_parts import FakeSession, mac
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, FramesFromPeer
from actors.runtime import current_scheduler, run_ready
from actors.switch import SwitchActor
from netstack.counters import Counters
from netstack.forward import parse_forwards
from relay.lan import ForwardError, Lan, Shared
from relay.lan_plan import lan_plan
from relay.lans import Lans
from relay.settings import Settings

ARP_PROBE = bytes.fromhex("0001080006040001")


class House:
    """A registry with LANs as the relay makes them."""

    def __init__(self, settings: Settings | None = None):
        self.counters = Counters()
        self.shared = Shared(current_scheduler(), 100)
        plan = lan_plan(settings or Settings())
        self.lans = Lans(lambda name: Lan(name, plan, self.shared), self.counters, idle_time=10.0)

    def close(self):
        self.lans.close_sessions(CloseCode.SHUTDOWN, "")
        self.lans.stop()
        self.shared.close()


def in_a_house(scenario, settings=None):
    async def main():
        before = set(pykka.ActorRegistry.get_all())
        house = House(settings)
        try:
            scenario(house)
        finally:
            house.close()
        assert set(pykka.ActorRegistry.get_all()) == before

    asyncio.run(main())


def ping(guest, identifier):
    ether = Ether(src=guest.hex(":"), dst="52:54:00:12:34:56")
    return bytes(ether / IP(src="10.0.2.10", dst="10.0.2.4") / ICMP(id=identifier))


def come(lan, number, guest):
    """A raw client whose guest asks who has the gateway's address."""
    session = FakeSession(number, "/?encap=raw")
    peer = lan.attach(session)
    question = ARP_PROBE + guest + bytes(4) + bytes(6) + bytes((10, 0, 2, 2))
    peer.tell(DatagramsFromClient([b"\xff" * 6 + guest + b"\x08\x06" + question]))
    run_ready()
    return session, peer


def test_a_lan_is_made_when_it_is_wanted_and_ends_some_time_after_the_last_left():
    def scenario(house):
        lan = house.lans.get("lab")
        assert house.lans.get("lab") is lan is house.lans.find("lab")
        _, peer = come(lan, 1, mac(1))
        house.lans.look(0.0)
        house.lans.look(1000.0)
        assert len(house.lans) == 2
        peer.stop(block=False)
        run_ready()
        house.lans.look(1000.0)
        house.lans.look(1009.9)
        assert house.lans.find("lab") is lan
        house.lans.look(1010.0)
        assert house.lans.find("lab") is None
        assert not lan.is_alive
        assert len(pykka.ActorRegistry.get_by_class(SwitchActor)) == 1

    in_a_house(scenario)


def test_who_comes_back_in_time_finds_the_same_lan():
    def scenario(house):
        lan = house.lans.get("lab")
        house.lans.look(0.0)
        assert house.lans.get("lab") is lan
        house.lans.look(10.0)
        house.lans.look(19.9)
        assert house.lans.find("lab") is lan

    in_a_house(scenario)


def test_the_default_lan_stays():
    def scenario(house):
        for now in (0.0, 1e9):
            house.lans.look(now)
        assert house.lans.default.is_alive
        assert [lan.name for lan in house.lans] == ["default"]

    in_a_house(scenario)


def test_a_lan_that_fails_ends_alone_and_its_clients_hear_of_it(lines):
    def scenario(house):
        lan = house.lans.get("lab")
        session, _ = come(lan, 1, mac(1))
        [switch] = [ref for ref in pykka.ActorRegistry.get_by_class(SwitchActor) if ref is lan._switch]
        switch.stop(block=False)
        run_ready()
        house.lans.look(0.0)
        assert house.lans.find("lab") is None
        assert session.closed[0] == CloseCode.INTERNAL
        assert house.lans.default.is_alive
        assert house.lans.get("lab").is_alive

    in_a_house(scenario)
    assert "ERROR the LAN of room lab failed and ends" in lines


def test_guests_of_two_lans_are_answered_by_two_gateways_with_the_same_addresses():
    def scenario(house):
        one, other = house.lans.get("one"), house.lans.get("other")
        answers = [come(lan, number, mac(1))[0].take() for number, lan in enumerate((one, other))]
        assert answers[0] == answers[1] != []
        assert one.counters["gateway.answered"] == other.counters["gateway.answered"] == 1

    in_a_house(scenario)


def test_the_totals_are_those_of_the_relay_and_of_all_lans_also_of_ended_ones():
    def scenario(house):
        house.counters.add("endpoint.accepted", 5)
        for name in ("one", "other"):
            _, peer = come(house.lans.get(name), 1, mac(1))
            peer.stop(block=False)
            run_ready()
        assert house.lans.totals()["gateway.answered"] == 2
        house.lans.look(0.0)
        house.lans.look(10.0)
        assert len(house.lans) == 1
        assert house.lans.totals()["gateway.answered"] == 2
        assert house.lans.totals()["endpoint.accepted"] == 5

    in_a_house(scenario)


def test_no_lan_has_more_flows_than_are_left_of_all():
    def scenario(house):
        house.shared.flows.limit = 1
        house.shared.flows.add("somebody of another LAN")
        lan = house.lans.get("lab")
        come(lan, 1, mac(1))
        lan._switch.tell(FramesFromPeer(1, [ping(mac(1), identifier) for identifier in (1, 2)]))
        run_ready()
        assert lan.counters["gateway.flows_opened"] == 0
        assert lan.counters["gateway.drop.flow_share"] == 2
        house.shared.flows.give_back("somebody of another LAN")
        lan._switch.tell(FramesFromPeer(1, [ping(mac(1), 3)]))
        run_ready()
        assert lan.counters["gateway.flows_opened"] == house.shared.flows.total == 1
        lan.stop()
        assert house.shared.flows.total == 0

    in_a_house(scenario, Settings(host_access=True))


def test_a_forward_that_cannot_be_had_is_one_line_and_leaves_nothing_behind():
    [forward] = parse_forwards("tcp:192.0.2.1:1:vm:1")

    async def main():
        before = set(pykka.ActorRegistry.get_all())
        with pytest.raises(ForwardError, match=r"^cannot forward tcp:192\.0\.2\.1:1:vm:1: "):
            House(Settings(forward=(forward,)))
        assert set(pykka.ActorRegistry.get_all()) == before

    asyncio.run(main())

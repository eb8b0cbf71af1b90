from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Any

import dns.message
import pykka
import pytest
from lan_parts import FakeSession, control, mac
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from actors.close_codes import CloseCode
from actors.lan.switch import SwitchActor
from actors.messages import DatagramsFromClient, FramesFromPeer
from actors.runtime import current_scheduler, run_ready
from actors.settings import FixedLease
from netstack.counters import Counters
from netstack.forward import parse_forward, parse_forwards
from relay.forward_changes import ForwardChanges
from relay.lan import ForwardError, Lan
from relay.lan_plan import lan_plan
from relay.lans import CREATION_BURST, Bounds, Lans, NoRoomError
from relay.room_tables import RoomTables
from relay.settings import Settings, SettingsWithRooms
from relay.shared import Shared

ARP_PROBE = bytes.fromhex("0001080006040001")


class House:
    """A registry with LANs as the relay makes them."""

    def __init__(self, settings=None, kept=(), elsewhere=None, changes=None, **bounds):
        self.counters = Counters()
        self.now = 0.0
        self.shared = Shared(current_scheduler(), max_flows=100, max_questions=100)
        self.settings = settings or Settings()
        changes = changes or ForwardChanges()
        self.lans = Lans(
            lambda name: Lan(name, lan_plan(self.settings, name), self.shared, changes=changes.of_room(name)),
            self.counters,
            Bounds(**({"total": 256, "per_client": 16, "idle_time": 10.0} | bounds)),
            lambda: self.now,
            kept,
            elsewhere=lambda: elsewhere or {},
        )

    def get(self, name, client="192.0.2.1"):
        return self.lans.get(name, client)

    def look(self, now):
        self.now = now
        self.lans.look()

    def refusal(self, name, client="192.0.2.1"):
        with pytest.raises(NoRoomError) as refused:
            self.get(name, client)
        return refused.value.status

    def close(self):
        self.lans.close_sessions(CloseCode.SHUTDOWN, "")
        self.lans.stop()
        self.shared.close()


def in_a_house(scenario, settings=None, **options):
    async def main():
        before = set(pykka.ActorRegistry.get_all())
        house = House(settings, **options)
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
        lan = house.get("lab")
        assert house.get("lab") is lan is house.lans.find("lab")
        _, peer = come(lan, 1, mac(1))
        house.look(0.0)
        house.look(1000.0)
        assert len(house.lans) == 2
        peer.stop(block=False)
        run_ready()
        house.look(1000.0)
        house.look(1009.9)
        assert house.lans.find("lab") is lan
        house.look(1010.0)
        assert house.lans.find("lab") is None
        assert not lan.is_alive
        assert len(pykka.ActorRegistry.get_by_class(SwitchActor)) == 1

    in_a_house(scenario)


def test_who_comes_back_in_time_finds_the_same_lan():
    def scenario(house):
        lan = house.get("lab")
        house.look(0.0)
        assert house.get("lab") is lan
        house.look(10.0)
        house.look(19.9)
        assert house.lans.find("lab") is lan

    in_a_house(scenario)


def test_the_default_lan_stays():
    def scenario(house):
        for now in (0.0, 1e9):
            house.look(now)
        assert house.lans.default.is_alive
        assert [lan.name for lan in house.lans] == ["default"]

    in_a_house(scenario)


class Observer:
    """Takes down at which rooms something happened."""

    def __init__(self):
        self.rooms = set()

    def see(self, lan, _):
        self.rooms.add(lan.name)


@pytest.mark.parametrize(
    ("room", "seen"), [(None, {"default", "lab", "later"}), ("later", {"later"}), ("lab", {"lab"})]
)
def test_who_looks_on_sees_rooms_that_are_made_later_too_until_it_looks_away(room, seen):
    def scenario(house):
        house.get("lab")
        observer = Observer()
        house.lans.look_on(observer, room)
        kept = [come(house.get(name), n, mac(n)) for n, name in enumerate(("default", "lab", "later"), 1)]
        assert observer.rooms == seen
        house.lans.look_away(observer)
        observer.rooms.clear()
        kept += [come(house.get(name), n, mac(n)) for n, name in enumerate(("later", "last"), 4)]
        assert (observer.rooms, len(kept)) == (set(), 5)

    in_a_house(scenario)


def test_who_looks_on_sees_a_room_that_was_made_again():
    def scenario(house):
        observer = Observer()
        house.lans.look_on(observer, "lab")
        _, peer = come(house.get("lab"), 1, mac(1))
        peer.stop(block=False)
        run_ready()
        house.look(0.0)
        house.look(10.0)
        assert house.lans.find("lab") is None
        observer.rooms.clear()
        kept = come(house.get("lab"), 2, mac(2))
        assert (observer.rooms, len(kept)) == ({"lab"}, 2)
        house.lans.look_away(observer)

    in_a_house(scenario)


def test_a_lan_that_fails_ends_alone_and_its_clients_hear_of_it(lines):
    def scenario(house):
        lan = house.get("lab")
        session, _ = come(lan, 1, mac(1))
        [switch] = [ref for ref in pykka.ActorRegistry.get_by_class(SwitchActor) if ref is lan.switch]
        switch.stop(block=False)
        run_ready()
        house.look(0.0)
        assert house.lans.find("lab") is None
        assert session.closed[0] == CloseCode.INTERNAL
        assert house.lans.default.is_alive
        assert house.get("lab").is_alive

    in_a_house(scenario)
    assert "ERROR the LAN of room lab failed and ends" in lines


def test_guests_of_two_lans_are_answered_by_two_gateways_with_the_same_addresses():
    def scenario(house):
        one, other = house.get("one"), house.get("other")
        answers = [come(lan, number, mac(1))[0].take() for number, lan in enumerate((one, other))]
        assert answers[0] == answers[1] != []
        assert one.counters["gateway.answered"] == other.counters["gateway.answered"] == 1

    in_a_house(scenario)


def test_the_totals_are_those_of_the_relay_and_of_all_lans_also_of_ended_ones():
    def scenario(house):
        house.counters.add("endpoint.accepted", 5)
        for name in ("one", "other"):
            _, peer = come(house.get(name), 1, mac(1))
            peer.stop(block=False)
            run_ready()
        assert house.lans.totals()["gateway.answered"] == 2
        house.look(0.0)
        house.look(10.0)
        assert len(house.lans) == 1
        assert house.lans.totals()["gateway.answered"] == 2
        assert house.lans.totals()["endpoint.accepted"] == 5

    in_a_house(scenario)


def test_no_lan_has_more_flows_than_are_left_of_all():
    def scenario(house):
        house.shared.flows.limit = 1
        house.shared.flows.add("somebody of another LAN")
        lan = house.get("lab")
        come(lan, 1, mac(1))
        lan.switch.tell(FramesFromPeer(1, [ping(mac(1), identifier) for identifier in (1, 2)]))
        run_ready()
        assert lan.counters["gateway.flows_opened"] == 0
        assert lan.counters["gateway.drop.flow_share"] == 2
        house.shared.flows.give_back("somebody of another LAN")
        lan.switch.tell(FramesFromPeer(1, [ping(mac(1), 3)]))
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


def test_forwards_of_the_settings_come_before_those_that_operators_added_to_any_room(lines):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    added, planned = f"tcp:127.0.0.1:{port}:web:80", f"tcp:127.0.0.1:{port}:mail:80"
    changes = ForwardChanges()
    changes.of_room("default").open(added, configured=False)
    tables = RoomTables(named={"lab": {"forward": parse_forwards(planned)}})

    def scenario(house):
        assert len(house.lans.find("lab").forwards) == 1
        assert lines == [f"ERROR room default: cannot forward {added}: Address already in use"]

    in_a_house(scenario, SettingsWithRooms(tables=tables), kept=["lab"], changes=changes)


@pytest.mark.parametrize("guest", ["192.0.2.1", "10.0.2.2", "10.0.2.255", "52:54:00:12:34:56", "gateway"])
def test_an_operators_forward_that_leads_to_no_guest_is_refused(guest):
    forward = parse_forward(f"tcp::1:{guest}:80")

    def scenario(house):
        with pytest.raises(ForwardError, match=f"{guest}:80 does not lead to a guest of 10.0.2.0/24"):
            house.lans.default.add_forward(forward)
        assert house.lans.default.forwards_by_text == []

    in_a_house(scenario)


# -- bounds -------------------------------------------------------------------------------------------


def test_rooms_are_bounded_in_all_and_a_room_that_ends_makes_place():
    def scenario(house):
        assert house.get("a") is house.get("a")
        house.get("b")
        assert house.refusal("c") == HTTPStatus.SERVICE_UNAVAILABLE
        assert house.get("a").is_alive
        assert house.counters["rooms.refused.too_many"] == 1
        house.look(0.0)
        house.look(10.0)
        house.get("c")

    in_a_house(scenario, total=3)


def test_rooms_are_bounded_for_each_address_that_makes_them():
    def scenario(house):
        house.get("a"), house.get("b")
        assert house.refusal("c") == HTTPStatus.TOO_MANY_REQUESTS
        house.get("c", "2001:db8::/64")
        house.get("c"), house.get("default")
        house.look(0.0)
        house.look(10.0)
        house.get("d")

    in_a_house(scenario, per_client=2)
    in_a_house(lambda house: [house.get(str(number)) for number in range(20)], per_client=0)


def test_rooms_of_other_workers_count_and_who_joins_them_makes_none():
    elsewhere = {"a": "192.0.2.1", "b": "192.0.2.9", "default": ""}

    def scenario(house):
        house.get("c")
        assert house.refusal("d") == HTTPStatus.TOO_MANY_REQUESTS
        house.get("a"), house.get("b")
        assert [house.lans.maker_of(name) for name in "abc"] == ["", "", "192.0.2.1"]
        house.get("d", "192.0.2.9")
        assert house.refusal("e", "192.0.2.7") == HTTPStatus.SERVICE_UNAVAILABLE
        del elsewhere["a"], elsewhere["b"]
        house.look(0.0)
        house.look(10.0)
        assert len(house.lans) == 1
        house.get("e"), house.get("f")

    in_a_house(scenario, total=5, per_client=2, elsewhere=elsewhere)


def test_rooms_are_not_made_faster_than_some_per_second():
    def scenario(house):
        for number in range(int(CREATION_BURST)):
            house.get(str(number))
        assert house.refusal("late") == HTTPStatus.SERVICE_UNAVAILABLE
        assert house.get("0").is_alive
        house.now = 0.2
        house.get("late")
        assert house.counters["rooms.made"] == CREATION_BURST + 1

    in_a_house(scenario, per_client=0)


def test_where_rooms_are_listed_nobody_makes_another():
    def scenario(house):
        assert house.refusal("elsewhere") == HTTPStatus.NOT_FOUND
        house.get("lab"), house.get("default")
        assert {lan.name for lan in house.lans} == {"default", "lab"}

    in_a_house(scenario, listed=frozenset({"lab"}))


def test_a_room_that_is_kept_is_there_from_the_start_and_is_made_again_when_it_fails(lines):
    def scenario(house):
        first = house.lans.find("lab")
        for now in (0.0, 1e6):
            house.look(now)
        assert house.lans.find("lab") is first
        first.stop()
        house.look(1e6)
        assert house.lans.find("lab").is_alive

    in_a_house(scenario, kept=["lab"])


def test_rooms_that_are_kept_from_now_on_begin_and_those_that_are_not_end_once_empty():
    def scenario(house):
        first = house.lans.find("lab")
        house.lans.keep(["new", "newer"])
        assert all(house.lans.find(name).is_alive for name in ("lab", "new", "newer"))
        house.lans.keep(["new"])
        for now in (0.0, 10.0):
            house.look(now)
        assert {lan.name for lan in house.lans} == {"default", "new"}
        assert not first.is_alive

    in_a_house(scenario, kept=["lab"])


@pytest.mark.parametrize("table", [{"network": IPv4Network("172.20.0.0/16")}, {"internet": False}])
def test_a_room_whose_table_comes_later_is_made_by_it_once_nobody_is_in_it(table):
    with_table = SettingsWithRooms(tables=RoomTables(named={"lab": table}))

    def scenario(house):
        lab, default = house.get("lab"), house.lans.default
        _, peer = come(lab, 1, mac(1))
        house.settings = with_table
        for lan in house.lans:
            lan.replan(lan_plan(with_table, lan.name))
        house.lans.keep(["lab"])
        house.look(0.0)
        assert house.lans.find("lab") is lab
        peer.stop(block=False)
        run_ready()
        house.look(1.0)
        anew = house.lans.find("lab")
        assert anew is not lab
        assert not lab.is_alive
        assert anew.settings == lan_plan(with_table, "lab").settings
        house.look(2.0)
        assert (house.lans.find("lab"), house.lans.default) == (anew, default)

    in_a_house(scenario)


def test_a_room_that_has_followed_its_settings_goes_on():
    changed = Settings(
        bit_rate=1000, max_flows_total=500, max_peers=3, deny_cidr=(IPv4Network("192.0.2.0/24"),)
    )

    def scenario(house):
        lab = house.get("lab")
        lab.replan(lan_plan(changed, "lab"))
        house.look(0.0)
        assert house.lans.find("lab") is lab

    in_a_house(scenario)


def test_a_kept_room_that_cannot_be_had_is_one_line_and_the_others_begin(lines):
    [forward] = parse_forwards("tcp:192.0.2.1:1:vm:1")
    tables = RoomTables(named={"busy": {"forward": (forward,)}})

    def scenario(house):
        house.lans.keep(["busy", "free"])
        assert {lan.name for lan in house.lans} == {"default", "free"}

    in_a_house(scenario, SettingsWithRooms(tables=tables))
    [line] = lines
    assert line.startswith("ERROR room busy: cannot forward tcp:192.0.2.1:1:vm:1: ")


def test_nobody_has_a_blocked_mac_in_rooms_that_begin_by_themselves():
    def scenario(house):
        house.lans.block_macs(frozenset({mac(1)}))
        house.lans.find("lab").stop()
        house.look(0.0)
        house.lans.keep(["lab", "new"])
        for number, name in enumerate(("lab", "new"), 1):
            session, _peer = framed(house.lans.find(name), number, mac(1), "web")
            assert session.controls()[-1]["type"] == "Error"

    in_a_house(scenario, kept=["lab"])


# -- isolation ----------------------------------------------------------------------------------------


def framed(lan, number, guest, name) -> tuple[Any, Any]:
    session = FakeSession(number, "/")
    peer = lan.attach(session)
    peer.tell(DatagramsFromClient([control(type="Register", mac=list(guest), name=name)]))
    run_ready()
    return session, peer


def test_nothing_of_one_room_shows_in_another():
    def scenario(house):
        one, other = house.get("one"), house.get("other")
        namesake = mac(246)  # its place in the pool is that of the first
        sender, speaks = framed(one, house_port(one), mac(1), "alice")
        neighbour, _ = framed(one, house_port(one), mac(2), "bob")
        stranger, hears = framed(other, house_port(other), namesake, "carol")
        assigned = [session.controls()[0] for session in (sender, neighbour, stranger)]
        assert [found["room"] for found in assigned] == ["one", "one", "other"]
        assert [found["ip"][3] for found in assigned] == [10, 11, 10]
        before = dict(other.counters)
        broadcast = b"\xff" * 6 + mac(1) + b"\x08\x06" + ARP_PROBE + mac(1)
        broadcast += bytes((10, 0, 2, 10)) + bytes(6) + bytes((10, 0, 2, 11))
        unicast = namesake + mac(1) + b"\x88\xb5" + b"for a MAC of another room"
        multicast = bytes.fromhex("01005e000001") + mac(1) + b"\x88\xb5" + b"for all"
        for session in (neighbour, stranger):
            session.take()
        speaks.tell(DatagramsFromClient([b"\1" + frame for frame in (broadcast, unicast, multicast)]))
        run_ready()
        assert len(neighbour.take()) == 3
        assert stranger.take() == []
        assert dict(other.counters) == before
        for peer, session, others in ((speaks, sender, 2), (hears, stranger, 1)):
            session.take()
            peer.tell(DatagramsFromClient([control(type="PeerList")]))
            run_ready()
            assert len(session.controls()[0]["peers"]) == others

    def house_port(lan):
        return lan.next_port()

    in_a_house(scenario)


def lookup(session, peer, guest, name):
    query = dns.message.make_query(name, "A").to_wire()
    frame = Ether(src=guest.hex(":"), dst="52:54:00:12:34:56")
    frame /= IP(src="10.0.2.10", dst="10.0.2.2") / UDP(sport=5353, dport=53) / query
    session.take()
    peer.tell(DatagramsFromClient([b"\1" + bytes(frame)]))
    run_ready()
    [answer] = session.frames()
    found = dns.message.from_wire(bytes(Ether(answer)[UDP].payload))
    return [record.to_text() for rrset in found.answer for record in rrset]


def test_names_are_those_of_the_room_and_fixed_ones_of_the_default_room():
    lease = FixedLease(mac(9), bytes((10, 0, 2, 50)), "db")

    def scenario(house):
        one, other = house.get("one"), house.get("other")
        framed(one, 1, mac(1), "alice")
        here, there = framed(one, 2, mac(2), "bob"), framed(other, 3, mac(3), "carol")
        home = framed(house.lans.default, 4, mac(4), "dave")
        assert lookup(*home, mac(4), "db.vm.internal.") == ["10.0.2.50"]
        assert lookup(*there, mac(3), "carol.vm.internal.") == ["10.0.2.10"]
        for name in ("alice", "bob", "dave", "db"):
            assert lookup(*there, mac(3), f"{name}.vm.internal.") == []
        del here

    in_a_house(scenario, Settings(static_lease=(lease,)))


def test_a_forward_is_of_the_default_room_and_guests_of_others_do_not_reach_it():
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    [forward] = parse_forwards(f"udp:0.0.0.0:{port}:{mac(9).hex(':')}:1")

    def scenario(house):
        lan = house.get("lab")
        home, away = house.lans.default, lan
        for network in (home.network, away.network):
            network.policy.own_addresses = frozenset({"192.0.2.77"})
        assert home.network.allows_udp(("192.0.2.77", port))
        assert not away.network.allows_udp(("192.0.2.77", port))
        assert away.counters.total("forward.") == 0

    in_a_house(scenario, Settings(forward=(forward,)))


def test_a_room_keeps_its_network_until_it_is_made_again():
    def scenario(house):
        lab = house.get("lab")
        lab.replan(lan_plan(Settings(host_access=True, network=IPv4Network("172.20.0.0/16")), "lab"))
        assert lab.settings.network == "10.0.2.0/24"
        assert lab.network.policy.decide("10.0.2.4").dial == "127.0.0.1"

    in_a_house(scenario, Settings(host_access=True))

"""Rooms that span workers, from the guests' side: everything between the sessions is real."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network

import pytest
from lan_parts import Box, control, mac
from scapy.contrib.igmp import IGMP
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from trunk_parts import addresses_elsewhere, inet, run
from waiting import until

import relay.trunk
from actors.close_codes import CloseCode
from actors.descriptions import Describe
from actors.ports import GuestAddresses
from actors.runtime import ask_async
from actors.trunk_messages import AddressGranted
from netstack.room_state import MEMBER
from netstack.room_wire import (
    Binding,
    Change,
    Flag,
    Grant,
    Kind,
    pack_about,
    pack_change,
    pack_changes,
    pack_frames,
    pack_grant,
    pack_head,
)
from transport.host.outside import port_range


def test_guests_of_two_workers_have_addresses_of_their_own_and_ping_each_other(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        request, reply = await a.pings(b)
        return a.ip, b.ip, request, reply

    one, two, request, reply = run(scenario, tmp_path)
    assert one != two
    assert (request.src, request.dst) == (mac(1).hex(":"), mac(2).hex(":"))
    assert (reply.src, reply.dst) == (mac(2).hex(":"), mac(1).hex(":"))


def test_fifty_guests_that_join_at_once_over_both_workers_have_addresses_of_their_own(tmp_path, monkeypatch):
    # Both workers have one loop here: on a busy machine a home may need longer for all that ask at once.
    monkeypatch.setattr(relay.trunk, "ANSWERED_WITHIN", 10.0)

    async def scenario(one, two):
        guests = [(one, two)[number % 2].guest(number * 37) for number in range(50)]
        for guest in guests:
            guest.registers()
        await until(lambda: all(guest.look() for guest in guests))
        trunks = {
            worker.trunk: {inet(g.ip) for g in guests if g.worker is not worker} for worker in (one, two)
        }
        # Once both have heard of all, nobody is told another address any more.
        await until(lambda: all(addresses <= addresses_elsewhere(t) for t, addresses in trunks.items()))
        return [guest for guest in guests if guest.look()], one.trunk, two.trunk

    guests, *trunks = run(scenario, tmp_path)
    assert len({guest.ip for guest in guests}) == 50
    assert all(len([m for m in guest.told if m["type"] == "Assigned"]) <= 2 for guest in guests)
    assert [trunk._counters["rooms.addresses_lost"] for trunk in trunks] == [0, 0]


def test_more_guests_than_there_are_addresses_have_those_of_who_is_away(tmp_path):
    """Four at a time, of one client: what one gave up may be another's by the time that it is asked for."""

    async def scenario(*both):
        told = []
        for start in range(0, 400, 4):
            guests = [
                both[number % 2].guest(number * 37, host="192.0.2.1") for number in range(start, start + 4)
            ]
            for guest in guests:
                guest.registers()
            for guest in guests:
                await until(lambda guest=guest: guest.look() or guest.refused())
                told.append(guest.refused())
                guest.is_lost()
        return sum(told), sum(worker.total("rooms.addresses_chosen_alone") for worker in both)

    assert run(scenario, tmp_path) == (0, 0)


def test_guests_that_are_away_at_another_worker_give_their_addresses_to_those_who_come_here(tmp_path):
    async def scenario(one, two):
        pool = one.lan().gateway._actor_weakref()._guests.pool
        there = [await one.guest(n).joins() for n in range(pool.size)]
        late = two.guest(500).registers()
        await until(lambda: late.look() or late.refused())
        assert late.refused(), "all are there"
        for guest in there[1:]:
            guest.is_lost()
        await until(
            lambda: (
                sum(b.flags & Flag.AWAY > 0 for _, b in two.trunk.state.all_elsewhere("default"))
                == pool.size - 1
            )
        )
        here = [two.guest(1000 + 37 * n) for n in range(pool.size - 1)]
        for guest in here:
            guest.registers()
        await until(lambda: all(guest.look() for guest in here))
        late = two.guest(501).registers()
        await until(lambda: late.look() or late.refused())
        counted = one.total("switch.absences_cut_short"), two.total("rooms.addresses_chosen_alone")
        return pool.size, len({guest.ip for guest in (there[0], *here)}), counted, late.refused()

    size, different, counted, refused = run(scenario, tmp_path, network=IPv4Network("10.0.2.0/28"))
    assert (different, counted, refused) == (size, (size - 1, 0), True)


# -- frames -------------------------------------------------------------------------------------------


def test_a_question_for_a_guest_elsewhere_is_answered_here(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        await until(lambda: one.trunk.state.all_elsewhere("default"))
        sent = one.total("trunk.frames_sent")
        a.asks_for(b.ip)
        answer = await a.hears(lambda frame: ARP in frame and frame[ARP].op == 2)
        return answer, b.mac, one.total("trunk.frames_sent") - sent, b.frames()

    answer, expected, sent, heard = run(scenario, tmp_path)
    assert answer[ARP].hwsrc == answer.src == expected.hex(":")
    assert (sent, heard) == (0, [])


def test_a_neighbour_solicitation_for_a_guest_elsewhere_is_answered_here(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        address = "fd76:6d72:656c:6179::b"
        b.sends(b.to(b) / IPv6(src=address, dst="fd76:6d72:656c:6179::c") / UDP())
        await until(
            lambda: any(inet(address) in g.addresses for _, g in one.trunk.state.all_elsewhere("default"))
        )
        ether = Ether(src=a.mac.hex(":"), dst="33:33:ff:00:00:0b")
        a.sends(ether / IPv6(src="fe80::1", dst="ff02::1:ff00:b", hlim=255) / ICMPv6ND_NS(tgt=address))
        return await a.hears(lambda frame: ICMPv6ND_NA in frame), b.mac

    answer, expected = run(scenario, tmp_path)
    assert answer.src == expected.hex(":")
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == expected.hex(":")


def test_broadcasts_reach_the_guests_of_all_workers_once_and_no_gateway_but_the_own(tmp_path):
    async def scenario(one, two, three):
        guests = [await w.guest(n).joins() for n, w in enumerate((one, one, two, two, three), 1)]
        await until(lambda: len(one.trunk.state.members("default")) == 2)
        for guest in guests:
            guest.frames()
        received = [worker.total("gateway.received") for worker in (one, two, three)]
        packet = IP(src=guests[0].ip, dst="255.255.255.255") / UDP(sport=9, dport=9) / b"all"
        guests[0].sends(Ether(src=guests[0].mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / packet)
        heard = []
        for guest in guests[1:]:  # what is sent after the broadcast arrives after it
            guests[0].sends(guests[0].to(guest) / IP(src=guests[0].ip, dst=guest.ip) / UDP() / b"last")
            frames = await guest.hears_until(
                lambda frame: UDP in frame and frame[UDP].payload.load == b"last"
            )
            heard.append(sum(UDP in frame and frame[UDP].dport == 9 for frame in frames))
        heard.insert(0, sum(UDP in frame for frame in guests[0].frames()))
        now = [worker.total("gateway.received") for worker in (one, two, three)]
        return heard, [after - before for before, after in zip(received, now, strict=True)]

    heard, gateways = run(scenario, tmp_path, 3)
    assert heard == [0, 1, 1, 1, 1]
    assert gateways == [1, 0, 0]


def test_each_workers_gateway_answers_its_own_guests_only(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        await until(lambda: one.trunk.state.members("default") and two.trunk.state.members("default"))
        before = two.total("gateway.answered")
        a.asks_for("10.0.2.2")
        answer = await a.hears(lambda frame: ARP in frame and frame[ARP].op == 2)
        b.asks_for("10.0.2.2")
        await b.hears(lambda frame: ARP in frame and frame[ARP].op == 2)
        return answer, two.total("gateway.answered") - before

    answer, answered = run(scenario, tmp_path)
    assert answer[ARP].hwsrc == "52:54:00:12:34:56"
    assert answered == 1


def test_a_group_that_a_guest_elsewhere_has_joined_goes_there_and_nowhere_else(tmp_path):
    async def scenario(one, two, three):
        a, b, c = [await w.guest(n).joins() for n, w in enumerate((one, two, three), 1)]
        await until(lambda: len(two.trunk.state.members("default")) == 2)
        report = IP(src=b.ip, dst="239.1.2.3", ttl=1) / IGMP(type=0x16, gaddr="239.1.2.3")
        b.sends(Ether(src=b.mac.hex(":"), dst="01:00:5e:01:02:03") / report)
        await until(lambda: one.total("switch.multicast.reports") and three.total("switch.multicast.reports"))
        for guest in (a, b, c):
            guest.frames()
        packet = IP(src=a.ip, dst="239.1.2.3") / UDP(sport=9, dport=9) / b"group"
        a.sends(Ether(src=a.mac.hex(":"), dst="01:00:5e:01:02:03") / packet)
        await b.hears(lambda frame: UDP in frame)
        return [frame for frame in c.frames() if UDP in frame]

    assert run(scenario, tmp_path, 3) == []


def test_frames_stay_here_while_no_other_worker_has_the_room(tmp_path):
    async def scenario(one, two):
        await two.guest(2, "lab").joins()
        a = await one.guest(1).joins()
        a.asks_for("10.0.2.99")
        return one.total("trunk.frames_sent")

    assert run(scenario, tmp_path) == 0


def test_the_rooms_of_other_workers_are_known_with_who_made_them_while_they_have_sessions(tmp_path):
    async def scenario(one, two, three):
        one.trunk.maker_of = {"lab": "192.0.2.1"}.get
        guests = [await worker.guest(n, "lab").joins() for n, worker in enumerate((one, two), 1)]
        await until(lambda: len(three.trunk.state.members("lab")) == 2)
        known = three.trunk.rooms_elsewhere(), two.trunk.rooms_elsewhere(), one.trunk.rooms_elsewhere()
        guests[0].leaves()
        await until(lambda: not two.trunk.rooms_elsewhere())
        guests[1].leaves()
        await until(lambda: not three.trunk.rooms_elsewhere())
        return known

    made, unknown = {"lab": "192.0.2.1"}, {"lab": ""}
    assert run(scenario, tmp_path, 3) == (made, made, unknown)


def test_rooms_are_apart_at_all_workers(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1, "red").joins(), await two.guest(2, "blue").joins()
        c = await one.guest(3, "blue").joins()
        await until(lambda: one.trunk.state.members("blue"))
        a.asks_for("10.0.2.99")
        c.asks_for("10.0.2.99")  # which arrives after the other would
        heard = await b.hears_until(lambda frame: ARP in frame)
        return [frame.src for frame in heard], a.frames()

    assert run(scenario, tmp_path) == ([mac(3).hex(":")], [])


def test_stale_frames_are_dropped(tmp_path):
    async def scenario(one, two):
        await one.guest(1).joins()
        b = await two.guest(2).joins()
        await until(lambda: one.trunk.state.members("default"))
        b.frames()
        head, frame = one.trunk._frames_head, bytes(60)
        now = int(asyncio.get_running_loop().time() * 1000)
        for age in (0, 1500, 0):
            (message,), _ = pack_frames(head, now - age, "default", [b"\xff" * 6 + frame])
            one.trunk._unix.send(1, message)
        await until(lambda: two.total("trunk.frames_received") == 2)
        return two.total("trunk.drop.stale_frames"), len(b.frames())

    assert run(scenario, tmp_path) == (1, 2)


# -- addresses and names ------------------------------------------------------------------------------


def test_an_address_that_a_guest_elsewhere_has_is_nobodys_to_take(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        await until(lambda: one.trunk.state.all_elsewhere("default"))
        a.sends(a.to(b) / IP(src=b.ip, dst=b.ip) / UDP())
        return one.total("switch.drop.spoofed_address")

    assert run(scenario, tmp_path) == 1


def test_a_static_address_that_its_holder_elsewhere_does_not_answer_for_moves(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        b.sends(b.to(b) / IP(src="10.0.2.200", dst="10.0.2.201") / UDP())
        wanted = inet("10.0.2.200")
        await until(lambda: any(wanted in g.addresses for _, g in one.trunk.state.all_elsewhere("default")))

        def moved():
            a.sends(a.to(b) / IP(src="10.0.2.200", dst="10.0.2.201") / UDP())
            return one.trunk.state.holders_of("default", wanted) == {a.mac}

        await until(moved, every=0.1)
        return True

    assert run(scenario, tmp_path)


def test_a_guest_that_comes_to_another_worker_after_its_own_has_died_keeps_its_address(tmp_path):
    async def scenario(one, two, three):
        others = [await w.guest(n).joins() for n, w in ((5, two), (6, three))]
        a = await one.guest(1).joins()
        await until(lambda: len(two.trunk.state.all_elsewhere("default")) == 2)
        one.dies()
        two.trunk.lost(0)
        three.trunk.lost(0)
        await until(lambda: len(two.trunk.state.all_elsewhere("default")) == 1)
        newer = await three.guest(7).joins()
        back = await two.guest(1, host="198.51.100.7").joins()
        return a.ip, back.ip, newer.ip, [other.ip for other in others]

    before, after, newer, others = run(scenario, tmp_path, 3)
    assert before == after
    assert len({after, newer, *others}) == 4


def test_guests_elsewhere_are_found_by_name_and_listed(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins(name="web")
        await until(lambda: any(g.name == "web" for _, g in one.trunk.state.all_elsewhere("default")))
        question = DNS(id=1, rd=1, qd=DNSQR(qname="web.vm.internal"))
        gateway = Ether(src=a.mac.hex(":"), dst="52:54:00:12:34:56")
        a.sends(gateway / IP(src=a.ip, dst="10.0.2.2") / UDP(sport=5353, dport=53) / question)
        answer = await a.hears(lambda frame: DNS in frame)
        a.says(control(type="PeerList"))
        await until(lambda: not a.look() or any(m["type"] == "PeerList" for m in a.told))
        peers = [m for m in a.told if m["type"] == "PeerList"][-1]
        b.leaves()
        await until(lambda: not one.trunk.state.all_elsewhere("default"))
        names = await ask_async(one.lan().names, Describe())
        return answer[DNS].an[0].rdata, b.ip, peers, names.names

    answer, expected, peers, after = run(scenario, tmp_path)
    assert answer == expected
    assert expected in str(peers).replace(", ", ".")
    assert after == {}


def test_a_room_that_a_worker_makes_later_knows_the_names_and_addresses_of_guests_elsewhere(tmp_path):
    async def scenario(one, two):
        there = await one.guest(1).joins(name="web")
        address = "fd76:6d72:656c:6179::b"
        there.sends(there.to(there) / IPv6(src=address, dst="fd76:6d72:656c:6179::c") / UDP())
        await until(lambda: two.trunk.state.holders_of("default", inet(address)))
        here = await two.guest(2).joins()
        here.sends(here.to(there) / IP(src=there.ip, dst=there.ip) / UDP())
        here.sends(here.to(there) / IPv6(src=address, dst="fd76:6d72:656c:6179::c") / UDP())
        names = await ask_async(two.lan().names, Describe())
        return two.total("switch.drop.spoofed_address"), names.names, {"web": (there.ip, address)}

    dropped, names, expected = run(scenario, tmp_path)
    assert (dropped, names) == (2, expected)


def test_each_worker_describes_its_own_guests(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        await until(lambda: one.trunk.state.all_elsewhere("default"))
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        found = []
        for worker in (one, two):
            gateway = await ask_async(worker.lan().gateway, Describe())
            switch = await ask_async(worker.lan().switch, Describe())
            found.append(
                ([lease.address for lease in gateway.leases], [m.port for m in switch.macs], switch.ports)
            )
        return found, a, b

    found, a, b = run(scenario, tmp_path)
    assert found == [([a.ip], [1], 1), ([b.ip], [2], 1)]


def test_max_peers_counts_over_all_workers(tmp_path):
    async def scenario(one, two):
        for number, worker in enumerate((one, two, one), 1):
            await worker.guest(number).joins()
        await until(lambda: len(two.trunk.state.all_elsewhere("default")) == 2)
        late = two.guest(9)
        await until(lambda: late.session.closed)
        return late.session.closed

    code, reason = run(scenario, tmp_path, max_peers=3)
    assert code == CloseCode.FULL
    assert "3 ports" in reason


async def is_away_elsewhere(worker):
    """Wait until a worker knows of a guest at another one whose client is away."""
    state = worker.trunk.state
    await until(lambda: any(guest.flags & Flag.AWAY for _, guest in state.all_elsewhere("default")))


def test_the_hosts_udp_ports_are_divided_among_the_workers(tmp_path):
    async def scenario(*started):
        return [worker.lan().network.udp_ports for worker in started]

    assert run(scenario, tmp_path, 3) == [port_range() // 3] * 3


def test_what_was_granted_to_a_former_life_of_a_worker_is_nobodys(tmp_path):
    async def scenario(one, two):
        state, asker = one.trunk.state, Box()
        room = next(name for name in map("room{}".format, range(99)) if state.home_of(name) == 1)
        two.trunk._unix.send = lambda *_: None
        one.trunk.ask(room, mac(1), (inet("10.0.2.10"),), asker)
        (token,) = one.trunk._questions
        told = []
        for number in (2, 1):
            head = pack_head(Kind.GRANT, 1, two.trunk.state.incarnation)
            one.trunk._receive(head + pack_grant(Grant(token, room, mac(number), inet(f"10.0.2.{number}"))))
            told.append(asker.take())
        return told

    assert run(scenario, tmp_path) == [[], [AddressGranted(mac(1), inet("10.0.2.1"))]]


@pytest.mark.parametrize("returns_to", [0, 1])
def test_in_a_full_room_a_client_comes_back_to_any_worker(tmp_path, returns_to):
    async def scenario(*started):
        guest, other = [await started[0].guest(number).joins() for number in (1, 2)]
        await until(lambda: len(started[1].trunk.state.all_elsewhere("default")) == 2)
        guest.is_lost()
        await is_away_elsewhere(started[1])
        again = await started[returns_to].guest(1).joins(resume=guest.resume)
        assert again.ip == guest.ip
        await other.pings(again)
        worker = started[1]
        await until(lambda: not any(each.flags for _, each in worker.trunk.state.all_elsewhere("default")))
        late = worker.guest(9)
        await until(lambda: late.session.closed)
        return late.session.closed[0]

    assert run(scenario, tmp_path, max_peers=2) == CloseCode.FULL


def test_clients_that_are_away_count_over_all_workers(tmp_path):
    async def scenario(one, two):
        guests = [await worker.guest(number).joins() for number, worker in enumerate((one, two), 1)]
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        guests[0].is_lost()
        await is_away_elsewhere(two)
        guests[1].is_lost()
        await until(lambda: two.total("switch.absences_refused"))
        return one.total("switch.absences_refused")

    assert run(scenario, tmp_path, max_peers=4) == 0


def test_a_guest_behind_a_bridge_gets_by_dhcp_what_nobody_elsewhere_has(tmp_path):
    async def scenario(one, two):
        bridges = [await one.guest(1).joins(), await two.guest(2).joins()]
        given = {}
        for number in range(6):
            for bridge in bridges:
                hardware = mac(1000 + 300 * number + bridge.mac[-1])
                given[hardware] = await lease_of(bridge, hardware)
        return given, [bridge.ip for bridge in bridges]

    given, own = run(scenario, tmp_path)
    assert len({*given.values(), *own}) == 14


async def lease_of(bridge, hardware, client=b""):
    """Ask for an address as a DHCP client behind a guest does."""
    own = [("client_id", b"\0" + client)] if client else []
    options = [("message-type", "discover"), *own, "end"]
    discover = BOOTP(chaddr=hardware, xid=hardware[-1]) / DHCP(options=options)
    packet = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / discover
    bridge.sends(Ether(src=hardware.hex(":"), dst="ff:ff:ff:ff:ff:ff") / packet)
    offer = await bridge.hears(lambda frame: BOOTP in frame and frame[BOOTP].chaddr[:6] == hardware)
    return offer[BOOTP].yiaddr


def test_dhcp_clients_of_one_mac_get_what_nobody_elsewhere_has(tmp_path):
    async def scenario(one, two):
        guests = [await one.guest(1).joins(), await two.guest(2).joins()]
        clients = [(guest, b"client%d" % number) for number in range(4) for guest in guests]
        return [await lease_of(guest, guest.mac, client) for guest, client in clients]

    given = run(scenario, tmp_path)
    assert len(set(given)) == 8, "the first client of a MAC has the MAC's own"


def test_a_static_address_that_its_holder_elsewhere_answers_for_stays(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        b.sends(b.to(b) / IP(src="10.0.2.200", dst="10.0.2.201") / UDP())
        wanted = inet("10.0.2.200")
        await until(lambda: any(wanted in g.addresses for _, g in one.trunk.state.all_elsewhere("default")))
        a.sends(a.to(b) / IP(src="10.0.2.200", dst="10.0.2.201") / UDP())
        asked = await b.hears(lambda frame: ARP in frame and frame[ARP].pdst == "10.0.2.200")
        answer = ARP(op=2, hwsrc=b.mac.hex(":"), psrc="10.0.2.200", pdst=asked[ARP].psrc)
        b.sends(Ether(src=b.mac.hex(":"), dst=asked.src) / answer)
        await until(lambda: two.total("gateway.addresses_defended"))
        a.sends(a.to(b) / IP(src="10.0.2.200", dst="10.0.2.201") / UDP())
        await a.pings(b)  # after which both have seen it
        return one.trunk.state.holders_of("default", wanted) == {b.mac}, two.total("gateway.addresses_moved")

    assert run(scenario, tmp_path) == (True, 0)


def test_the_machines_urls_begin_with_the_own_or_with_those_that_have_most_of_a_room(tmp_path):
    async def scenario(one, two):
        state, far = one.trunk.state, 9 << 8

        def says(kind, worker, body):
            state.receive(pack_head(kind, worker, 1) + body, asyncio.get_running_loop().time())

        for node in (9, 4):
            says(Kind.ABOUT, node << 8, pack_about([f"https://machine{node}"]))
        for worker, ports in ((far, 2), (far | 1, 3)):
            says(
                Kind.CHANGES,
                worker,
                pack_changes([pack_change(Change("lab", MEMBER, 1, Binding(MEMBER, port=ports)))])[0],
            )
        await one.guest(1, "lab").joins()
        await two.guest(2, "lab").joins()
        listed = [list(one.shared.urls(room)) for room in (None, "lab", "nobodys")]
        one.trunk.state.lost(far)
        one.trunk.state.lost(far | 1)
        return [*listed, list(one.shared.urls())]

    own, four, nine = "https://here", "https://machine4", "https://machine9"
    assert run(scenario, tmp_path, url=[own]) == [
        [own, four, nine],
        [nine, own, four],
        [own, four, nine],
        [own, four],
    ]


def test_the_first_urls_of_all_machines_come_before_further_ones_of_any(tmp_path):
    async def scenario(one, _):
        for node, urls in ((9, ["https://c1", "https://c2", "https://c3"]), (4, ["https://b1"])):
            message = pack_head(Kind.ABOUT, node << 8, 1) + pack_about(urls)
            one.trunk.state.receive(message, asyncio.get_running_loop().time())
        return [url.removeprefix("https://") for url in one.shared.urls()]

    found = run(scenario, tmp_path, url=["https://a1", "https://a2"])
    assert found == ["a1", "b1", "c1", "a2", "c2", "c3"]


def test_what_fails_in_one_room_keeps_nothing_else_of_its_turn_from_the_other_workers(tmp_path, monkeypatch):
    def describe(hardware):
        if hardware == mac(2):
            raise RuntimeError("a defect")
        return GuestAddresses((), (), "", 0)

    def pack(head, stamp, room, frames):
        if frames == [b"broken"]:
            raise RuntimeError("another defect")
        return pack_frames(head, stamp, room, frames)

    async def scenario(one, two):
        monkeypatch.setattr(relay.trunk, "pack_frames", pack)
        links = [one.trunk.join(room) for room in ("before", "broken", "behind")]
        for number, link in enumerate(links, 1):
            link.describe_by(describe)
            link.present(mac(number), number, "192.0.2.1", 0)
            link.send(two.trunk.number, [b"broken" if number == 2 else b"frame"])
        links[1].present(mac(4), 4, "192.0.2.1", 0)
        told = [("before", 1), ("broken", 4), ("behind", 3)]
        await until(lambda: all(two.trunk.state.elsewhere(room, mac(number)) for room, number in told))
        await until(lambda: one.counters["trunk.frames_sent"] == 2)
        assert two.trunk.state.elsewhere("broken", mac(2)) is None
        assert one.counters["trunk.drop.internal_error"] == 2

    run(scenario, tmp_path)

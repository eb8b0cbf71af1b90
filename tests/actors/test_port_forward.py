"""UDP through port forwards, from datagrams outside to frames on the LAN and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from forward_parts import CLIENT, FakeListeners, Forwarded
from gateway_parts import assert_intact, ether, packet
from lan_parts import GATEWAY_MAC, Box, ip, mac
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from test_ipv6_router import PREFIX

from actors.descriptions import Describe, ForwardDescription
from actors.flows.port_forward import (
    CLIENT_KEPT,
    KEPT_FOR,
    LOOK_EVERY,
    MAX_WAITING,
    PORT_AWAITED,
    PortForwardActor,
)
from actors.messages import (
    AssignAddress,
    ClientGone,
    ClientShown,
    DatagramFromNet,
    DatagramsFromNet,
    FramesFromGateway,
    FramesToFlow,
    GuestFound,
    GuestWanted,
    PortClosed,
)
from actors.runtime import run_ready
from actors.settings import LanSettings
from netstack.family import pack_ip
from netstack.forward import CLIENTS, FIRST_PORT, MAX_FORWARDS, parse_forward
from netstack.proxy_protocol import build_proxy_header


@pytest.fixture
def forwarded(loop, counters):
    return Forwarded(counters, "udp::5000:10.0.2.10:9")


def reply_to(frame, data, port=1, **fields):
    ports = {"sport": frame[UDP].dport, "dport": frame[UDP].sport} | fields
    return packet(port, "10.0.2.2") / UDP(**ports) / Raw(data)


@pytest.mark.parametrize("client", [CLIENT, ("2001:db8::1", 40_000), ("fe80::1%2>fe80::2%2", 40_000)])
def test_a_datagram_reaches_the_guest_and_its_answer_the_client(forwarded, client):
    (frame,) = forwarded.comes(b"hello", client=client)
    assert (frame.dst, frame.src) == (mac(1).hex(":"), GATEWAY_MAC.hex(":"))
    assert (frame[IP].src, frame[IP].dst) == ("10.0.2.2", "10.0.2.10")
    assert (frame[UDP].sport, frame[UDP].dport) == (FIRST_PORT, 9)
    assert bytes(frame[UDP].payload) == b"hello"
    assert_intact(frame)
    assert forwarded.lan.sends(1, reply_to(frame, b"welcome")) == []
    assert forwarded.listeners.opened[0].answers == [(b"welcome", client)]


@pytest.mark.parametrize("vm", [mac(1).hex(":"), "10.0.2.10", "web"])
def test_a_guest_is_found_by_mac_address_and_name(loop, counters, vm):
    forwarded = Forwarded(counters, f"udp::5000:{vm}:9")
    forwarded.lan.tell(AssignAddress(1, mac(1), Box(), "web"))
    assert len(forwarded.comes(b"hello")) == 1


@pytest.mark.parametrize("vm", [mac(7).hex(":"), "10.0.2.99", "10.0.2.2", "nobody"])
def test_without_the_guest_datagrams_are_counted_until_it_is_there(loop, counters, vm):
    forwarded = Forwarded(counters, f"udp::5000:{vm}:9", f"tcp::5000:{vm}:9")
    assert forwarded.comes(b"hello", b"anybody?") == []
    assert counters["forward.drop.no_guest"] == 2
    connection, frames = forwarded.connects(index=1)
    assert connection.refused
    assert frames == []


def test_clients_and_forwards_have_ports_of_their_own(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9", "udp::5001:10.0.2.10:9")
    seen = {
        forwarded.comes(b"x", index=index, client=("192.0.2.1", port))[0][UDP].sport
        for index in range(2)
        for port in range(1, 11)
    }
    assert len(seen) == 20
    assert FIRST_PORT + MAX_FORWARDS * CLIENTS == 65_536


@pytest.mark.parametrize(("port", "fields"), [(2, {}), (1, {"sport": 10}), (1, {"dport": FIRST_PORT + 9})])
def test_others_cannot_answer_a_client(forwarded, port, fields):
    forwarded.lan.assign(2)
    (frame,) = forwarded.comes(b"hello")
    assert forwarded.lan.sends(port, reply_to(frame, b"forged", port, **fields)) == []
    assert forwarded.listeners.opened[0].answers == []
    assert forwarded.lan.counters["forward.drop.filtered"] == 1


def test_a_client_that_is_silent_is_forgotten(loop, forwarded):
    (frame,) = forwarded.comes(b"hello")
    loop.advance(299)
    forwarded.lan.sends(1, reply_to(frame, b"still there"))
    loop.advance(299)
    forwarded.lan.sends(1, reply_to(frame, b"still there"))
    assert len(forwarded.listeners.opened[0].answers) == 2
    loop.advance(301)
    counters = forwarded.lan.counters
    assert counters["forward.clients_opened"] == counters["forward.clients_closed"] == 1
    forwarded.lan.sends(1, reply_to(frame, b"too late"))
    assert len(forwarded.listeners.opened[0].answers) == 2
    assert loop.pending() == []


def test_a_flood_of_clients_does_not_end_those_in_use(loop, forwarded):
    (frame,) = forwarded.comes(b"hello")
    for number in range(CLIENTS + 50):
        forwarded.comes(b"flood", client=(f"198.{number >> 8}.{number & 255}.1", 1000))
    assert forwarded.lan.counters["forward.drop.too_many_clients"] == 51
    forwarded.lan.sends(1, reply_to(frame, b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", CLIENT)]
    loop.advance(CLIENT_KEPT)
    assert len(forwarded.comes(b"at last", client=("198.51.100.2", 1))) == 1


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8::{:x}"])
def test_a_flood_from_one_address_leaves_places_to_others(loop, forwarded, address):
    for number in range(CLIENTS + 50):
        forwarded.comes(b"flood", client=(address.format(number), 1000 + number))
    assert forwarded.lan.counters["forward.clients_opened"] == CLIENTS // 2
    for number in range(20):
        assert len(forwarded.comes(b"hello", client=(f"192.0.2.{number}", 1))) == 1
    loop.advance(CLIENT_KEPT)
    assert len(forwarded.comes(b"flood", client=(address.format(0), 5000))) == 1, "in a place of its own"
    assert forwarded.lan.counters["forward.clients_closed"] == 1
    assert len(forwarded.comes(b"hello", client=("192.0.2.0", 1))) == 1
    assert forwarded.lan.counters["forward.clients_opened"] == CLIENTS // 2 + 21


def test_one_client_at_two_addresses_of_this_machine_is_answered_at_both(forwarded):
    clients = [(f"192.0.2.1>198.51.100.{number}", 40_000) for number in (1, 2)]
    frames = [forwarded.comes(b"hello", client=client)[0] for client in clients]
    assert frames[0][UDP].sport != frames[1][UDP].sport
    for frame in frames:
        forwarded.lan.sends(1, reply_to(frame, b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", client) for client in clients]


def test_addresses_of_this_machine_are_bounded_as_the_clients_are(loop, forwarded):
    for number in range(CLIENTS + 50):
        forwarded.comes(b"x", client=(f"192.0.2.1>10.0.{number >> 8}.{number & 255}", 40_000))
    counters = forwarded.lan.counters
    assert counters["forward.clients_opened"] == CLIENTS // 2
    assert counters["forward.drop.too_many_clients"] == CLIENTS // 2 + 50


@pytest.mark.parametrize(
    ("client", "ends"),
    [
        (("192.0.2.1", 40_000), ("192.0.2.1", "127.0.0.1")),
        (("192.0.2.1>198.51.100.2", 40_000), ("192.0.2.1", "198.51.100.2")),
        (("2001:db8::1>2001:db8::2", 40_000), ("2001:db8::1", "2001:db8::2")),
        (("fe80::1%2>fe80::2%2", 40_000), ("fe80::1", "fe80::2")),
    ],
)
def test_each_datagram_tells_the_guest_who_its_client_is(loop, counters, client, ends):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,proxy")
    header = build_proxy_header("udp", (pack_ip(ends[0]), 40_000), (pack_ip(ends[1]), 5000))
    frames = forwarded.comes(b"hello", b"again", client=client)
    assert [bytes(frame[UDP].payload) for frame in frames] == [header + b"hello", header + b"again"]
    forwarded.lan.sends(1, reply_to(frames[0], b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", client)]


TRANSPARENT = pytest.mark.parametrize(
    ("layer", "client", "guest"),
    [(IP, "192.0.2.1", "10.0.2.10"), (IPv6, "2001:db8::1", "fd76:6d72:656c:6179::1:1")],
    ids=["IPv4", "IPv6"],
)


@TRANSPARENT
def test_the_guest_sees_its_client_at_its_own_address(loop, counters, layer, client, guest):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent", ipv6_prefix=PREFIX)
    if layer is IPv6:
        forwarded.guest_uses(guest)
    opened = len(forwarded.lan.outside.udp)
    forwarded.lan.received()
    (frame,) = forwarded.comes(b"hello", client=(client, 40_000))
    assert (frame[layer].src, frame[layer].dst, frame.src) == (client, guest, GATEWAY_MAC.hex(":"))
    assert (frame[UDP].sport, frame[UDP].dport) == (40_000, 9)

    def guest_sends(data, sport=9, dport=40_000):
        datagram = layer(src=guest, dst=client) / UDP(sport=sport, dport=dport) / Raw(data)
        forwarded.lan.sends(1, ether(1) / datagram)

    guest_sends(b"welcome")
    answers = forwarded.listeners.opened[0].answers
    assert answers == [(b"welcome", (client, 40_000))]
    assert len(forwarded.lan.outside.udp) == opened
    guest_sends(b"from another port", sport=10)  # what is no answer goes out, through the egress policy
    guest_sends(b"to another port", dport=40_001)
    assert [s.sent for s in forwarded.lan.outside.udp[opened:]] == [
        [(b"from another port", (client, 40_000))],
        [(b"to another port", (client, 40_001))],
    ]
    loop.advance(301)
    guest_sends(b"too late")
    assert len(answers) == 1
    assert forwarded.lan.ref._actor_weakref()._forwards._shown == {}


def test_an_answer_behind_extension_headers_is_one(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent", ipv6_prefix=PREFIX)
    guest, client = "fd76:6d72:656c:6179::1:1", "2001:db8::1"
    forwarded.guest_uses(guest)
    forwarded.comes(b"hello", client=(client, 40_000))
    answer = (
        IPv6(src=guest, dst=client) / IPv6ExtHdrFragment() / IPv6ExtHdrDestOpt() / UDP(sport=9, dport=40_000)
    )
    forwarded.lan.sends(1, ether(1) / answer / Raw(b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", (client, 40_000))]


@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.2.99", "::1>::1", "fe80::1%2>fe80::2%2"])
def test_a_client_that_a_guest_cannot_answer_comes_from_the_gateway(loop, counters, client):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent", ipv6_prefix=PREFIX)
    (frame,) = forwarded.comes(b"hello", client=(client, 40_000))
    assert (frame[IP].src, frame[UDP].sport) == ("10.0.2.2", FIRST_PORT)
    forwarded.lan.sends(1, reply_to(frame, b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", (client, 40_000))]


def test_a_guest_without_ipv6_has_no_transparent_ipv6_clients(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent", ipv6_prefix=PREFIX)
    assert forwarded.comes(b"hello", client=("2001:db8::1", 40_000)) == []
    assert counters["forward.drop.no_ipv6_guest"] == 1
    forwarded.guest_uses("fd76:6d72:656c:6179::1:1")
    loop.advance(1)
    forwarded.lan.received()
    assert len(forwarded.comes(b"hello", client=("2001:db8::1", 40_000))) == 1


def test_transparent_clients_are_answered_from_where_they_wrote_to_last(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent")
    for local in ("198.51.100.1", "198.51.100.2"):
        forwarded.comes(b"hello", client=(f"192.0.2.1>{local}", 40_000))
        forwarded.lan.sends(1, packet(1, "192.0.2.1") / UDP(sport=9, dport=40_000) / Raw(b"welcome"))
    assert [client[0] for _, client in forwarded.listeners.opened[0].answers] == [
        "192.0.2.1>198.51.100.1",
        "192.0.2.1>198.51.100.2",
    ]
    loop.advance(301)
    assert counters["forward.clients_opened"] == counters["forward.clients_closed"] == 2
    assert loop.pending() == []


@TRANSPARENT
def test_what_a_guest_sends_to_former_clients_of_a_forward_that_is_gone_goes_out(
    loop, counters, layer, client, guest
):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent", ipv6_prefix=PREFIX)
    if layer is IPv6:
        forwarded.guest_uses(guest)
    opened = len(forwarded.lan.outside.udp)
    forwarded.comes(b"hello", client=(client, 40_000))
    forwarded.refs[0].stop(block=False)
    run_ready()
    datagram = layer(src=guest, dst=client) / UDP(sport=9, dport=40_000) / Raw(b"mine")
    forwarded.lan.sends(1, ether(1) / datagram)
    assert [s.sent for s in forwarded.lan.outside.udp[opened:]] == [[(b"mine", (client, 40_000))]]
    assert forwarded.lan.ref._actor_weakref()._forwards._shown == {}


def test_transparent_clients_are_bounded(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9,transparent")
    for number in range(CLIENTS + 50):
        forwarded.comes(b"x", client=(f"192.{number >> 8}.{number & 255}.1", 1000))
    assert counters["forward.drop.too_many_clients"] == 50
    assert len(forwarded.lan.ref._actor_weakref()._forwards._shown) == CLIENTS


@pytest.mark.parametrize(("option", "longest"), [("", 65_507), (",proxy", 65_507 - 28)])
def test_what_is_longer_than_the_guests_ip_can_carry_is_dropped(loop, counters, option, longest):
    forwarded = Forwarded(counters, f"udp::5000:10.0.2.10:9{option}")
    assert forwarded.comes(bytes(longest + 1)) == []
    assert counters["forward.drop.too_long"] == 1
    assert forwarded.comes(bytes(longest))


def test_datagrams_that_wait_for_the_gateway_are_bounded(loop, counters):
    forwarded = Forwarded(counters, "udp::5000:10.0.2.10:9")
    forwarded.comes(*[b"x"] * (MAX_WAITING + 10))
    assert counters["forward.frames_to_guest"] == MAX_WAITING
    assert counters["forward.drop.waiting"] == 10


def test_a_guest_that_moved_is_found_again(loop, forwarded):
    (frame,) = forwarded.comes(b"hello")
    assert frame.dst == mac(1).hex(":")
    forwarded.lan.tell(PortClosed(1))
    loop.advance(2)
    assert forwarded.comes(b"hello") == []
    forwarded.lan.assign(1)
    loop.advance(2)
    assert len(forwarded.comes(b"hello")) == 1


class Alone:
    """A forward; the test plays the gateway, the clients outside and, with ``workers``, the other ones."""

    def __init__(self, counters, text, workers=None):
        self.gateway, self.switch, self.listeners = Box(), Box(), FakeListeners()
        self.ref = PortForwardActor.start(
            parse_forward(text),
            0,
            gateway=self.gateway,
            switch=self.switch,
            listeners=self.listeners,
            counters=counters,
            settings=LanSettings(),
            link=workers,
        )
        run_ready()
        self.gateway.take()

    def tell(self, message):
        self.ref.tell(message)
        run_ready()

    def comes(self, *payloads, client=CLIENT):
        """Let datagrams come; give the frames to the guest."""
        self.tell(DatagramsFromNet([DatagramFromNet(payload, client, 64) for payload in payloads]))
        return self.frames()

    def frames(self):
        return [Ether(frame) for message in self.switch.take(FramesFromGateway) for frame in message.frames]

    def describe(self):
        reply = self.ref.ask(Describe(), block=False)
        run_ready()
        return reply.get(timeout=1)

    def asked(self):
        return len(self.gateway.take(GuestWanted))


ELSEWHERE = GuestFound(None, None, elsewhere=True)
HERE, MOVED = GuestFound(mac(1), ip("10.0.2.10")), GuestFound(mac(2), ip("10.0.2.11"))


def test_the_gateway_is_asked_once_a_second_where_the_guest_is(loop, counters):
    forward = Alone(counters, "udp::5000:web:9")
    assert (forward.comes(b"one"), forward.comes(b"two"), forward.asked()) == ([], [], 1)
    forward.tell(HERE)
    assert [bytes(frame[UDP].payload) for frame in forward.frames()] == [b"one", b"two"]
    loop.advance(0.9)
    assert (len(forward.comes(b"three")), forward.asked()) == (1, 0)
    loop.advance(0.1)
    assert (forward.comes(b"four"), forward.asked()) == ([], 1)


@pytest.mark.parametrize("option", ["", ",transparent"])
def test_clients_of_a_guest_that_changed_go_to_where_it_is_now(loop, counters, option):
    forward = Alone(counters, f"udp::5000:web:9{option}")
    for place in (HERE, MOVED):
        forward.comes(b"hello")
        forward.tell(place)
        (frame,) = forward.frames()
        assert (frame.dst, frame[IP].dst) == (place.mac.hex(":"), ".".join(map(str, place.ip)))
        loop.advance(1)
    shown = [m.ends for m in forward.gateway if isinstance(m, ClientShown)]
    gone = [m.ends for m in forward.gateway if isinstance(m, ClientGone)]
    assert (len(shown), gone) == ((2, shown[:1]) if option else (0, []))


def test_the_places_of_clients_that_were_forgotten_are_for_others_of_their_network(loop, forwarded):
    for _ in range(2):
        for number in range(CLIENTS // 2):
            assert forwarded.comes(b"hello", client=("198.51.100.1", 1000 + number))
        loop.advance(301)
    assert forwarded.lan.counters["forward.clients_closed"] == CLIENTS


class Workers:
    """What a forward knows of a room's other workers."""

    is_settled = True

    def __init__(self, *, is_lowest, has_siblings=True):
        self.is_lowest = is_lowest
        self.has_siblings = has_siblings


def test_of_a_room_over_several_workers_the_one_with_the_guest_has_the_port(loop, counters):
    forward = Alone(counters, "udp::5000:web:9", Workers(is_lowest=False))
    assert forward.listeners.opened == []
    loop.advance(LOOK_EVERY)
    run_ready()
    assert forward.asked() == 1
    loop.advance(LOOK_EVERY)
    run_ready()
    assert forward.asked() == 0, "the gateway has not answered yet"
    forward.tell(HERE)
    (listener,) = forward.listeners.opened
    loop.advance(LOOK_EVERY)
    run_ready()
    assert forward.asked() == 1
    forward.tell(ELSEWHERE)
    loop.advance(KEPT_FOR - 0.1)
    forward.tell(ELSEWHERE)
    assert listener.open, "the other worker may have yet to look"
    loop.advance(0.1)
    forward.tell(ELSEWHERE)
    assert not listener.open


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("has_siblings", [True, False])
def test_a_port_is_shared_where_other_workers_of_this_machine_may_have_it(loop, counters, kind, has_siblings):
    forward = Alone(counters, f"{kind}::5000:web:9", Workers(is_lowest=True, has_siblings=has_siblings))
    assert forward.listeners.shared == [has_siblings]


def test_a_port_that_its_guest_comes_back_to_is_opened_anew_to_be_the_last_that_was(loop, counters):
    forward = Alone(counters, "udp::5000:web:9", Workers(is_lowest=False))
    known = ForwardDescription("udp:127.0.0.1:5000:web:9", "10.0.2.10", 0)
    unknown = replace(known, guest=None, clients=None)
    assert forward.describe() == unknown, "it is there, whoever listens"
    for found, described in ((HERE, known), (ELSEWHERE, unknown), (HERE, known), (HERE, known)):
        forward.tell(found)
        assert forward.describe() == described
    assert [listener.open for listener in forward.listeners.opened] == [False, True]


def test_a_port_that_another_worker_has_yet_is_awaited(loop, counters):
    forward = Alone(counters, "udp::5000:web:9", Workers(is_lowest=False))
    forward.tell(HERE)
    (frame,) = forward.comes(b"hello")
    answer = IP(src="10.0.2.10", dst="10.0.2.2") / UDP(sport=9, dport=frame[UDP].sport) / b"welcome"
    to_client = FramesToFlow([bytes(ether(1) / answer)])
    forward.tell(ELSEWHERE)
    forward.listeners.error = OSError(98, "Address already in use")
    forward.tell(HERE)
    forward.tell(to_client)
    assert counters["forward.drop.no_port"] == 1
    forward.listeners.error = None
    forward.tell(HERE)
    forward.tell(to_client)
    first, second = forward.listeners.opened
    assert (first.open, second.answers) == (False, [(b"welcome", CLIENT)])


def test_a_port_that_was_no_longer_wanted_meanwhile_is_awaited_anew(loop, counters, lines):
    forward = Alone(counters, "udp::5000:web:9", Workers(is_lowest=False))
    forward.listeners.error = OSError(98, "Address already in use")
    told = []
    for _ in range(2):
        forward.tell(HERE)
        loop.advance(PORT_AWAITED - 0.1)
        forward.tell(HERE)
        told.append(len(lines))
        loop.advance(0.1)
        forward.tell(HERE)
        told.append(len(lines))
        forward.tell(ELSEWHERE)
    assert told == [0, 1, 1, 2]
    assert set(lines) == {"ERROR cannot forward udp:127.0.0.1:5000:web:9: Address already in use"}


@pytest.mark.parametrize("is_lowest", [True, False])
def test_while_the_guest_is_nowhere_the_lowest_worker_has_the_port(loop, counters, is_lowest):
    forward = Alone(counters, "udp::5000:web:9", Workers(is_lowest=is_lowest))
    loop.advance(LOOK_EVERY)
    run_ready()
    forward.tell(GuestFound(None, None))
    assert len(forward.listeners.opened) == is_lowest
    assert forward.comes(b"hello") == []
    assert counters["forward.drop.no_guest"] == 1


def test_a_forward_that_stops_gives_its_port_back(forwarded):
    assert forwarded.listeners.leading
    forwarded.refs[0].stop(block=False)
    run_ready()
    assert not forwarded.listeners.opened[0].open
    assert not forwarded.listeners.leading, "guests may not reach who takes the port next"

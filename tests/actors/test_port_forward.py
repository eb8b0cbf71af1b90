"""Port forwards, from datagrams and connections outside to frames on the LAN and back."""

from __future__ import annotations

import pykka
import pytest
from lan_parts import GATEWAY_MAC, mac
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from test_gateway import Lan, assert_intact, packet

from actors.forwarded_tcp import ForwardedTcpFlowActor
from actors.forwards import CLIENTS, FIRST_PORT
from actors.messages import (
    ConnectionAccepted,
    ConnectionMade,
    DatagramFromNet,
    DatagramsFromNet,
    PortClosed,
    SendResult,
)
from actors.port_forward import CLIENT_KEPT, MAX_WAITING, PortForwardActor
from actors.runtime import run_ready
from actors.settings import LanSettings
from netstack.forward import MAX_FORWARDS, parse_forward

CLIENT = ("192.0.2.1", 40_000)


class FakeListener:
    def __init__(self, owner):
        self.owner = owner
        self.answers = []
        self.result = SendResult.SENT
        self.open = True

    def answer(self, payload, client):
        self.answers.append((payload, client))
        return self.result

    def close(self):
        self.open = False


class FakeListeners:
    def __init__(self):
        self.opened = []

    def listen_udp(self, owner, host, port):
        self.opened.append(FakeListener(owner))
        return self.opened[-1]

    listen_tcp = listen_udp


class FakeConnection:
    """A client's connection; as a TCP socket it has nothing to say."""

    room = 65_536

    def __init__(self):
        self.refused = self.closed = False

    def attach(self, flow):
        flow.tell(ConnectionMade())
        return self

    def refuse(self):
        self.refused = True

    def read(self, limit):
        return None

    def write(self, chunks):
        return sum(map(len, chunks))

    def wait_for_room(self):
        pass

    def close(self, *, abort=False):
        self.closed = "reset" if abort else "closed"


class Forwarded:
    """A LAN with one guest and forwards to it."""

    def __init__(self, counters, *texts, **settings):
        self.lan = Lan(counters, **settings)
        self.lan.assign(1)
        self.listeners = FakeListeners()
        self.refs = [
            PortForwardActor.start(
                parse_forward(text),
                index,
                gateway=self.lan.ref,
                switch=self.lan.switch,
                listeners=self.listeners,
                counters=counters,
                settings=LanSettings(**settings),
            )
            for index, text in enumerate(texts)
        ]
        run_ready()

    def comes(self, *datagrams, index=0, client=CLIENT):
        batch = [DatagramFromNet(payload, client, 64) for payload in datagrams]
        self.listeners.opened[index].owner.tell(DatagramsFromNet(batch))
        run_ready()
        return self.lan.received()

    def connects(self, index=0):
        connection = FakeConnection()
        self.listeners.opened[index].owner.tell(ConnectionAccepted(connection))
        run_ready()
        return connection, self.lan.received()


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
    forwarded.lan.ref._actor_weakref()._services.name(mac(1), bytes((10, 0, 2, 10)), "web")
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
        forwarded.comes(b"flood", client=("198.51.100.1", 1000 + number))
    assert forwarded.lan.counters["forward.drop.too_many_clients"] == 51
    forwarded.lan.sends(1, reply_to(frame, b"welcome"))
    assert forwarded.listeners.opened[0].answers == [(b"welcome", CLIENT)]
    loop.advance(CLIENT_KEPT)
    assert len(forwarded.comes(b"at last", client=("198.51.100.2", 1))) == 1


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
    assert counters["forward.clients_opened"] == CLIENTS
    assert counters["forward.drop.too_many_clients"] == 50


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


def test_tcp_is_opened_towards_the_guest_and_reset_when_it_refuses(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    assert (syn[IP].src, syn[IP].dst, syn[TCP].dport, syn[TCP].flags) == ("10.0.2.2", "10.0.2.10", 80, "S")
    assert syn[TCP].sport >= FIRST_PORT
    assert_intact(syn)
    assert not connection.closed
    reset = TCP(sport=80, dport=syn[TCP].sport, flags="RA", seq=0, ack=syn[TCP].seq + 1)
    assert forwarded.lan.sends(1, packet(1, "10.0.2.2") / reset) == []
    assert connection.closed == "reset"
    assert pykka.ActorRegistry.get_by_class(ForwardedTcpFlowActor) == []
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 1


def test_tcp_towards_a_guest_that_answers(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    answer = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=7, ack=syn[TCP].seq + 1, window=9999)
    (ack,) = forwarded.lan.sends(1, packet(1, "10.0.2.2") / answer)
    assert (ack[TCP].flags, ack[TCP].ack) == ("A", 8)
    assert not connection.closed


def test_rfc5382_req5_idle_and_transitory_timeouts(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    answer = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=7, ack=syn[TCP].seq + 1, window=9999)
    forwarded.lan.sends(1, packet(1, "10.0.2.2") / answer)
    loop.advance(7439)
    assert not connection.closed
    loop.advance(2)
    assert connection.closed == "reset"
    (last,) = forwarded.lan.received()
    assert "R" in last[TCP].flags
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 1


def test_connections_towards_a_guest_count_as_its_flows(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_flows_per_peer=3)
    connections = [forwarded.connects()[0] for _ in range(5)]
    assert [connection.refused for connection in connections] == [False, False, False, True, True]
    assert counters["forward.drop.flow_limit"] == 2
    counters_before = dict(counters.items())
    half = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_half_open_per_peer=1)
    assert [half.connects()[0].refused for _ in range(2)] == [False, True]
    assert counters["forward.drop.half_open_limit"] == 1
    assert counters_before["forward.connections"] == 3


def test_a_forward_that_stops_gives_its_port_back(forwarded):
    forwarded.refs[0].stop(block=False)
    run_ready()
    assert not forwarded.listeners.opened[0].open

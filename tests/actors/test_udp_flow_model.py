"""The NAT for UDP, held in any order of events against a model of a few lines (RFC 4787)."""

from __future__ import annotations

import itertools

import pykka
from fake_loop import FakeLoop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC
from scapy.layers.inet import IP, UDP

from actors.runtime import Scheduler
from netstack.counters import Counters

HOSTS = ["192.0.2.1", "192.0.2.2", "198.51.100.7"]
PORTS = [123, 7000]
"""None of a name server: mappings for those live shorter."""
SOURCE_PORTS = [4000, 4001]

guests = st.integers(1, 3)
hosts, ports, source_ports = (st.sampled_from(them) for them in (HOSTS, PORTS, SOURCE_PORTS))


class Mapping:
    """A guest's port: the socket that it leaves by, and to whom it wrote."""

    def __init__(self, socket):
        self.socket = socket
        self.remotes = set()
        self.until = 0.0


class AnyOrder(RuleBasedStateMachine):
    """Guests come, write, are answered by whoever likes, fall silent and go."""

    @initialize(open_to_all=st.booleans())
    def begin(self, open_to_all):
        self.loop, counters = FakeLoop(), Counters()
        self.active = Scheduler(self.loop, counters).activate()
        self.active.__enter__()
        self.lan = Lan(
            self.loop, counters, endpoint_independent_filtering=open_to_all, peer_timeout=float("inf")
        )
        self.open_to_all = open_to_all
        self.clients, self.mappings = {}, {}
        self.numbers = itertools.count()

    def teardown(self):
        try:
            for guest in list(self.clients):
                self.leave(guest)
            assert self.lan.state() == (0, 0, 0)
        finally:
            pykka.ActorRegistry.stop_all(block=False)
            self.loop.run()
            self.active.__exit__(None, None, None)

    def payload(self):
        return b"datagram %d" % next(self.numbers)

    @rule(guest=guests)
    def join(self, guest):
        if guest not in self.clients:
            self.clients[guest] = self.lan.join(guest)

    @rule(guest=guests, sport=source_ports, host=hosts, dport=ports)
    def write(self, guest, sport, host, dport):
        """Whatever a guest's port writes to leaves by one socket, of that port alone (REQ-1, REQ-3)."""
        if guest not in self.clients:
            return
        client, address = self.clients[guest]
        data, opened = self.payload(), len(self.lan.outside.udp)
        client.sends(
            client.to(GATEWAY_MAC) / IP(src=address, dst=host) / UDP(sport=sport, dport=dport) / data
        )
        mapping = self.mappings.get((guest, sport))
        if mapping is None:
            assert len(self.lan.outside.udp) == opened + 1
            mapping = self.mappings[guest, sport] = Mapping(self.lan.outside.udp[-1])
        else:
            assert len(self.lan.outside.udp) == opened
        assert mapping.socket.sent.pop() == (data, (host, dport))
        assert not any(socket.sent for socket in self.lan.outside.udp)
        mapping.remotes.add(host)
        mapping.until = self.loop.time() + self.lan.settings.udp_idle_timeout

    @precondition(lambda self: self.mappings)
    @rule(data=st.data(), host=hosts, sport=ports)
    def answer(self, data, host, sport):
        """Who was written to may answer, from any port; the guest alone gets it (REQ-8)."""
        guest, dport = data.draw(st.sampled_from(sorted(self.mappings)))
        mapping, text = self.mappings[guest, dport], self.payload()
        mapping.socket.reply(text, (host, sport))
        for number, (client, address) in self.clients.items():
            got = [frame for frame in client.frames() if UDP in frame]
            if number != guest or not (self.open_to_all or host in mapping.remotes):
                assert got == []
                continue
            (frame,) = got
            assert (frame[IP].src, frame[UDP].sport) == (host, sport)
            assert (frame.dst, frame[IP].dst, frame[UDP].dport) == (client.mac.hex(":"), address, dport)
            assert bytes(frame[UDP].payload) == text

    @rule(seconds=st.sampled_from([1, 30, 61, 250]))
    def wait(self, seconds):
        """Only what a guest sends keeps a mapping alive (REQ-6)."""
        self.loop.advance(seconds)
        now = self.loop.time()
        for key, mapping in list(self.mappings.items()):
            if mapping.until <= now:
                assert not mapping.socket.open
                del self.mappings[key]

    @rule(guest=guests)
    def leave(self, guest):
        if guest in self.clients:
            self.clients.pop(guest)[0].leaves()
            for key in [key for key in self.mappings if key[0] == guest]:
                assert not self.mappings.pop(key).socket.open

    @invariant()
    def each_mapping_has_a_socket_of_its_own_and_no_other_is_open(self):
        sockets = [mapping.socket for mapping in self.mappings.values()]
        assert len(set(map(id, sockets))) == len(sockets)
        assert sorted(map(id, sockets)) == sorted(map(id, self.lan.outside.open_sockets()))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=40)

"""The NAT for datagrams and pings, held in any order of events against a model of a few lines (RFC 4787, RFC
5508). Subclasses say how packets of their kind look.

A guest's port, or echo identifier, is a mapping: the socket that it leaves by, to whom it wrote, and whether
somebody answered. Who has LIMIT of them and wants another gives up the one that nobody answered and that was
used longest ago, if that was KEPT seconds ago.
"""

from __future__ import annotations

import itertools
from typing import Any

import pykka
from fake_loop import FakeLoop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

from actors.flows.flow_table import UNANSWERED_KEPT
from actors.runtime import NEVER, Scheduler
from actors.settings import LanSettings
from netstack.counters import Counters

LIMIT = 2
GUESTS, NUMBERS = st.integers(1, 2), st.integers(4000, 4003)
HOSTS = {4: ["192.0.2.1", "192.0.2.2", "198.51.100.7"], 6: ["2606:4700::1", "2606:4700::2", "2a00::7"]}
PREFIX = "fd76:6d72:656c:6179::"


class Mapping:
    """A guest's port, or identifier."""

    def __init__(self, socket):
        self.socket = socket
        self.remotes = set()
        self.answered = False
        self.used = (0.0, 0)
        """When the guest used it last, and the number of that use."""


class FlowsInAnyOrder(RuleBasedStateMachine):
    """Guests come, write, are answered by whoever likes, fall silent and go."""

    version = 4
    actor: Any = None
    """Class of the flows."""

    @initialize(open_to_all=st.booleans())
    def begin(self, open_to_all):
        self.loop, counters = FakeLoop(), Counters()
        self.active = Scheduler(self.loop, counters).activate()
        self.active.__enter__()
        self.lan = Lan(
            self.loop,
            counters,
            endpoint_independent_filtering=open_to_all,
            peer_timeout=float("inf"),
            max_flows_per_peer=LIMIT,
            new_flows_per_second=1000,
            ipv6_prefix=LanSettings().ipv6_prefix if self.version == 6 else None,
        )
        self.open_to_all = open_to_all and self.filtering_is_a_setting
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

    # What subclasses say.

    filtering_is_a_setting = True

    @property
    def sockets(self):
        """All that the flows have opened, the oldest first."""
        raise NotImplementedError

    @property
    def timeout(self):
        raise NotImplementedError

    def packet(self, number, data):
        """What a guest sends, behind the IP header."""
        raise NotImplementedError

    def sent(self, host, data):
        """What the socket was asked to send."""
        raise NotImplementedError

    def reply(self, mapping, host, data):
        """Have the host answer."""
        raise NotImplementedError

    def data_of(self, frame, number):
        """What a frame brings to a guest's ``number``; None for other frames."""
        raise NotImplementedError

    # What happens.

    def ip(self, source=None, destination=None):
        return (IP if self.version == 4 else IPv6)(src=source, dst=destination)

    def received(self, guest):
        """The frames of a guest that are of the model's interest: IP to its own address."""
        client, address = self.clients[guest]
        kind = IP if self.version == 4 else IPv6
        return [frame for frame in client.frames() if kind in frame and frame[kind].dst == address]

    @rule(guest=GUESTS)
    def join(self, guest):
        if guest not in self.clients:
            client, address = self.lan.join(guest)
            self.clients[guest] = client, address if self.version == 4 else f"{PREFIX}1:{guest}"

    def gives_way(self, guest):
        """The mapping that a new one of the guest costs; None without one, if there are too many."""
        own = [mapping for (owner, _), mapping in self.mappings.items() if owner == guest]
        now = self.loop.time()
        old = [m for m in own if not m.answered and now - m.used[0] >= UNANSWERED_KEPT]
        return min(old, key=lambda mapping: mapping.used, default=None)

    @rule(guest=GUESTS, numbers=st.lists(NUMBERS, min_size=1, max_size=4), host=st.integers(0, 2))
    def write(self, guest, numbers, host):
        if guest in self.clients:
            for number in numbers:
                self.write_from(guest, number, host)

    def write_from(self, guest, number, host):
        """Whatever a guest's port writes to leaves by one socket, of that port alone."""
        client, address = self.clients[guest]
        client.frames()
        host, data = HOSTS[self.version][host], b"datagram %d" % next(self.numbers)
        mapping, opened = self.mappings.get((guest, number)), len(self.sockets)
        is_full = mapping is None and sum(owner == guest for owner, _ in self.mappings) == LIMIT
        victim = self.gives_way(guest) if is_full else None
        client.sends(client.to(GATEWAY_MAC) / self.ip(address, host) / self.packet(number, data))
        if is_full and victim is None:
            (error,) = self.received(guest)
            assert error[ICMP].code == 13 if self.version == 4 else error[ICMPv6DestUnreach].code == 1
            assert len(self.sockets) == opened
            return
        assert self.received(guest) == []
        if victim is not None:
            assert not victim.socket.open
            self.mappings = {key: other for key, other in self.mappings.items() if other is not victim}
        if mapping is None:
            assert len(self.sockets) == opened + 1
            mapping = self.mappings[guest, number] = Mapping(self.sockets[-1])
        else:
            assert len(self.sockets) == opened
        assert mapping.socket.sent.pop() == self.sent(host, data)
        assert not any(socket.sent for socket in self.sockets)
        mapping.remotes.add(host)
        mapping.used = (self.loop.time(), next(self.numbers))

    @precondition(lambda self: self.mappings)
    @rule(data=st.data(), host=st.integers(0, 2))
    def answer(self, data, host):
        """Who was written to may answer; the guest alone gets it."""
        guest, number = data.draw(st.sampled_from(sorted(self.mappings)))
        mapping, text = self.mappings[guest, number], b"answer %d" % next(self.numbers)
        host = HOSTS[self.version][host]
        for other in self.clients:
            self.received(other)
        self.reply(mapping, host, text)
        may_pass = self.open_to_all or host in mapping.remotes
        mapping.answered = mapping.answered or may_pass
        for other, (client, _) in self.clients.items():
            got = self.received(other)
            if other != guest or not may_pass:
                assert got == []
                continue
            (frame,) = got
            assert (frame.dst, frame[IP if self.version == 4 else IPv6].src) == (client.mac.hex(":"), host)
            assert self.data_of(frame, number) == text

    @rule(seconds=st.sampled_from([0.25, 0.5, 1, 2, 30, 61, 250]))
    def wait(self, seconds):
        """Only what a guest sends keeps a mapping alive."""
        self.loop.advance(seconds)
        now = self.loop.time()
        for key, mapping in list(self.mappings.items()):
            if mapping.used[0] + self.timeout <= now:
                assert not mapping.socket.open
                del self.mappings[key]

    @precondition(lambda self: len(self.clients) > 1)
    @rule(guest=GUESTS)
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

    @invariant()
    def whoever_has_a_socket_has_a_timer(self):
        """That of its end; so nothing lives for ever that its guest has forgotten."""
        flows = [ref._actor_weakref() for ref in pykka.ActorRegistry.get_by_class(self.actor)]
        assert len(flows) == len(self.mappings)
        for flow in flows:
            assert flow.poll_at < NEVER
            assert min(self.loop.pending()) <= flow.poll_at <= self.loop.time() + self.timeout

    @invariant()
    def every_frame_is_accounted_for(self):
        counted = self.lan.counters
        parts = ("answered", "to_flows", "routed", "ignored", "fragments")
        outcomes = sum(counted[f"gateway.{part}"] for part in parts) + counted.total("gateway.drop")
        assert counted["gateway.received"] == outcomes
        assert counted["gateway.flows_opened"] - counted["gateway.flows_closed"] == len(self.mappings)

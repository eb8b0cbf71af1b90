"""A client's connection and the relay's, face to face on a network of the test's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from aioquic.tls import CipherSuite
from quic_parts import (
    CERTIFICATES,
    CLIENT_ADDRESS,
    NEVER,
    RELAY_ADDRESS,
    START,
    Host,
    Network,
    client_configuration,
    relay_configuration,
)

from guest.client_connection import ClientConnection
from guest.target import Target, Trust
from netstack.counters import Counters
from transport.quic.aioquic_client import ClientQuicConnection
from transport.quic.aioquic_internals import RelayQuicConnection
from transport.quic.carrier import PACKET_OVERHEAD
from transport.quic.connection import Connection
from transport.quic.path_mtu import CEILING

KEEP_ALIVE = 10.0
PINNED = Trust(certificate_hash=bytes.fromhex(CERTIFICATES.current.sha256))


class ClientHost:
    """Implements ``guest.client_connection.ClientHost``."""

    def __init__(self, now):
        self.counters = Counters()
        self.now = now
        self.sent = []
        self.opened = False
        self.refused = None

    def clock(self):
        return self.now

    def send_packets(self, packets, address):
        assert address == RELAY_ADDRESS
        self.sent += packets

    def want_flush(self, connection):
        pass

    def session_opened(self):
        self.opened = True

    def session_refused(self, problem, *, permanent):
        self.refused = problem


class Ends:
    """Both carriers of one connection, and what aioquic was given of each one's packets."""

    def __init__(self, *, trust=PINNED, network=None, **configuration):
        self.now = START
        self.network = network or Network()
        self.host = ClientHost(START)
        quic = ClientQuicConnection(configuration=client_configuration(**configuration))
        self.client = ClientConnection(
            quic,
            self.host,
            RELAY_ADDRESS,
            START,
            keep_alive=KEEP_ALIVE,
            target=Target("relay.test", 4433, "/?encap=raw"),
            trust=trust,
        )
        self.relay_host = Host()
        relay_quic = RelayQuicConnection(relay_configuration(), quic.original_destination_connection_id)
        self.relay = Connection(relay_quic, self.relay_host, CLIENT_ADDRESS, START)
        self.is_known = False
        """Whether the relay has heard of the client."""
        self.by_aioquic = {"client": 0, "relay": 0}
        for name, carrier in (("client", self.client), ("relay", self.relay)):
            carrier.quic.receive_datagram = partial(self._count, name, carrier.quic.receive_datagram)
        self.received = []

    def _count(self, name, receive, packet, address, now):
        self.by_aioquic[name] += 1
        receive(packet, address, now)

    def flush(self):
        self.client.flush(self.now)
        if self.is_known:
            self.relay.flush(self.now)
        self.network.carry(self.host.sent, self.now, to_relay=True)
        self.network.carry([packet for packet, _ in self.relay_host.sent], self.now, to_relay=False)
        self.host.sent, self.relay_host.sent = [], []

    def settle(self, seconds=0.5):
        """Let ``seconds`` pass: packets arrive when they do, timers run when they are due."""
        end = self.now + seconds
        self.flush()
        while True:
            timers = [(carrier.next_timer(), carrier) for carrier in self.living]
            due = min([self.network.next_arrival, *(when for when, _ in timers)], default=NEVER)
            if due > end:
                break
            self.now = max(self.now, due) + 1e-6
            self.host.now = self.relay_host.now = self.now
            ends: tuple[Any, Any] = self.relay, self.client
            for packets, carrier, address in zip(
                self.network.arrived(self.now),
                ends,
                (CLIENT_ADDRESS, RELAY_ADDRESS),
                strict=True,
            ):
                self.is_known |= carrier is self.relay and bool(packets)
                left = packets
                while left:
                    left = left[carrier.receive(left, address, self.now) :]
            for when, carrier in timers:
                if when <= self.now:
                    carrier.handle_timer(self.now)
            self.relay.deliver()
            self.received += self.client.take_arrived()
            self.flush()
        self.now = self.host.now = self.relay_host.now = max(self.now, end)

    @property
    def living(self):
        client = [self.client] if self.client.end is None else []
        return client + ([self.relay] if self.is_known and not self.relay_host.ended else [])

    @property
    def at_relay(self):
        return self.relay_host.peers[0].datagrams if self.relay_host.peers else []


@pytest.fixture
def ends():
    ends = Ends()
    ends.settle()
    assert ends.host.opened
    return ends


def send_both_ways(ends, batches, size=900):
    """Let both ends send batches of ten datagrams; return what each sent."""
    sent = []
    for batch in range(batches):
        datagrams = [(batch * 10 + n).to_bytes(4, "big") + bytes(size) for n in range(10)]
        sent += datagrams
        ends.client.session.send(datagrams)
        ends.relay_host.peers[0].session.send(datagrams)
        ends.settle(0.05)
    return sent


def test_datagrams_and_acknowledgements_pass_aioquic_by_at_both_ends(ends):
    ends.by_aioquic = {"client": 0, "relay": 0}
    sent = send_both_ways(ends, 20)
    assert ends.received == sent
    assert ends.at_relay == sent
    # The exception may be a probe that aioquic sends when an acknowledgement is late.
    assert sum(ends.by_aioquic.values()) <= 2


def test_the_packets_grow_to_what_the_path_takes_in_both_directions(ends):
    send_both_ways(ends, 10)
    for carrier in (ends.client, ends.relay):
        assert carrier.datagram_limit == CEILING - PACKET_OVERHEAD - 1


def test_what_is_lost_is_lost_and_nothing_comes_twice(ends):
    network = ends.network
    network.loss, network.duplicate, network.corrupt, network.jitter = 0.1, 0.1, 0.05, 0.005
    sent = send_both_ways(ends, 30)
    ends.settle(2)
    for got in (ends.received, ends.at_relay):
        assert len(got) == len(set(got))
        assert set(got) <= set(sent)
        assert len(got) > len(sent) / 2
    network.loss = network.duplicate = network.corrupt = network.jitter = 0.0
    ends.settle(20)
    # Nothing is believed to be on its way that is not, and both still speak.
    assert ends.client.quic._loss.bytes_in_flight == ends.relay.quic._loss.bytes_in_flight == 0
    last = send_both_ways(ends, 1)
    ends.settle()  # the windows are small now
    assert ends.received[-10:] == ends.at_relay[-10:] == last


def test_new_keys_are_taken_in_the_middle_of_a_transfer(ends):
    before = send_both_ways(ends, 3)
    ends.client.quic.request_key_update()
    ends.client.ask()
    ends.settle()
    after = send_both_ways(ends, 3)
    assert ends.received == before + after
    assert ends.at_relay == before + after


def test_a_cipher_that_is_not_of_the_path_is_left_to_aioquic():
    ends = Ends(cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256])
    ends.settle()
    sent = send_both_ways(ends, 3)
    assert ends.received == sent
    assert ends.at_relay == sent
    assert ends.by_aioquic["client"] > 10


def test_a_silent_relay_is_asked_and_a_talkative_one_is_not(ends):
    heard = ends.relay.last_heard
    ends.settle(KEEP_ALIVE + 1)
    assert ends.relay.last_heard > heard
    ends.by_aioquic = {"client": 0, "relay": 0}
    for _ in range(4):
        ends.relay_host.peers[0].session.send([b"tick"])
        ends.settle(KEEP_ALIVE / 2)
    assert ends.by_aioquic["relay"] == 0


def test_a_relay_that_falls_silent_is_given_up(ends):
    send_both_ways(ends, 1)
    ends.network.carry = lambda *_, **__: None
    ends.settle(200)
    assert ends.client.end == "the server has fallen silent"


def test_a_relay_with_another_certificate_is_told_so():
    ends = Ends(trust=Trust(certificate_hash=bytes(32)))
    ends.settle()
    assert CERTIFICATES.current.sha256 in ends.host.refused
    assert len(ends.relay_host.handshakes_failed) == 1


def test_the_last_datagrams_and_the_reason_reach_the_relay(ends):
    ends.client.session.send([b"goodbye"])
    ends.client.close_session(7, "moving on")
    ends.settle()
    assert ends.at_relay == [b"goodbye"]
    assert ends.relay_host.peers[0].closed == [(7, "moving on")]
    assert ends.client.end == "moving on"

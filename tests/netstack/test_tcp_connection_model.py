"""Two endpoints and a channel that loses, reorders, repeats, delays: what goes in must come out, both ways.

One side is the relay's connection as the gateway uses it, the other the same code as a guest that opens; what
they say is checked against scapy elsewhere and against the Linux kernel.
"""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import FROM_GUEST, TO_GUEST

from netstack.tcp_connection import Offer, TcpConnection
from netstack.tcp_receiver import MAX_PIECES, MAX_WINDOW
from netstack.tcp_segment import read_tcp
from netstack.tcp_sender import SEND_BUFFER
from netstack.tcp_states import State

PATIENCE = 3000.0
"""Simulated seconds that a transfer may take."""


class Host:
    """What is behind one end: a stream to send, a digest of what came, and how fast it takes that."""

    def __init__(self, connection, size, rng, slow):
        self.connection = connection
        self.left = rng.randbytes(size)
        self.sent_digest = hashlib.sha256(self.left).hexdigest()
        self.got = hashlib.sha256()
        self.rng = rng
        self.slow = slow
        self.room = MAX_WINDOW
        self.ended = False

    def turn(self):
        connection = self.connection
        while self.left and (room := connection.room):
            part, self.left = self.left[:room], self.left[room:]
            connection.write(part)
        if not self.left and not self.ended and connection.state in {State.ESTABLISHED, State.CLOSE_WAIT}:
            self.ended = True
            connection.finish()
        waiting = b"".join(connection.received)
        take = len(waiting)
        room = MAX_WINDOW
        if self.slow:
            take = min(take, self.rng.randrange(3000))
            room = 0 if take < len(waiting) else self.rng.randrange(20_000)
        self.got.update(waiting[:take])
        connection.host_took(take, room)
        sender, receiver = connection.sender, connection.receiver
        assert sender.buffered <= SEND_BUFFER
        assert receiver.held <= MAX_WINDOW
        assert len(receiver._early) <= MAX_PIECES


def simulate(seed, *, loss, jitter, repeat, sizes, slow=(False, False), sack=True):
    rng = random.Random(seed)
    now = 100.0
    ends = [
        TcpConnection(template, rng.getrandbits(32), Offer(1200, 60_000), now)
        for template in (TO_GUEST, FROM_GUEST)
    ]
    if not sack:
        ends[1]._sack = False
    guest = ends[1]
    hosts = [Host(end, size, rng, lazy) for end, size, lazy in zip(ends, sizes, slow, strict=True)]
    guest.connect(now)
    wire = []
    deadline = now + PATIENCE
    while now < deadline:
        due = [item for item in wire if item[0] <= now]
        wire = [item for item in wire if item[0] > now]
        for _, to, frame in sorted(due, key=lambda item: item[0]):
            segment = read_tcp(frame)
            if ends[to].state is State.CLOSED and ends[to].ending is None:
                if segment.flags == 2:
                    ends[to].accept(segment, now)
            else:
                ends[to].process([segment], now)
        for number, (end, host) in enumerate(zip(ends, hosts, strict=True)):
            host.turn()
            for frame in end.dispatch(now):
                for _ in range(1 + (rng.random() < repeat)):
                    if rng.random() >= loss:
                        wire.append((now + 0.01 + rng.random() * jitter, 1 - number, frame))
        if all(end.ending is not None for end in ends) and not wire:
            break
        times = [end.poll_at for end in ends] + [when for when, _, _ in wire]
        if any(host.slow for host in hosts):
            times.append(now + 0.005)
        now = max(now + 1e-6, min(times))
    return ends, hosts


def check(ends, hosts):
    for host, other in (hosts, reversed(hosts)):
        assert host.got.hexdigest() == other.sent_digest
    assert {end.state for end in ends} == {State.CLOSED}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0, 0.01, 0.02, 0.1, 0.25]),
    jitter=st.sampled_from([0, 0.001, 0.05]),
    repeat=st.sampled_from([0, 0.05]),
    sizes=st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)),
    slow=st.tuples(st.booleans(), st.booleans()),
    sack=st.booleans(),
)
def test_every_byte_arrives_whatever_the_channel_does(*, seed, loss, jitter, repeat, sizes, slow, sack):
    ends, hosts = simulate(seed, loss=loss, jitter=jitter, repeat=repeat, sizes=sizes, slow=slow, sack=sack)
    # A last FIN or its acknowledgement may be lost for good: then one side has given up, with all data there.
    check(ends, hosts)


def test_a_clean_channel_needs_no_retransmission():
    ends, hosts = simulate(1, loss=0, jitter=0, repeat=0, sizes=(500_000, 500_000))
    check(ends, hosts)
    assert [end.sender.retransmitted for end in ends] == [0, 0]


def test_losses_are_repaired_without_sending_much_twice():
    ends, hosts = simulate(2, loss=0.02, jitter=0, repeat=0, sizes=(1_000_000, 0))
    check(ends, hosts)
    segments = 1_000_000 / 1200
    assert ends[0].sender.retransmitted < segments * 0.06

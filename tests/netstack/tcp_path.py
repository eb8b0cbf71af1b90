"""A connection of the relay's with a guest, and the path between them, in simulated time."""

from __future__ import annotations

import random
from bisect import insort
from collections import deque
from operator import itemgetter

from tcp_talk import FROM_GUEST, TO_GUEST

from netstack.tcp_connection import Offer, TcpConnection
from netstack.tcp_segment import read_tcp
from netstack.tcp_states import State

MSS = 1200
MOST = 8 * 1024 * 1024
HOST_ROOM = 300_000
"""Bytes that the socket of the host has room for: it takes them at once, but never more in one go."""


class Path:
    """Two connections and what is between them: a rate in bytes per second, a delay, losses by a seed."""

    def __init__(
        self,
        *,
        rate=2_500_000,
        delay=0.2,
        loss=0.0,
        most=MOST,
        guest_most=MOST,
        tells_after=None,
        nic=(0, 0.0),
        sack=True,
        jitter=0.0,
    ):
        """``tells_after``: seconds after which a loss towards the client is known to have happened there.

        ``nic``: buffers of the guest's NIC (0: enough), and the seconds that it takes to empty one.
        ``jitter``: seconds that frames to the guest take more at most, each its own time.
        """
        self.now = 100.0
        self.rate, self.delay, self.loss, self.jitter = rate, delay, loss, jitter
        self.rng = random.Random(7)
        self.relay = TcpConnection(TO_GUEST, 2**32 - 1000, Offer(MSS, HOST_ROOM, most), self.now)
        self.guest = TcpConnection(FROM_GUEST, 5, Offer(MSS, HOST_ROOM, guest_most), self.now)
        self.ends = [self.relay, self.guest]
        self.limits = [most, guest_most]
        self.wires = [deque(), deque()]
        """To the relay and to the guest: when each frame arrives."""
        self.free_at = [0.0, 0.0]
        self.taken = [0, 0]
        self.left = [0, 0]
        self.frames_to_guest = []
        self.tells_after = tells_after
        self.told = deque()
        self.reported = 0
        self.nic_buffers, self.nic_seconds = nic
        self.nic = deque()
        """When the guest has emptied each of its NIC's buffers that are full."""
        self.dropped_by_nic = 0
        self.guest._sack = sack
        self.guest.connect(self.now)

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.step()
            times = [wire[0][0] for wire in self.wires if wire] + [e.poll_at for e in self.ends]
            times += [told[0] for told in list(self.told)[:1]]
            self.now = min(max(self.now + 0.001, min(times)), end)

    def step(self):
        self.tell()
        for to, (end, wire) in enumerate(zip(self.ends, self.wires, strict=True)):
            segments = []
            while wire and wire[0][0] <= self.now:
                segments.append(read_tcp(wire.popleft()[1]))
            if to == 1:
                segments = self.receive(segments)
            if segments and end.state is State.CLOSED and end.ending is None:
                end.accept(segments.pop(0), self.now)
            if segments:
                end.process(segments, self.now)
            end.limit_buffers(self.limits[to])
            size = sum(map(len, end.received))
            self.taken[to] += size
            end.host_took(size, HOST_ROOM)
            if end.state is State.ESTABLISHED:
                while self.left[to] and (room := min(end.room, self.left[to])) > 0:
                    end.write(bytes(room))
                    self.left[to] -= room
            for frame in end.dispatch(self.now):
                if to == 0:
                    self.frames_to_guest.append(frame)
                self.carry(1 - to, frame)
            assert not end.is_stalled

    def carry(self, to, frame):
        # Half a second of buffer; what does not fit is lost.
        leaves = max(self.now, self.free_at[to]) + len(frame) / self.rate
        if leaves > self.now + 0.5:
            return
        if self.rng.random() < self.loss:
            if self.tells_after is not None and to == 1:
                sequence = read_tcp(frame).sequence
                self.told.append((leaves + self.tells_after, sequence, leaves))
            return
        self.free_at[to] = leaves
        late = self.rng.random() * self.jitter if self.jitter and to == 1 else 0.0
        insort(self.wires[to], (leaves + self.delay + late, frame), key=itemgetter(0))

    def tell(self):
        """Say what was lost on the way to the client, as its QUIC connection finds out."""
        while self.told and self.told[0][0] <= self.now:
            _, sequence, sent_at = self.told.popleft()
            self.relay.lost_on_path([(sequence, sent_at)])
            self.reported += 1

    def receive(self, segments):
        """Let the guest's NIC take what arrives at one time, as far as it has buffers."""
        kept = []
        for segment in segments:
            while self.nic and self.nic[0] <= self.now:
                self.nic.popleft()
            if self.nic_buffers and len(self.nic) >= self.nic_buffers:
                self.dropped_by_nic += 1
                continue
            if self.nic_buffers:
                self.nic.append(max(self.now, self.nic[-1] if self.nic else 0.0) + self.nic_seconds)
            kept.append(segment)
        return kept

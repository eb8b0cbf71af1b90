"""What flows take of what guests send, at the rate: nobody waits for ever, none has more than the others."""

from __future__ import annotations

import random

import pytest
from lan_parts import GATEWAY_MAC
from test_upload_limit import RATE, tcp

from actors.upload import LEAST_SEGMENTS, WINDOW_SECONDS, Upload, UploadAllowed
from actors.upload_limit import UploadLimit

MSS = 1000


class Flow:
    """A guest that fills its window, and a flow that takes what it may."""

    def __init__(self, upload, limit, loop):
        self.upload, self.limit, self.loop = upload, limit, loop
        self.held, self.taken = [], 0
        self.send()

    def send(self):
        room = self.upload.window(MSS) - sum(map(len, self.held))
        frames = [tcp(MSS)] * (room // MSS)
        self.held += self.limit.take(frames, self.loop.time(), GATEWAY_MAC)
        self.take_some()

    def take_some(self):
        admitted = self.upload.admit(self, self.held)
        size = sum(map(len, admitted))
        assert b"".join(self.held).startswith(b"".join(admitted))
        self.upload.took(self, size)
        self.taken += size
        rest = b"".join(self.held)[size:]
        self.held = [rest] if rest else []
        if self.held:
            self.upload.wait(self)

    def tell(self, message):
        assert type(message) is UploadAllowed
        self.take_some()
        self.send()


@pytest.fixture
def limit(loop):
    return UploadLimit(8 * RATE, 0, loop.time())


@pytest.fixture
def upload(limit):
    return Upload(limit)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_flows_together_have_the_rate_and_each_its_share(loop, limit, upload, count):
    flows = [Flow(upload, limit, loop) for _ in range(count)]
    loop.advance(1)
    before = [flow.taken for flow in flows]
    loop.advance(10)
    shares = [flow.taken - taken for flow, taken in zip(flows, before, strict=True)]
    assert sum(shares) == pytest.approx(10 * RATE, rel=0.03)
    assert sum(shares) ** 2 / (count * sum(share**2 for share in shares)) > 0.95
    assert limit.owed(loop.time()) < 0.5 * RATE


def test_whoever_holds_something_back_is_woken_until_it_is_taken(loop, limit, upload):
    choose = random.Random(7)
    limit.take([tcp()] * 400, loop.time(), GATEWAY_MAC)
    flows = []
    for _ in range(20):
        flow = Flow(upload, limit, loop)
        flow.send = lambda: None
        flows.append(flow)
        loop.advance(choose.random() / 50)
        assert all(loop.pending() for flow in flows if flow.held)
    loop.advance(3)
    assert [flow.held for flow in flows] == [[]] * 20
    assert loop.pending() == []


def test_one_that_has_ended_holds_nothing(loop, limit, upload):
    one, other = Flow(upload, limit, loop), Flow(upload, limit, loop)
    one.tell = other.tell = lambda _: None
    before = upload.window(MSS)
    upload.leave(one)
    assert upload.window(MSS) == 2 * before
    upload.leave(one)
    loop.advance(1)
    assert upload.admit(other, other.held) == other.held


def test_a_window_is_a_share_of_what_the_rate_moves_in_a_moment_and_some_segments_at_least(loop, upload):
    assert upload.window(MSS) == int(RATE * WINDOW_SECONDS)
    slow = Upload(UploadLimit(8000, 0, loop.time()))
    assert slow.window(MSS) == LEAST_SEGMENTS * MSS


def test_whoever_waits_goes_on_when_nothing_limits_any_more(loop, limit, upload):
    limit.take([tcp()] * 400, loop.time(), GATEWAY_MAC)
    flow = Flow(upload, limit, loop)
    assert flow.held
    told = []
    flow.tell = told.append
    upload.release()
    assert [type(message) for message in told] == [UploadAllowed]

"""One control loop: losses on the path to the client are repaired and cost no window; those behind it do."""

from __future__ import annotations

import pytest
from tcp_path import MSS, Path

from netstack.tcp_segment import read_tcp

RATE = 2_500_000
SOON, LATE = 0.101, 0.13
"""Seconds until a loss is known, with a round trip of 0.1: before SACK blocks show it, or after."""


def download(path, seconds, *, warm_up=2.0):
    """Give the bytes per second that arrive after a while."""
    path.left[0] = 10**9
    path.run(warm_up)
    before = path.taken[1]
    path.run(seconds)
    return (path.taken[1] - before) / seconds


@pytest.mark.parametrize("tells_after", [SOON, LATE])
@pytest.mark.parametrize("loss", [0.001, 0.01, 0.05])
def test_losses_on_the_path_cost_no_window(loss, tells_after):
    path = Path(rate=RATE, delay=0.05, loss=loss, tells_after=tells_after)
    # Of the link's queue nothing is known to the path's control here, so it is kept from overflowing.
    path.limits[0] = 1_000_000
    rate = download(path, 5)
    assert path.reported > 0
    assert rate > 0.75 * (1 - loss) * RATE
    path.loss = 0.0
    path.run(1)
    assert path.relay.sender.cuts <= path.reported // 100


@pytest.mark.parametrize("jitter", [0.002, 0.01, 0.05])
def test_segments_that_overtake_each_other_cost_little(jitter):
    path = Path(rate=RATE, delay=0.05, jitter=jitter)
    path.limits[0] = 1_000_000
    rate = download(path, 3)
    sender = path.relay.sender
    assert rate > 0.75 * RATE
    assert sender.cuts == 0
    assert sender.retransmitted < 20


def test_the_same_losses_untold_cost_nearly_everything():
    path = Path(rate=RATE, delay=0.05, loss=0.01)
    path.limits[0] = 1_000_000
    assert download(path, 5) < 0.3 * RATE
    assert path.relay.sender.cuts > 3


@pytest.mark.parametrize("tells_after", [None, SOON])
@pytest.mark.parametrize("sack", [True, False])
def test_a_guest_whose_nic_has_few_buffers_is_still_paced(tells_after, sack):
    path = Path(rate=10 * RATE, delay=0.005, tells_after=tells_after, nic=(8, MSS / 1_000_000), sack=sack)
    rate = download(path, 4)
    sender = path.relay.sender
    assert path.dropped_by_nic > 0
    assert sender.cuts > 0
    # The NIC takes 1 MB/s; the window is a few of its buffers', not the path's.
    assert rate > 400_000
    assert sender.congestion.window < 60 * MSS
    assert path.dropped_by_nic < 0.1 * (path.taken[1] / MSS)


@pytest.mark.parametrize("seed", [2, 4, 7])
def test_a_dropping_nic_is_told_apart_on_a_path_that_loses_too(seed):
    path = Path(rate=10 * RATE, delay=0.005, loss=0.01, tells_after=0.015, nic=(8, MSS / 1_000_000))
    path.rng.seed(seed)
    rate = download(path, 4)
    assert path.reported > 0
    assert path.relay.sender.cuts > 0
    assert rate > 300_000
    assert path.relay.sender.congestion.window < 60 * MSS
    assert path.dropped_by_nic < 0.1 * (path.taken[1] / MSS)


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("tells_after", [0.02, SOON, LATE])
def test_all_arrives_whatever_is_told_when(tells_after, sack):
    path = Path(rate=RATE, delay=0.03, loss=0.1, tells_after=tells_after, sack=sack)
    path.left[0] = 1_000_000
    path.run(200)
    assert path.taken[1] == 1_000_000
    assert not path.relay.sender.is_busy


def test_a_lost_segment_goes_again_at_once():
    path = Path(rate=RATE, delay=0.05)
    path.run(0.16)
    path.left[0] = 20 * MSS
    path.run(0.03)
    sender = path.relay.sender
    first = path.relay._first + 1
    assert (sender.una, sender.retransmitted) == (first, 0)
    assert path.relay.lost_on_path([((first + 2 * MSS) % 2**32, path.now)]) == 1
    window = sender.congestion.window
    path.frames_to_guest.clear()
    path.step()
    assert sender.retransmitted == 1
    assert sender.congestion.window == window


def test_a_lost_probe_of_a_closed_window_goes_again_at_once():
    path = Path(rate=RATE, delay=0.05)
    path.run(0.2)
    relay = path.relay
    relay.sender.set_window(relay.sender.una, 0)
    relay.write(b"waits")
    assert relay.dispatch(path.now) == []
    for _ in range(20):  # an outage: what is asked gets lost
        (probe,) = relay.dispatch(now := relay.poll_at)
        assert relay.lost_on_path([(read_tcp(probe).sequence, now)]) == 1
        assert relay.poll_at <= now
    (_,) = relay.dispatch(now)
    assert relay.poll_at < now + 1, "the next is not put off for it"
    assert relay.lost_on_path([(read_tcp(probe).sequence - 1, now)]) == 0


def test_what_left_again_since_is_not_taken_as_lost_once_more():
    path = Path(rate=RATE, delay=0.05)
    path.run(0.16)
    path.left[0] = 20 * MSS
    path.run(0.03)
    sender, first = path.relay.sender, path.relay._first + 1
    earlier = path.now
    lost = [(first % 2**32, earlier)]
    assert path.relay.lost_on_path(lost) == 1
    path.now += 0.001
    path.step()
    assert path.relay.lost_on_path(lost) == 0, "it is about the first try"
    assert path.relay.lost_on_path([((first + 7) % 2**32, path.now)]) == 0, "no segment began there"
    assert path.relay.lost_on_path([((first - 9) % 2**32, path.now)]) == 0
    path.run(2)
    assert sender.all_acknowledged or not sender.is_busy
    assert path.relay.lost_on_path(lost) == 0
    assert path.taken[1] == 20 * MSS

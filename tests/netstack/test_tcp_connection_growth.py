"""Windows and buffers that follow the path: what fits it is under way, and no more is held than allowed."""

from __future__ import annotations

import pytest
from tcp_path import HOST_ROOM, MOST, MSS, Path
from tcp_talk import Talk

from netstack.tcp_receiver import BASE_WINDOW, Receiver
from netstack.tcp_segment import parse_syn_options, read_tcp


@pytest.mark.parametrize("to", [1, 0], ids=["down", "up"])
def test_a_long_path_is_filled(to):
    path = Path()
    path.left[1 - to] = 10**9
    path.run(5)
    before = path.taken[to]
    path.run(4)
    # 1 MB per round trip of 0.4 s; with windows of BASE_WINDOW it would be a quarter.
    assert path.taken[to] - before > 0.8 * 4 * 2_500_000 * MSS / (MSS + 54)
    assert path.relay.sender.buffered + path.relay.receiver.held <= MOST


@pytest.mark.parametrize("to", [1, 0], ids=["down", "up"])
def test_a_short_path_needs_no_more_than_it_had(to):
    path = Path(delay=0.001)
    path.left[1 - to] = 10**9
    path.run(1)
    path.loss = 0.0
    assert path.relay.sender.buffered < 2_500_000 * 0.5 + BASE_WINDOW
    assert path.relay.receiver.edge - path.relay.receiver.next <= BASE_WINDOW


def test_a_window_that_is_used_no_more_becomes_small_again():
    path = Path()
    path.left[1] = 4_000_000
    path.run(3)
    receiver = path.relay.receiver
    assert receiver.edge - receiver.next > 2 * BASE_WINDOW
    for _ in range(40):
        path.left[1] += 50_000
        path.run(1)
    assert path.relay._appetite.window < BASE_WINDOW
    assert path.taken[0] == 4_000_000 + 40 * 50_000


def test_a_lowered_limit_holds_as_soon_as_what_is_beyond_it_was_acknowledged():
    path = Path()
    path.left[0] = 10**9
    path.run(5)
    assert path.relay.sender.buffered > 500_000
    path.limits[0] = 64 * 1024
    path.run(1.5)
    assert 0 < path.relay.sender.buffered <= 64 * 1024
    before = path.taken[1]
    path.run(2)
    assert path.taken[1] > before
    assert path.relay.sender.buffered <= 64 * 1024


def test_a_limit_from_before_the_connection_is_open_holds():
    talk = Talk()
    talk.connection.limit_buffers(1400)
    talk.play("open mss 1000")
    assert talk.connection.sender.limit == talk.connection.receiver.limit == 1400
    assert talk.connection.room <= 1400


def test_what_comes_out_of_order_is_held_up_to_the_limit_and_comes_again():
    path = Path(loss=0.01)
    path.left[1] = 6_000_000
    path.limits[0] = 20 * MSS
    path.run(2)
    assert path.relay.dropped > 0
    path.loss = 0.0
    path.run(60)
    assert path.taken[0] == 6_000_000


@pytest.mark.parametrize("to", [1, 0], ids=["down", "up"])
def test_all_arrives_over_a_long_path_that_loses(to):
    path = Path(loss=0.01, delay=0.05)
    path.left[1 - to] = 3_000_000
    path.run(120)
    assert path.taken[to] == 3_000_000
    assert path.relay.held == 0


@pytest.mark.parametrize(
    ("most", "shift"),
    [(64 * 1024, 1), (256 * 1024, 3), (MOST, 8), (2**30 - 1, 14), (60_000, 0)],
)
def test_the_scale_fits_the_largest_window(most, shift):
    path = Path(most=most)
    path.run(1)
    syn_ack = read_tcp(path.frames_to_guest[0])
    assert parse_syn_options(syn_ack.options).window_shift == shift
    assert most >> shift <= 0xFFFF


def test_a_guest_without_scaling_gets_what_sixteen_bits_tell():
    path = Path()
    path.guest._shift = None
    path.left[1] = 10**9
    path.run(5)
    assert path.taken[0] > 0
    assert path.relay.receiver.edge - path.relay.receiver.acknowledged <= 0xFFFF


def test_a_host_that_takes_nothing_closes_a_large_window_too():
    receiver = Receiver(0, 10_000, MOST)
    receiver.limit = MOST
    assert receiver.open_window(1, MSS, wanted=2_000_000)
    assert receiver.edge == 2_000_000
    receiver.accept(0, bytes(MSS), fin=False)
    assert not receiver.open_window(HOST_ROOM, MSS, wanted=3_000_000), "what came is not taken yet"
    receiver.take(MSS)
    assert not receiver.open_window(0, MSS, wanted=3_000_000), "there is no room"
    assert receiver.open_window(1, MSS, wanted=3_000_000)


def test_the_limit_bounds_what_is_promised():
    receiver = Receiver(0, 10_000, MOST)
    receiver.limit = 400_000
    receiver.open_window(HOST_ROOM, MSS, wanted=2_000_000)
    assert receiver.edge == 400_000

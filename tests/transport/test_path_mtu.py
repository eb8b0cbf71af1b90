import pytest

from transport.quic.path_mtu import (
    BASE,
    BLACK_HOLE_LOSSES,
    CEILING,
    NEVER,
    RAISE_AFTER,
    RETRY_AFTER,
    STEP,
    TRIES,
    PathMtu,
)


def search(path_takes, until=60.0, limit=CEILING):
    """Probe a path that takes packets of up to so many bytes; return the search and its probes."""
    mtu, now, probes = PathMtu(limit), 0.0, []
    while now < until:
        now = max(now, mtu.next_at)
        if now >= until:
            break
        size = mtu.probe(now)
        probes.append(size)
        if size <= path_takes:
            mtu.probe_acknowledged(size, now)
        else:
            mtu.probe_lost(size, now)
    return mtu, probes


def test_ethernet_is_found_with_one_probe():
    mtu, probes = search(1500)
    assert mtu.size == CEILING
    assert probes == [CEILING]


@pytest.mark.parametrize("path_takes", [1200, 1201, 1232, 1252, 1300, 1372, 1420, 1444, 1451])
def test_a_narrower_path_is_found_within_a_step(path_takes):
    mtu, probes = search(path_takes)
    assert path_takes - STEP <= mtu.size <= path_takes
    assert len(probes) <= 7 * TRIES


@pytest.mark.parametrize("limit", [1201, 1216, 1300, 1451])
def test_what_the_other_side_takes_is_never_exceeded(limit):
    mtu, probes = search(1500, limit=limit)
    assert probes == [limit]
    assert mtu.size == limit
    assert mtu.probe(mtu.next_at) == limit
    for _ in range(BLACK_HOLE_LOSSES):
        mtu.packet_lost(limit, 100.0)
    assert mtu.size == BASE
    assert search(1202, limit=limit)[0].size <= 1202


def test_a_large_limit_changes_nothing():
    assert search(1500, limit=65527)[1] == [CEILING]


def test_where_no_more_than_the_base_is_taken_nothing_is_asked():
    mtu = PathMtu(BASE)
    assert mtu.next_at == NEVER
    assert not any(mtu.packet_lost(BASE, 1.0) for _ in range(2 * BLACK_HOLE_LOSSES))
    assert (mtu.size, mtu.next_at) == (BASE, NEVER)


def test_the_next_probe_waits_for_the_fate_of_the_last():
    mtu = PathMtu()
    mtu.probe(1.0)
    assert mtu.next_at == 1.0 + RAISE_AFTER
    mtu.probe_lost(CEILING, 2.0)
    assert mtu.next_at == 2.0 + RETRY_AFTER


def test_a_probe_amid_an_outage_says_nothing():
    mtu = PathMtu()
    for now in range(1, 50):
        assert mtu.probe(now) == CEILING
        mtu.probe_unanswered(now)
        assert mtu.next_at == now + RETRY_AFTER
    mtu.probe_acknowledged(CEILING, 60.0)
    assert mtu.size == CEILING


def test_a_finished_search_is_tried_again_later():
    mtu, _ = search(1300)
    again = mtu.next_at
    assert again > 60
    assert mtu.probe(again) == CEILING


def test_a_path_that_narrows_is_noticed_and_searched_again():
    mtu, _ = search(1500)
    losses = [mtu.packet_lost(CEILING, 100.0) for _ in range(BLACK_HOLE_LOSSES)]
    assert losses == [False] * (BLACK_HOLE_LOSSES - 1) + [True]
    assert mtu.size == BASE
    for _ in range(2):
        assert mtu.probe(mtu.next_at) == CEILING
        mtu.probe_lost(CEILING, 101.0)
    assert BASE < mtu.probe(mtu.next_at) < CEILING


@pytest.mark.parametrize("takes", [1500, 1300])
@pytest.mark.parametrize("lost", [BASE + 1, BASE + STEP, 1300])
def test_after_an_outage_the_size_is_the_same_as_before(takes, lost):
    mtu, _ = search(takes)
    before = mtu.size
    # What is lost last may be a small packet, and says nothing about the larger ones.
    for size in [before] * (BLACK_HOLE_LOSSES - 1) + [min(lost, before)]:
        mtu.packet_lost(size, 100.0)
    assert mtu.size == BASE
    assert mtu.next_at == 100.0 + RETRY_AFTER
    size = mtu.probe(mtu.next_at)
    mtu.probe_acknowledged(size, 100.6)
    assert mtu.size == size == before


@pytest.mark.parametrize("lost", [BASE + 1, 1300])
def test_a_path_is_searched_anew_whatever_was_lost_last(lost):
    mtu, _ = search(1500)
    for size in [CEILING] * (BLACK_HOLE_LOSSES - 1) + [lost]:
        mtu.packet_lost(size, 100.0)
    while mtu.next_at < 160.0:
        now = mtu.next_at
        size = mtu.probe(now)
        (mtu.probe_acknowledged if size <= 1400 else mtu.probe_lost)(size, now)
    assert 1400 - STEP <= mtu.size <= 1400


def test_losses_between_arrivals_are_no_black_hole():
    mtu, _ = search(1500)
    for _ in range(10):
        assert not any(mtu.packet_lost(CEILING, 1.0) for _ in range(BLACK_HOLE_LOSSES - 1))
        mtu.packets_acknowledged(CEILING)
    assert mtu.size == CEILING


def test_losses_of_small_packets_say_nothing():
    mtu, _ = search(1500)
    assert not any(mtu.packet_lost(BASE, 1.0) for _ in range(100))
    mtu.packets_acknowledged(BASE)
    assert mtu.size == CEILING

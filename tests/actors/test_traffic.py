"""What a session has carried, and what of it the LAN's counters tell."""

from __future__ import annotations

from actors.descriptions import PathState
from actors.lan.traffic import Traffic
from netstack.counters import Counters


def test_frames_are_counted_at_once_and_the_rest_when_somebody_asks():
    counters = Counters()
    traffic = Traffic(counters)
    traffic.came([bytes(60), bytes(100)])
    traffic.goes([bytes(1000)])
    assert counters == {"peer.frames_from_client": 2, "peer.frames_to_client": 1}
    for _ in range(2):
        traffic.bring_up_to_date(PathState("webtransport", packets_sent=7, packets_lost=1))
        assert (counters["peer.bytes_from_client"], counters["peer.bytes_to_client"]) == (160, 1000)
        assert (counters["peer.packets_sent"], counters["peer.packets_lost"]) == (7, 1)


def test_a_path_that_counts_anew_takes_nothing_back():
    counters = Counters()
    traffic = Traffic(counters)
    for sent in (9, 4, None):
        traffic.bring_up_to_date(PathState("webtransport", packets_sent=sent))
        assert counters["peer.packets_sent"] == 9

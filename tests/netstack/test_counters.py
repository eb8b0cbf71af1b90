from __future__ import annotations

from netstack.counters import Counters, PartCounters


def test_totals_begin_at_zero_and_are_summed_up_by_prefix():
    counters = Counters()
    assert counters["switch.received"] == 0
    counters.add("switch.drop.runt")
    counters.add("switch.drop.isolated", 2)
    counters.add("gateway.drop.denied", 4)
    assert counters == {"switch.drop.runt": 1, "switch.drop.isolated": 2, "gateway.drop.denied": 4}
    assert counters.total("switch.drop.") == 3


def test_what_a_part_counts_counts_for_the_whole_and_not_for_other_parts():
    whole = Counters()
    one, other = PartCounters(whole), PartCounters(whole)
    one.add("peer.drop.too_big", 2)
    other.add("peer.drop.too_big")
    whole.add("switch.received")
    assert (one, other) == ({"peer.drop.too_big": 2}, {"peer.drop.too_big": 1})
    assert whole == {"peer.drop.too_big": 3, "switch.received": 1}

from __future__ import annotations

from relay.admin.service import LAG_BOUNDS, LoopLag


def test_lags_are_counted_in_the_bucket_that_they_fit():
    lag = LoopLag()
    for late in (-0.1, 0.0005, 0.001, 0.02, 7.0):
        lag.note(late)
    counts = dict(lag.buckets())
    assert (counts["0.001"], counts["0.01"], counts["0.025"], counts["1.0"], counts["+Inf"]) == (
        3,
        3,
        4,
        4,
        5,
    )
    assert len(counts) == len(LAG_BOUNDS) + 1
    assert lag.total == 7.0215

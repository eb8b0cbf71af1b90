from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.token_bucket import TokenBucket


def taken(bucket, now, attempts):
    return sum(bucket.take(now) for _ in range(attempts))


def test_it_starts_full_and_fills_at_its_rate():
    bucket = TokenBucket(rate=10, burst=3, now=100.0)
    assert taken(bucket, 100.0, 10) == 3
    assert taken(bucket, 100.05, 10) == 0
    assert taken(bucket, 100.15, 10) == 1
    assert taken(bucket, 200.0, 10) == 3


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 20)), max_size=30),
    st.floats(0.5, 50),
    st.integers(1, 20),
)
def test_it_never_gives_more_than_its_rate_and_one_burst(attempts, rate, burst):
    bucket = TokenBucket(rate, burst, 0.0)
    now = total = 0
    for pause, count in attempts:
        now += pause
        total += taken(bucket, now, count)
    assert total <= burst + rate * now + 1e-6

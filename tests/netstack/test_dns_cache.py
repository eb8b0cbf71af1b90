from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netstack.buffer_budget import LEAST, BufferBudget
from netstack.dns_cache import ENTRY_OVERHEAD, MAX_LIFETIME, CachedAnswer, DnsCache


def test_an_answer_is_kept_for_its_lifetime():
    cache = DnsCache()
    cache.put("a", b"answer", 60, 1000.0)
    assert cache.get("a", 1000.0) == CachedAnswer(b"answer", 0)
    assert cache.get("a", 1059.9) == CachedAnswer(b"answer", 59)
    assert cache.get("a", 1060.0) is None
    assert (len(cache), cache.size) == (0, 0)
    assert cache.get("b", 1000.0) is None


def test_what_may_not_be_kept_is_not():
    cache = DnsCache()
    cache.put("a", b"old", 60, 1000.0)
    cache.put("a", b"new", 0, 1000.0)
    assert len(cache) == 0, "nor does it take another's place"
    assert cache.get("a", 1000.0) is None


def test_a_new_answer_replaces_the_old():
    cache = DnsCache()
    cache.put("a", b"old", 60, 1000.0)
    cache.put("a", b"new", 60, 1030.0)
    assert cache.get("a", 1080.0) == CachedAnswer(b"new", 50)
    assert (len(cache), cache.size) == (1, 3 + ENTRY_OVERHEAD)


def test_a_day_at_most():
    cache = DnsCache()
    cache.put("a", b"", 10 * MAX_LIFETIME, 0.0)
    assert cache.get("a", MAX_LIFETIME - 1.0) is not None
    assert cache.get("a", float(MAX_LIFETIME)) is None


def test_the_entry_not_asked_for_longest_makes_room():
    cache = DnsCache(max_entries=2)
    cache.put("a", b"", 60, 0.0)
    cache.put("b", b"", 60, 0.0)
    cache.get("a", 1.0)
    assert cache.put("c", b"", 60, 2.0) == 1
    assert cache.get("b", 3.0) is None
    assert cache.get("a", 3.0) is not None


def test_bytes_are_bounded():
    cache = DnsCache(max_bytes=3 * ENTRY_OVERHEAD)
    for name in "abc":
        cache.put(name, b"", 60, 0.0)
    assert cache.put("large", bytes(ENTRY_OVERHEAD), 60, 0.0) == 2
    assert cache.put("too large", bytes(2 * ENTRY_OVERHEAD + 1), 60, 0.0) == 0
    assert cache.get("too large", 0.0) is None
    assert cache.size == 3 * ENTRY_OVERHEAD


def test_caches_share_memory_so_that_each_may_hold_what_is_left():
    memory = BufferBudget(8 * LEAST)
    first, second, third = caches = [DnsCache(memory=memory) for _ in range(3)]
    for cache in caches:
        for name in range(100):
            cache.put(name, bytes(LEAST // 4 - ENTRY_OVERHEAD), 60, 0.0)
    assert [cache.size // LEAST for cache in caches] == [4, 2, 1]
    assert memory.used == sum(cache.size for cache in caches)
    assert third.put("large", bytes(LEAST - ENTRY_OVERHEAD), 60, 0.0) == 4
    assert first.put("too large", bytes(2 * LEAST), 60, 0.0) == 0
    first.clear()
    assert (len(first), first.size, memory.used) == (0, 0, second.size + third.size)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get"]),
            st.integers(0, 9),
            st.integers(0, 600),
            st.integers(0, 20),
            st.floats(0, 10),
        )
    )
)
def test_the_books_are_right(steps):
    cache = DnsCache(max_entries=4, max_bytes=4 * ENTRY_OVERHEAD)
    now, kept = 0.0, {}
    for what, key, size, life, wait in steps:
        now += wait
        if what == "put":
            cache.put(key, bytes(size), life, now)
            kept[key] = (size, now, life)
        elif (found := cache.get(key, now)) is not None:
            put_size, then, put_life = kept[key]
            assert (len(found.wire), found.age) == (put_size, int(now - then))
            assert now - then < put_life
        assert len(cache) <= 4
        assert ENTRY_OVERHEAD * len(cache) <= cache.size <= 4 * ENTRY_OVERHEAD

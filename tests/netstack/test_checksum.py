from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import in4_chksum
from scapy.utils import checksum as scapy_checksum

from netstack.checksum import (
    PROTOCOL_UDP,
    add_up,
    add_up_number,
    add_up_part,
    add_up_words,
    checksum,
    finish,
    finish_udp,
    is_valid,
    pseudo_header,
    remainder,
    update,
    update_span,
)

word = st.integers(0, 0xFFFF)


@given(st.binary(max_size=1600))
@example(b"")
@example(b"\x00" * 20)
@example(b"\xff" * 20)
@example(b"\xff\xfe\x00\x01")
def test_checksum_is_scapys(data):
    assert checksum(data) == scapy_checksum(data)


@given(st.binary(max_size=300), st.integers(0, 20), st.integers(0, 20))
@example(b"\xff" * 65_535, 0, 0)
def test_both_ways_to_add_up_agree_on_any_part_of_the_data(data, before, behind):
    whole = b"\xaa" * before + data + b"\xbb" * behind
    part = before, before + len(data)
    sums = [add(whole, *part) for add in (add_up_words, add_up_number, add_up_part)]
    assert [finish(total) for total in [*sums, add_up(data)]] == [scapy_checksum(data)] * 4
    assert [total == 0 for total in sums] == [not any(data)] * 3


@given(st.binary(min_size=1, max_size=200))
def test_data_with_its_checksum_is_valid_and_damage_is_seen(data):
    if len(data) % 2:
        data += b"\0"
    whole = data + checksum(data).to_bytes(2, "big")
    assert is_valid(add_up(whole))
    damaged = bytes([whole[0] ^ 0x10]) + whole[1:]
    assert not is_valid(add_up(damaged))


def test_all_zero_is_not_valid():
    assert not is_valid(add_up(bytes(8)))


@given(st.lists(st.binary(max_size=100).filter(lambda part: len(part) % 2 == 0)), st.binary(max_size=9))
def test_sums_of_parts_add_up(parts, last):
    assert finish(sum(map(add_up, [*parts, last]))) == checksum(b"".join([*parts, last]))


@given(
    st.binary(min_size=4, max_size=4).filter(any),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=8, max_size=600),
)
def test_udp_checksum_is_scapys(source, destination, segment):
    from scapy.layers.inet import IP

    ip = IP(src=".".join(map(str, source)), dst=".".join(map(str, destination)))
    ours = finish_udp(pseudo_header(source, destination, PROTOCOL_UDP, len(segment)) + add_up(segment))
    assert ours == (in4_chksum(PROTOCOL_UDP, ip, segment) or 0xFFFF)


@given(st.lists(word, min_size=2, max_size=20).filter(any), st.data())
def test_incremental_update_equals_computing_anew(words, data):
    index = data.draw(st.integers(0, len(words) - 1))
    new = data.draw(word)
    changed = [*words[:index], new, *words[index + 1 :]]
    if not any(changed):
        return  # an all-zero packet does not exist: RFC 1624 section 3
    old_checksum = checksum(b"".join(w.to_bytes(2, "big") for w in words))
    expected = checksum(b"".join(w.to_bytes(2, "big") for w in changed))
    assert update(old_checksum, words[index], new) == expected


@given(st.binary(max_size=9), st.binary(max_size=60), st.binary(max_size=9).filter(any), st.data())
def test_update_of_a_span_equals_computing_anew(start, old, end, data):
    start = start[len(start) % 2 :]
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    assert update_span(checksum(start + old + end), old, new) == checksum(start + new + end)


@given(st.integers(0, 70_000), st.integers(-2, 2), st.integers(0))
@example(0, 0, 0)
@example(8 * 1500, -1, 0)
def test_the_remainder_of_sums_of_any_length_is_right(bits, beside, further):
    """Around the lengths at which it goes another way, above all; 64 KB are what a TAP device brings."""
    total = max(0, (1 << bits) + beside + further)
    assert remainder(total) == total % 0xFFFF
    assert remainder(total * 0xFFFF) == 0

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import bans as module
from relay.bans import MAX_BANS, Ban, BanError, Bans, parse_ban
from relay.documents import Document
from relay.operations import MAX_REASON
from relay.state import Folder, State

MAC = "52:54:00:00:00:01"


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.mark.parametrize(
    ("kind", "what", "known_as"),
    [
        ("address", "192.0.2.1", "address:192.0.2.1/32"),
        ("address", "2001:db8::/32", "address:2001:db8::/32"),
        ("address", "::ffff:192.0.2.1", "address:192.0.2.1/32"),
        ("address", "::ffff:192.0.2.0/120", "address:192.0.2.0/24"),
        ("address", "::/0", "address:::/0"),
        ("mac", MAC.upper().replace(":", "-"), f"mac:{MAC}"),
        ("token", "abc", "token:abc"),
    ],
)
def test_bans_have_one_spelling(kind, what, known_as):
    assert parse_ban(kind, what, math.inf).id == known_as


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("address", "192.0.2.1/24"),
        ("address", ""),
        ("mac", "zz"),
        ("token", ""),
        ("token", "a b"),
        ("x", "y"),
    ],
)
def test_what_cannot_be_banned_is_refused(kind, what):
    with pytest.raises(BanError):
        parse_ban(kind, what, math.inf)


@pytest.mark.parametrize(
    ("kind", "what", "found"),
    [
        ("address", "192.0.2.0/24", True),
        ("address", "198.51.100.0/24", False),
        ("address", "2001:db8::/32", False),
        ("mac", MAC, True),
        ("mac", "52:54:00:00:00:02", False),
        ("token", "t", True),
        ("token", "u", False),
    ],
)
def test_a_session_is_found_by_whatever_it_is_known_by(clock, kind, what, found):
    bans = Bans(clock)
    bans.add(parse_ban(kind, what, math.inf))
    assert (bans.find("192.0.2.7:5000", MAC, "t") is not None) is found


@pytest.mark.parametrize(
    ("kind", "what", "lifted"),
    [
        ("address", "192.0.2.7", "address:192.0.2.7/32"),
        ("address", "192.0.2.7", "address=192.0.2.7"),
        ("address", "2001:db8::7", "address=2001:DB8:0::7"),
        ("mac", MAC, f"mac={MAC.upper()}"),
        ("token", "a=b:c/d", "token=a=b:c/d"),
        ("token", "a=b:c/d", "token:a=b:c/d"),
    ],
)
def test_a_ban_is_lifted_by_its_id_and_by_the_words_it_was_asked_for(clock, kind, what, lifted):
    bans = Bans(clock)
    bans.add(parse_ban(kind, what, math.inf))
    bans.add(parse_ban("token", "a:b:c/d", math.inf))
    assert bans.remove(lifted)
    assert [ban.id for ban in bans] == ["token:a:b:c/d"]
    assert not any(map(bans.remove, (lifted, "token", "", "nobody=x")))


def test_an_ipv6_session_is_found_by_its_network(clock):
    bans = Bans(clock)
    bans.add(parse_ban("address", "2001:db8::/32", math.inf))
    assert bans.find("[2001:db8::7]:5000") is not None
    assert bans.find("[2001:db9::7]:5000") is None


def test_a_ban_ends_with_its_time_and_can_be_lifted(clock):
    bans = Bans(clock)
    bans.add(parse_ban("token", "t", 1060.0))
    bans.add(parse_ban("token", "u", math.inf))
    clock.now = 1059.9
    assert bans.find("192.0.2.1:1", token="t") is not None
    clock.now = 1060.0
    assert bans.find("192.0.2.1:1", token="t") is None
    assert [ban.id for ban in bans] == ["token:u"]
    assert bans.remove("token:u")
    assert not bans.remove("token:u")
    assert list(bans) == []


def test_the_number_of_bans_is_bounded_and_what_ended_makes_room(clock):
    bans = Bans(clock)
    for number in range(MAX_BANS):
        bans.add(Ban("token", str(number), 1060.0))
    bans.add(Ban("token", "0", math.inf))  # known already
    with pytest.raises(BanError):
        bans.add(Ban("token", "one more", math.inf))
    clock.now = 1061.0
    bans.add(Ban("token", "one more", math.inf))


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_a_ban_or_an_error(kind, what):
    with contextlib.suppress(BanError):
        parse_ban(kind, what, 1.0)


@pytest.fixture
def document(tmp_path):
    file = State(Folder(tmp_path / "state")).file(module.FILE)
    return lambda: Document(file, module.HOLDS)


def test_bans_outlive_the_process_until_their_time_by_the_wall_clock(clock, document):
    bans = Bans(clock, document())
    bans.add(parse_ban("mac", MAC, 1060.5, "noise"))
    bans.add(parse_ban("address", "192.0.2.0/24", math.inf))
    bans.add(parse_ban("token", "t", 1001.0))
    asyncio.run(bans.keep())
    clock.now = 1002.0
    again = Bans(clock, document())
    assert list(again) == [
        Ban("mac", MAC, 1060.5, "noise"),
        Ban("address", "192.0.2.0/24", math.inf),
    ]
    assert again.macs == {bytes.fromhex(MAC.replace(":", ""))}
    clock.now = 1060.5
    assert again.macs == frozenset()


def test_the_most_bans_there_may_be_are_read_again(clock, document):
    bans = Bans(clock, document())
    for number in range(MAX_BANS):
        bans.add(Ban("token", f"{number:0200}", math.inf, "\U0001f600" * MAX_REASON))
    asyncio.run(bans.keep())
    assert list(Bans(clock, document())) == list(bans)


def test_entries_that_are_no_bans_are_counted_in_one_line(clock, document, lines):
    good = {"kind": "mac", "what": MAC, "until": None, "reason": ""}
    changes = {"kind": "x"}, {"what": "zz"}, {"until": "x"}, {"until": 9**999}
    odd = [7, {}, *(good | change for change in changes)]
    asyncio.run(document().keep((*odd, good)))
    assert [ban.id for ban in Bans(clock, document())] == [f"mac:{MAC}"]
    assert lines == ["WARNING 6 of the bans that were kept are none"]

"""Messages between workers: what is written is read again, and whatever else comes is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack import room_wire as wire
from netstack.malformed import MalformedPacket
from netstack.room_wire import Kind

HEAD = wire.pack_head(Kind.CHANGES, 3, 77)
ROOMS = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
MACS = st.binary(min_size=6, max_size=6)
ADDRESSES = st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=64)
TEXTS = st.text(max_size=16)


@st.composite
def changes(draw):
    mac, addresses = draw(MACS), draw(ADDRESSES)
    since = tuple(draw(st.integers(0, 2**32 - 1)) for _ in addresses)
    numbers = st.integers(0, 2**32 - 1)
    binding = wire.Binding(
        mac, tuple(addresses), draw(TEXTS), draw(numbers), draw(TEXTS), draw(st.integers(0, 15)),
        draw(numbers), since,
    )  # fmt: skip
    return wire.Change(draw(ROOMS), mac, draw(numbers), draw(st.none() | st.just(binding)))


READERS = [
    wire.read_hello, wire.read_changes, wire.read_snapshot, wire.read_ask, wire.read_grant,
    wire.read_contest, wire.read_frames, wire.read_head, wire.read_about,
    wire.read_wanted,
]  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(changes(), max_size=5))
def test_changes_are_read_as_they_were_written(said):
    bodies = wire.pack_changes(map(wire.pack_change, said))
    heard = [wire.Heard(change, wire.pack_change(change)) for change in said]
    assert [each for body in bodies for each in wire.read_changes(HEAD + body)] == heard
    (part,) = wire.pack_snapshot(9, map(wire.pack_change, said))
    assert wire.read_snapshot(HEAD + part) == wire.SnapshotPart(9, 0, 1, heard)


def test_all_other_messages_are_read_as_they_were_written():
    assert wire.read_head(HEAD) == wire.Head(Kind.CHANGES, 3, 77)
    hello = wire.Hello(2**63, 5)
    assert wire.read_hello(HEAD + wire.pack_hello(hello)) == hello
    ask = wire.Ask(7, "lab", b"macmac", (b"addr", b"more"))
    assert wire.read_ask(HEAD + wire.pack_ask(ask)) == ask
    for address in (b"", b"addr"):
        grant = wire.Grant(7, "lab", b"macmac", address)
        assert wire.read_grant(HEAD + wire.pack_grant(grant)) == grant
    contest = wire.Contest("lab", bytes(16), b"macmac")
    assert wire.read_contest(HEAD + wire.pack_contest(contest)) == contest
    wanted = wire.Wanted("lab", b"macmac")
    assert wire.read_wanted(HEAD + wire.pack_wanted(wanted)) == wanted


@settings(derandomize=True, deadline=None, max_examples=50)
@given(changes(), st.integers(0, 400), st.binary(max_size=3))
def test_what_is_cut_short_or_too_long_is_malformed(change, cut, more):
    message = HEAD + wire.pack_changes([wire.pack_change(change)])[0]
    for damaged in (message[: cut % len(message)], message + b"\0" + more):
        with pytest.raises(MalformedPacket):
            wire.read_changes(damaged)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_lead_to_anything_but_a_malformed_packet(data, has_head):
    for read in READERS:
        with contextlib.suppress(MalformedPacket):
            read((HEAD if has_head else b"") + data)


def test_another_version_is_refused():
    with pytest.raises(MalformedPacket):
        wire.read_head(bytes((wire.VERSION + 1,)) + HEAD[1:])


@pytest.mark.parametrize("room", ["", "Lab", "a b", "x" * 64])
def test_a_name_that_no_room_can_have_is_refused(room):
    with pytest.raises(MalformedPacket):
        wire.read_grant(HEAD + wire.pack_grant(wire.Grant(1, room, b"macmac", b"")))


def test_frames_are_packed_into_as_few_messages_as_take_them():
    frames = [bytes((n,)) * (60 + 13 * n) for n in range(100)]
    messages, dropped = wire.pack_frames(HEAD, 2**32 + 5, "lab", frames)
    assert dropped == 0
    assert len(messages) == -(-sum(len(frame) + 2 for frame in frames) // (wire.MAX_MESSAGE - 20))
    assert all(len(message) <= wire.MAX_MESSAGE for message in messages)
    read = [wire.read_frames(message) for message in messages]
    assert {(sender, stamp, room) for sender, _, stamp, room, _ in read} == {(3, 5, "lab")}
    assert [frame for *_, part in read for frame in part] == frames


def test_a_frame_that_no_message_takes_is_counted():
    messages, dropped = wire.pack_frames(HEAD, 0, "lab", [b"a", bytes(wire.MAX_MESSAGE), b"b"])
    assert dropped == 1
    assert [frame for message in messages for frame in wire.read_frames(message).frames] == [b"a", b"b"]


def test_a_message_is_filled_to_its_last_byte():
    room = sum(map(len, wire.pack_frames(HEAD, 0, "lab", [b""])[0])) - 2
    longest = bytes(wire.MAX_MESSAGE - room - 2)
    for frames in ([longest], [b"ab", longest[4:]]):
        messages, dropped = wire.pack_frames(HEAD, 0, "lab", frames)
        assert ([len(message) for message in messages], dropped) == ([wire.MAX_MESSAGE], 0)
    assert wire.pack_frames(HEAD, 0, "lab", [b"a", longest])[1] == 0
    assert wire.pack_frames(HEAD, 0, "lab", [bytes(len(longest) + 1)]) == ([], 1)


def test_a_binding_has_no_more_addresses_than_it_may_have():
    most = 2 * wire.MAX_ADDRESSES

    def bodies(number):
        binding = wire.Binding(b"macmac", (b"addr",) * number, since=(0,) * number)
        return wire.pack_changes([wire.pack_change(wire.Change("lab", b"macmac", 1, binding))])

    assert len(wire.read_changes(HEAD + bodies(most)[0])[0].change.binding.addresses) == most
    with pytest.raises(MalformedPacket):
        wire.read_changes(HEAD + bodies(most + 1)[0])


def test_a_long_text_is_cut_between_characters():
    change = wire.Change("lab", b"macmac", 1, wire.Binding(b"macmac", name="\u00e4" * 40))
    (read,) = wire.read_changes(HEAD + wire.pack_changes([wire.pack_change(change)])[0])
    assert read.change.binding.name == "\u00e4" * 32


def test_urls_are_read_as_they_were_written_and_nothing_else_is():
    longest = "https://" + "a" * (wire.MAX_URL - 8)
    for urls in ((), ("https://a:4433",), ("https://[::1]:1", longest, "https://b", "https://c")):
        assert wire.read_about(HEAD + wire.pack_about(urls)) == urls
    bad = ["http://a", "https://a/x", "https://", "https://a b", 'https://a"', "https://u@a", longest + "a"]
    for wrong in ([["https://a"] * (wire.MAX_URLS + 1)]) + [[url] for url in bad]:
        with pytest.raises(MalformedPacket):
            wire.read_about(HEAD + wire.pack_about(wrong))
    with pytest.raises(MalformedPacket):
        wire.read_about(HEAD + wire.pack_about(["https://a"]) + b"x")

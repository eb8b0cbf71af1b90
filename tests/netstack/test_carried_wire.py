"""Messages about sessions that one worker carries for another: all but what was written so is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack import carried_wire as wire
from netstack.malformed import MalformedPacket
from netstack.room_wire import MAX_MESSAGE, Kind, pack_head

HEAD = pack_head(Kind.CARRIED, 3, 77)
NUMBER = 2**40 + 5
STATE = wire.State(2**33, 5, 131072, 1160, 17.25, 0.125, 10, 0, "webtransport", "[2001:db8::1]:50000")
UNKNOWN = STATE._replace(round_trip=None, packets_sent=None, packets_lost=None, carrier="websocket")
DATAGRAMS = [b"", b"one", bytes(1160)]
WRITTEN = [
    (wire.pack_open, wire.Open("lab", STATE, b'{"terms": 1}')),
    (wire.pack_state, STATE),
    (wire.pack_state, UNKNOWN),
    (wire.pack_ended, wire.Ended(6, "", True)),
    (wire.pack_ended, wire.Ended(0, "disconnected", False)),
    (wire.pack_close, wire.Close(2**32 - 1, "why")),
]


@pytest.mark.parametrize(("pack", "said"), WRITTEN)
def test_messages_are_read_as_they_were_written(pack, said):
    assert wire.read_carried(HEAD + pack(NUMBER, said)) == (NUMBER, said)


def test_batches_are_read_as_they_were_written():
    said = HEAD + wire.pack_up(NUMBER, DATAGRAMS)
    assert wire.read_carried(said) == (NUMBER, wire.Up(DATAGRAMS))
    for datagrams in (DATAGRAMS, []):
        said = HEAD + wire.pack_down(NUMBER, 2**50, datagrams)
        assert wire.read_carried(said) == (NUMBER, wire.Down(2**50, datagrams))
    lost = [(datagram, 1.5 + number) for number, datagram in enumerate(DATAGRAMS)]
    assert wire.read_carried(HEAD + wire.pack_lost(NUMBER, lost)) == (NUMBER, wire.Lost(lost))


def test_batches_fit_messages_and_keep_all_in_order():
    datagrams = [bytes((number,)) * (number * 7 % 1300) for number in range(200)]
    datagrams.insert(50, bytes(wire.MAX_DATAGRAM))
    found = list(wire.batches(datagrams))
    assert [datagram for batch in found for datagram in batch] == datagrams
    assert max(len(HEAD + wire.pack_down(NUMBER, 0, batch)) for batch in found) <= MAX_MESSAGE
    assert len(found) < 8


def test_of_losses_as_many_are_told_as_fit():
    lost = [(bytes(1160), float(number)) for number in range(100)]
    message = HEAD + wire.pack_lost(NUMBER, lost)
    assert len(message) <= MAX_MESSAGE
    _, said = wire.read_carried(message)
    assert 40 < len(said.datagrams) < 100
    assert said.datagrams == lost[: len(said.datagrams)]


def test_reasons_are_cut_and_not_refused():
    _, said = wire.read_carried(HEAD + wire.pack_close(NUMBER, wire.Close(1, "é" * 1000)))
    assert said.reason == "é" * 127
    _, said = wire.read_carried(HEAD + wire.pack_close(NUMBER, wire.Close(1, "tired\udcff")))
    assert said.reason == "tired?"


@pytest.mark.parametrize("code", [2**32 - 1, 2**32, 2**62 - 1])
def test_an_end_with_the_highest_codes_of_quic_is_told(code):
    _, said = wire.read_carried(HEAD + wire.pack_ended(NUMBER, wire.Ended(code, "", False)))
    assert said == wire.Ended(wire.MAX_CODE, "", False)


@pytest.mark.parametrize(("pack", "said"), WRITTEN[1:])
def test_what_is_cut_short_or_too_long_is_malformed(pack, said):
    message = HEAD + pack(NUMBER, said)
    for damaged in (*[message[:length] for length in range(len(message))], message + b"\0"):
        with pytest.raises(MalformedPacket):
            wire.read_carried(damaged)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.sampled_from(wire.Part), st.binary(max_size=120))
def test_no_bytes_lead_to_anything_but_a_malformed_packet(part, data):
    with contextlib.suppress(MalformedPacket):
        wire.read_carried(HEAD + bytes((part,)) + data)

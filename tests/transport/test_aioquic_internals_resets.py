"""RESET_STREAM_AT (draft-ietf-quic-reliable-stream-reset): data up to a size, then the reset."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.events import StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from quic_parts import CLIENT_ADDRESS, Forge, Pair

from transport.quic.aioquic_internals import RESET_STREAM_AT_PARAMETERS
from transport.quic.webtransport import encode_close_capsule

FRESH = 14
"""A unidirectional stream that is not in use yet."""
RESET_STREAM, RESET_STREAM_AT = 0x04, 0x24
WINDOW = 64 * 1024


def varints(*values):
    return b"".join(map(encode_uint_var, values))


def stream_frame(offset, data, *, stream=FRESH, fin=False):
    return bytes((0x0E | fin,)) + varints(stream, offset, len(data)) + data


def reset_at(reliable_size, *, final_size=10, code=7, stream=FRESH):
    return varints(RESET_STREAM_AT, stream, code, final_size, reliable_size)


def plain_reset(*, final_size=10, code=7, stream=FRESH):
    return varints(RESET_STREAM, stream, code, final_size)


@pytest.fixture(scope="module")
def base():
    return Pair.established(stock=True)


@pytest.fixture
def quic(base):
    """The relay's connection, with ``take(frames...)``: what they come to, in order."""
    pair = base.fork(stock=True)
    relay = pair.relay.quic
    forge = Forge(pair.client)

    def take(*frames):
        for frame in frames:
            relay.receive_datagram(forge.packet(frame), CLIENT_ADDRESS, pair.now)
        events: list[Any] = []
        while (event := relay.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                events.append((event.data, event.end_stream))
            elif isinstance(event, StreamReset):
                events.append(event.error_code)
        return events

    relay.take = take
    return relay


DATA = [(0, b"abc"), (3, b"defg"), (7, b"hij")]


@pytest.mark.parametrize("reliable_size", [0, 1, 3, 4, 9, 10])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_data_up_to_the_reliable_size_come_before_the_reset(quic, reliable_size, order):
    frames = [*(stream_frame(*piece) for piece in DATA), reset_at(reliable_size)]
    events = quic.take(*(frames[number] for number in order))
    assert quic.ended is None
    assert events[-1] == 7
    assert events.count(7) == 1
    delivered = b"".join(data for data, _ in events[:-1])
    assert b"abcdefghij".startswith(delivered)
    assert len(delivered) >= reliable_size
    assert not any(end for _, end in events[:-1])
    assert quic.partial_resets == {}


def test_the_reset_waits_for_what_was_promised(quic):
    assert quic.take(stream_frame(0, b"abc"), reset_at(5)) == [(b"abc", False)]
    assert quic.take(stream_frame(4, b"efg")) == []
    assert quic.take(stream_frame(3, b"d")) == [(b"defg", False), 7]
    assert quic.take(stream_frame(7, b"hij")) == []


def test_it_may_be_the_first_frame_of_its_stream(quic):
    assert quic.take(reset_at(3, final_size=8)) == []
    assert quic.take(stream_frame(0, b"abc")) == [(b"abc", False), 7]


def test_data_that_all_came_with_a_fin_are_whole(quic):
    assert quic.take(stream_frame(3, b"defghij", fin=True), reset_at(3)) == []
    assert quic.take(stream_frame(0, b"abc")) == [(b"abcdefghij", True)]
    assert quic.partial_resets == {}


@pytest.mark.parametrize("second", [reset_at(3), reset_at(0), plain_reset()])
def test_the_promise_may_be_lowered(quic, second):
    assert quic.take(stream_frame(0, b"abc"), reset_at(8)) == [(b"abc", False)]
    assert quic.take(second) == [7]
    assert quic.take(stream_frame(3, b"defghij"), reset_at(8), second) == []
    assert quic.ended is None


def test_a_raised_promise_is_ignored(quic):
    assert quic.take(reset_at(3), reset_at(8)) == []
    assert quic.take(stream_frame(0, b"abc")) == [(b"abc", False), 7]


def test_the_final_size_counts_for_flow_control_once(quic):
    before = quic._local_max_data.used
    quic.take(stream_frame(0, b"abc"), reset_at(5, final_size=1000), reset_at(5, final_size=1000))
    assert quic._local_max_data.used == before + 1000
    quic.take(stream_frame(3, b"defghij"), reset_at(4, final_size=1000), plain_reset(final_size=1000))
    assert quic._local_max_data.used == before + 1000
    assert quic.ended is None


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([reset_at(11)], QuicErrorCode.FRAME_ENCODING_ERROR),
        ([reset_at(5, code=0x170D7B68)[:-1]], QuicErrorCode.FRAME_ENCODING_ERROR),
        ([stream_frame(0, b"0123456789a"), reset_at(5)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([stream_frame(4, b"5678", fin=True), reset_at(5)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), stream_frame(6, b"6789a")], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), stream_frame(0, b"", fin=True)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), stream_frame(8, b"89ab", fin=True)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), reset_at(4, final_size=11)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), reset_at(6, final_size=9)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), plain_reset(final_size=11)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(0), reset_at(0, final_size=11)], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(0), stream_frame(10, b"a")], QuicErrorCode.FINAL_SIZE_ERROR),
        ([reset_at(5), reset_at(4, code=8)], QuicErrorCode.STREAM_STATE_ERROR),
        ([reset_at(5), plain_reset(code=8)], QuicErrorCode.STREAM_STATE_ERROR),
        ([reset_at(5, stream=3)], QuicErrorCode.STREAM_STATE_ERROR),  # ours, to send only
        ([reset_at(5, stream=4 * 200 + 2)], QuicErrorCode.STREAM_LIMIT_ERROR),
        ([reset_at(5, final_size=WINDOW + 1)], QuicErrorCode.FLOW_CONTROL_ERROR),
        (
            [
                reset_at(0, final_size=WINDOW // 2),
                reset_at(0, final_size=WINDOW // 2 + 1, stream=FRESH + 4),
            ],
            QuicErrorCode.FLOW_CONTROL_ERROR,
        ),
    ],
)
def test_violations_close_the_connection(quic, frames, error):
    quic.take(*frames)
    assert quic.ended is not None
    assert quic.ended.error_code == error


@pytest.mark.parametrize("reliable_size", [0, 3])
def test_plain_resets_are_as_they_were(quic, reliable_size):
    assert quic.take(stream_frame(0, b"abc"), plain_reset(final_size=3)) == [(b"abc", False), 7]
    assert quic.take(plain_reset(final_size=3), stream_frame(0, b"abc")) == []
    assert quic.ended is None


# -- what it means for a session -----------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["path", "aioquic"])
def pair(base, request):
    return base.fork(stock=request.param)


def session_offset(pair):
    """Bytes that the client has sent on its session's stream."""
    return pair.client.quic._streams[0].sender._buffer_stop


def test_a_reset_session_stream_delivers_the_closing_capsule_first(pair):
    offset = session_offset(pair)
    capsule = encode_close_capsule(7, "bye")
    frame = varints(0, len(capsule)) + capsule  # of HTTP/3, kind DATA
    end = offset + len(frame)
    forge = Forge(pair.client)
    pair.relay.receive(forge.packet(reset_at(end, final_size=end + 9, stream=0)), now=pair.now)
    assert pair.relay.peer.closed == []
    pair.relay.receive(forge.packet(stream_frame(offset, frame, stream=0)), now=pair.now)
    assert pair.relay.peer.closed == [(7, "bye")]


def test_a_reset_session_stream_ends_the_session(pair):
    offset = session_offset(pair)
    pair.relay.receive(Forge(pair.client).packet(reset_at(offset, final_size=offset, stream=0)), now=pair.now)
    assert pair.relay.peer.closed == [(0, "session stream reset")]


def test_a_reset_of_another_stream_leaves_the_session_alone(pair):
    forge = Forge(pair.client)
    header = b"\x40\x54\0"  # a WebTransport stream of session 0
    pair.relay.receive(
        forge.packet(stream_frame(0, header + b"abc") + reset_at(3, final_size=6)),
        forge.datagram(b"still here"),
        now=pair.now,
    )
    assert pair.relay.peer.closed == []
    assert pair.relay.peer.datagrams == [b"still here"]


# -- the offer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", [0x1D, 0x17F7586D2CB571])
def test_both_drafts_parameters_are_offered_empty(parameter):
    pair = Pair(stock=True)
    seen = []
    quic: Any = pair.client.quic
    parse = quic._parse_transport_parameters

    def see(data, **options):
        seen.append(data)
        parse(data, **options)

    quic._parse_transport_parameters = see
    pair.settle()
    assert parameter in RESET_STREAM_AT_PARAMETERS
    assert varints(parameter, 0) in seen[0]


@pytest.mark.parametrize("parameter", RESET_STREAM_AT_PARAMETERS)
def test_clients_may_offer_it_too(parameter):
    pair = Pair.established(parameters=varints(parameter, 0))
    assert pair.relay.quic.ended is None


@pytest.mark.parametrize("parameter", RESET_STREAM_AT_PARAMETERS)
def test_an_offer_that_is_not_empty_is_refused(parameter):
    pair = Pair(stock=True, parameters=varints(parameter, 1, 0))
    pair.settle()
    assert pair.client.quic.ended.error_code == QuicErrorCode.TRANSPORT_PARAMETER_ERROR

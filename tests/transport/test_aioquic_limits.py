"""Where aioquic leaves a peer free to cost more than it brings: each limit, and what is told beyond it."""

from __future__ import annotations

import pytest
from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, Setting, encode_frame
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription, Epoch
from forged_initials import ForgedInitials, crypto_frame
from quic_parts import CLIENT_ADDRESS, START, Forge, Host, Pair, Relay, relay_configuration
from stream_frames import cut, in_packets, stream_frame

from transport.quic.aioquic_internals import PEER_CONNECTION_IDS, RelayQuicConnection
from transport.quic.aioquic_limits import (
    AMPLIFICATION,
    MAX_CRYPTO_BYTES,
    MAX_ENCODED_FIELDS,
    MAX_REASON,
    MAX_STREAMS,
)
from transport.quic.connection import SESSION_DEADLINE, Connection
from transport.quic.reassembly import MAX_PIECES

REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"vm.test"), (b":path", b"/")]


def fresh_relay(initials):
    """A relay's connection for a client that has sent nothing yet."""
    host = Host()
    quic = RelayQuicConnection(relay_configuration(), initials.destination)
    return Relay(host, Connection(quic, host, CLIENT_ADDRESS, START))


# -- Initial packets -----------------------------------------------------------------------------------


@pytest.fixture
def handshakes_begun(monkeypatch):
    """As many items as aioquic has prepared for TLS handshakes."""
    begun = []
    prepare = tls.Context.__init__

    def count(context, *arguments, **options):
        begun.append(context)
        prepare(context, *arguments, **options)

    monkeypatch.setattr(tls.Context, "__init__", count)
    return begun


@pytest.mark.parametrize("content", [b"", bytes(20)], ids=["empty", "short"])
def test_a_handshake_is_begun_once_however_many_packets_cannot_be_decrypted(handshakes_begun, content):
    initials = ForgedInitials()
    relay = fresh_relay(initials)
    junk = initials.junk(content)
    for _ in range(3):
        assert relay.receive(junk * (1452 // len(junk))) == []
    assert len(handshakes_begun) == 1
    # And goes on with what can be.
    relay.receive(initials.packet(crypto_frame(1, b"x")))
    assert relay.quic._crypto_streams[Epoch.INITIAL].receiver.bytes_waiting == 1
    assert relay.quic.ended is None


def test_a_handshake_goes_on_after_packets_that_cannot_be_decrypted(handshakes_begun):
    pair = Pair()
    junk = ForgedInitials(pair.client.quic.original_destination_connection_id).junk(bytes(20))
    handshakes_begun.clear()
    pair.relay.receive(junk * (1200 // len(junk) + 1))
    pair.settle()
    pair.request()
    pair.settle()
    assert pair.client.status == b"200"
    assert len(handshakes_begun) == 1


# -- reassembly ----------------------------------------------------------------------------------------


def test_a_client_hello_in_pieces_without_end_is_refused():
    initials = ForgedInitials()
    relay = fresh_relay(initials)
    packets = list(initials.pieces(40_000))
    for packet in packets:
        relay.receive(packet)
    assert relay.quic.ended.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    assert relay.host.handshakes_failed == []


def test_a_client_hello_may_come_in_some_pieces():
    initials = ForgedInitials()
    relay = fresh_relay(initials)
    for packet in initials.pieces(MAX_PIECES):
        relay.receive(packet)
    assert relay.quic.ended is None


@pytest.mark.parametrize("offset", [MAX_CRYPTO_BYTES, 500_000, 1 << 40])
def test_crypto_data_far_ahead_are_refused(offset):
    initials = ForgedInitials()
    relay = fresh_relay(initials)
    relay.receive(initials.packet(crypto_frame(offset, b"x")))
    assert relay.quic.ended.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_crypto_data_ahead_cost_what_they_have():
    initials = ForgedInitials()
    relay = fresh_relay(initials)
    relay.receive(initials.packet(crypto_frame(MAX_CRYPTO_BYTES - 1, b"x")))
    assert relay.quic.ended is None
    assert relay.quic._crypto_streams[Epoch.INITIAL].receiver.bytes_waiting == 1


@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (0, QuicErrorCode.CRYPTO_ERROR + AlertDescription.unexpected_message),
        (5000, QuicErrorCode.CRYPTO_ERROR + AlertDescription.unexpected_message),
        (MAX_CRYPTO_BYTES, QuicErrorCode.CRYPTO_BUFFER_EXCEEDED),
        (500_000, QuicErrorCode.CRYPTO_BUFFER_EXCEEDED),
    ],
)
def test_crypto_data_after_the_handshake_are_refused_wherever_they_are(stock, offset, code):
    pair = Pair.established(stock=stock)
    pair.relay.receive(Forge(pair.client).packet(crypto_frame(offset, b"x")), now=pair.now)
    assert pair.relay.quic.ended.error_code == code


@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize("stream", [0, 2, 4, 14])
def test_a_stream_in_pieces_without_end_closes_the_connection(stock, stream):
    pair = Pair.established(stock=stock)
    forge = Forge(pair.client)
    frames = [stream_frame(stream, 2000 + 2 * number, b"x") for number in range(MAX_PIECES + 1)]
    for packet in in_packets(forge, frames):
        pair.relay.receive(packet, now=pair.now)
    assert pair.relay.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert pair.relay.quic.ended.frame_type is None, "a close by the application"


def test_a_stream_far_ahead_costs_what_it_has():
    pair = Pair.established()
    forge = Forge(pair.client)
    pair.relay.receive(forge.packet(stream_frame(4, 60_000, b"x")), now=pair.now)
    assert pair.relay.quic._streams[4].receiver.bytes_waiting == 1
    pair.relay.receive(forge.packet(b"\x04\x04\x00" + encode_uint_var(60_001)), now=pair.now)
    assert pair.relay.quic._streams[4].receiver.bytes_waiting == 0, "a reset leaves nothing to wait for"


@pytest.mark.parametrize(
    "frames",
    [
        [stream_frame(4, 10, b"x", fin=True), stream_frame(4, 11, b"x")],
        [stream_frame(4, 10, b"x", fin=True), stream_frame(4, 5, b"x", fin=True)],
        [stream_frame(4, 10, b"x"), stream_frame(4, 5, b"x", fin=True)],
    ],
)
def test_a_final_size_stays_what_it_is(frames):
    pair = Pair.established()
    pair.relay.receive(Forge(pair.client).packet(b"".join(frames)), now=pair.now)
    assert pair.relay.quic.ended.error_code == QuicErrorCode.FINAL_SIZE_ERROR


# -- how many streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 2])
def test_a_client_may_have_so_many_streams_open_and_no_more(kind):
    pair = Pair.established()
    forge = Forge(pair.client)
    last = kind + 4 * (MAX_STREAMS - 1)
    pair.relay.receive(forge.packet(stream_frame(last, 0, b"")), now=pair.now)
    assert last in pair.relay.quic._streams
    pair.relay.receive(forge.packet(stream_frame(last + 4, 0, b"")), now=pair.now)
    assert pair.relay.quic.ended.error_code == QuicErrorCode.STREAM_LIMIT_ERROR
    assert len(pair.relay.quic._streams) < 2 * MAX_STREAMS + 3


def test_for_each_stream_that_ends_there_may_be_another():
    pair = Pair.established()
    client = pair.client
    for _ in range(3 * MAX_STREAMS):
        client.status = None
        client.h3.send_headers(client.quic.get_next_available_stream_id(), REQUEST, end_stream=True)
        # Of streams for anything else nothing is kept either.
        stream = client.quic.get_next_available_stream_id(is_unidirectional=True)
        client.quic.send_stream_data(stream, b"\x21grease", end_stream=True)
        pair.settle()
        assert client.status == b"405"
    assert pair.relay.quic.ended is None
    assert len(pair.relay.quic._streams) < 2 * MAX_STREAMS
    client.send(b"still here")
    pair.settle()
    assert pair.relay.peer.datagrams == [b"still here"]


# -- fields --------------------------------------------------------------------------------------------


def test_no_dynamic_table_is_announced():
    pair = Pair.established()
    received = pair.client.h3.received_settings
    assert received[Setting.QPACK_MAX_TABLE_CAPACITY] == received[Setting.QPACK_BLOCKED_STREAMS] == 0


@pytest.mark.parametrize("instruction", [b"\xc0\1a", b"\x41a\1b", b"\x3f\x45", b"\0"])
def test_instructions_that_change_the_dynamic_table_close_the_connection(instruction):
    pair = Pair.established()
    encoder = pair.client.h3._local_encoder_stream_id
    offset = pair.client.quic._streams[encoder].sender.highest_offset
    packet = Forge(pair.client).packet(stream_frame(encoder, offset, instruction))
    pair.relay.receive(packet, now=pair.now)
    assert pair.relay.quic.ended.error_code == ErrorCode.QPACK_ENCODER_STREAM_ERROR


def headers_frame(section):
    return encode_frame(1, section)


BOMB = b"\0\0" + b"\xd1" * 600
"""Six hundred times ":method: GET": 602 bytes that become 26 KB of fields, and objects of 100 KB."""


def test_fields_that_are_short_only_when_encoded_are_not_decoded(monkeypatch):
    pair = Pair.established()

    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"the decoder was asked to {name}")

    monkeypatch.setattr(pair.relay.connection._h3, "_decoder", Untouchable())
    forge = Forge(pair.client)
    for packet in in_packets(forge, cut(4, headers_frame(BOMB))):
        pair.relay.receive(packet, now=pair.now)
    assert pair.relay.host.counters["request.status_431"] == 1
    # What comes after it on the same stream is passed over; other streams go on.
    pair.relay.receive(forge.packet(stream_frame(4, len(headers_frame(BOMB)), b"\0\4abcd")), now=pair.now)
    assert pair.relay.quic.ended is None
    assert pair.relay.host.counters["request.status_431"] == 1


@pytest.mark.parametrize("end", ["at once", "later", "reset"])
def test_nothing_is_kept_of_a_request_that_was_refused_and_has_ended(end):
    """A few hundred bytes make one, and a connection may make thousands."""
    pair = Pair.established()
    forge, h3 = Forge(pair.client), pair.relay.connection._h3
    frame = headers_frame(BOMB)
    pair.relay.receive(forge.packet(stream_frame(4, 0, frame, fin=end == "at once")), now=pair.now)
    assert (4 in h3._stream) is (end != "at once")
    reset = b"\x04" + encode_uint_var(4) + encode_uint_var(0) + encode_uint_var(len(frame))
    last = reset if end == "reset" else stream_frame(4, len(frame), b"", fin=True)
    pair.relay.receive(forge.packet(last), now=pair.now)
    assert pair.relay.quic.ended is None
    assert pair.relay.host.counters["request.status_431"] == 1
    assert 4 not in h3._stream
    assert h3._refused == set()


def test_large_trailers_close_the_connection():
    pair = Pair.established()
    used = pair.client.quic._streams[0].sender.highest_offset
    forge = Forge(pair.client)
    for packet in in_packets(forge, cut(0, headers_frame(BOMB), start=used)):
        pair.relay.receive(packet, now=pair.now)
    assert pair.relay.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD


@pytest.mark.parametrize("section", [b"\x02\0\x80", b"\0\0\x80", b"\0\0\x10"])
def test_references_to_a_dynamic_table_close_the_connection(section):
    pair = Pair.established()
    pair.relay.receive(Forge(pair.client).packet(stream_frame(4, 0, headers_frame(section))), now=pair.now)
    assert pair.relay.quic.ended.error_code == ErrorCode.QPACK_DECOMPRESSION_FAILED


@pytest.mark.parametrize("where", ["request", "control"])
def test_frames_that_announce_too_much_are_not_waited_for(where):
    pair = Pair.established()
    announced = encode_uint_var(MAX_ENCODED_FIELDS + 1)
    if where == "request":
        frame = stream_frame(4, 0, b"\x01" + announced)
    else:
        control = pair.client.h3._local_control_stream_id
        used = pair.client.quic._streams[control].sender.highest_offset
        frame = stream_frame(control, used, b"\x0d" + announced + b"x")
    pair.relay.receive(Forge(pair.client).packet(frame), now=pair.now)
    assert pair.relay.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert pair.relay.host.counters["connection.excessive_stream_data"] == 1


def test_answers_do_not_depend_on_what_a_client_offers_to_remember():
    pair = Pair()
    pair.settle()
    relay_h3 = pair.relay.connection._h3
    pair.request()
    pair.settle()
    assert pair.client.status == b"200"
    encoder_stream = pair.relay.quic._streams[relay_h3._local_encoder_stream_id]
    assert encoder_stream.sender._buffer_stop == 1, "nothing but the stream's type was ever sent"


# -- what breaks the protocol --------------------------------------------------------------------------


def at_the_end(pair, stream, data=b"", *, fin=False):
    """More data of a stream that the client has begun."""
    return stream_frame(stream, pair.client.quic._streams[stream].sender.highest_offset, data, fin=fin)


BREACHES = {
    "an acknowledgement of packets to come": (
        lambda pair: b"\x02" + encode_uint_var(pair.relay.quic._packet_number) + bytes(3),
        QuicErrorCode.PROTOCOL_VIOLATION,
    ),
    "a connection ID that retires itself": (
        lambda pair: new_connection_id(5, retire_prior_to=6),
        QuicErrorCode.FRAME_ENCODING_ERROR,
    ),
    "the end of the encoder's stream": (
        lambda pair: at_the_end(pair, pair.client.h3._local_encoder_stream_id, fin=True),
        ErrorCode.H3_CLOSED_CRITICAL_STREAM,
    ),
    "the end of the decoder's stream": (
        lambda pair: at_the_end(pair, pair.client.h3._local_decoder_stream_id, fin=True),
        ErrorCode.H3_CLOSED_CRITICAL_STREAM,
    ),
    "a datagram of no stream": (lambda pair: b"\x31\x08" + b"\xff" * 8, ErrorCode.H3_DATAGRAM_ERROR),
    "a request's stream made another's": (
        lambda pair: at_the_end(pair, 0, b"\x40\x41\0"),
        ErrorCode.H3_FRAME_ERROR,
    ),
}


@pytest.mark.parametrize("what", BREACHES)
def test_what_breaks_the_protocol_closes_the_connection(what):
    frame, code = BREACHES[what]
    pair = Pair.established()
    pair.relay.receive(Forge(pair.client).packet(frame(pair)), now=pair.now)
    assert pair.relay.quic.ended.error_code == code
    assert len(pair.relay.peer.closed) == 1


# -- how connections are closed ------------------------------------------------------------------------


def test_of_a_long_reason_as_much_is_told_as_fits_the_packet():
    pair = Pair.established()
    stream = pair.client.quic.get_next_available_stream_id()
    pair.client.h3.send_headers(stream, [*REQUEST, (b"A" * 2000, b"x")])
    pair.settle()
    ended = pair.client.quic.ended
    assert ended.error_code == ErrorCode.H3_MESSAGE_ERROR
    assert ended.reason_phrase.startswith("Header b'AAA")
    assert len(ended.reason_phrase) == MAX_REASON
    assert len(pair.relay.peer.closed) == 1


@pytest.mark.parametrize("reason", ["\N{EURO SIGN}" * 100, "\N{GRINNING FACE}" * 100])
def test_a_reason_is_cut_between_its_letters(reason):
    pair = Pair.established()
    pair.relay.connection.close(ErrorCode.H3_NO_ERROR, reason)
    pair.settle()
    told = pair.client.quic.ended.reason_phrase
    assert reason.startswith(told)
    assert MAX_REASON - 4 < len(told.encode()) <= MAX_REASON


def new_connection_id(sequence, *, retire_prior_to):
    head = b"\x18" + encode_uint_var(sequence) + encode_uint_var(retire_prior_to)
    return head + b"\x08" + bytes(7) + bytes((sequence,)) + bytes(16)


def test_a_client_that_takes_back_the_last_connection_id_that_is_free_is_closed():
    pair = Pair.established()
    forge = Forge(pair.client)
    challenge = b"\x1a" + bytes(8)
    for port in range(PEER_CONNECTION_IDS - 1):
        # Each probe from another place is answered under an ID of its own (RFC 9000, 9.5).
        pair.relay.receive(forge.packet(challenge), address=("192.0.2.9", port), now=pair.now)
    reserved = [path.peer_cid.sequence_number for path in pair.relay.quic._network_paths if path.peer_cid]
    assert not pair.relay.quic._peer_cid_available
    last = max(reserved)
    pair.relay.receive(forge.packet(new_connection_id(last, retire_prior_to=last)), now=pair.now)
    assert pair.relay.quic.ended.error_code == QuicErrorCode.CONNECTION_ID_LIMIT_ERROR
    assert len(pair.relay.peer.closed) == 1


@pytest.mark.parametrize("length", [0, 8], ids=["without IDs of its own", "with some"])
def test_a_client_may_probe_a_path_and_then_take_it(length):
    """Chrome has no connection IDs of its own: packets to it have none, wherever they go (RFC 9000, 9.5)."""
    pair = Pair.established(connection_id_length=length)
    elsewhere = ("192.0.2.9", 4000)
    probe = Forge(pair.client).packet(b"\x1a" + b"question" + bytes(1100))
    pair.client.quic._packet_number += 1
    answers = [packet for packet, to in pair.relay.receive(probe, address=elsewhere) if to == elsewhere]
    keys, expected = pair.client.quic._cryptos[Epoch.ONE_RTT], pair.client.space.expected_packet_number
    answer = b"".join(keys.decrypt_packet(packet, 1 + length, expected)[1] for packet in answers)
    assert b"\x1bquestion" in answer
    assert pair.relay.connection.address == CLIENT_ADDRESS
    pair.address = elsewhere
    pair.client.send(b"here")
    pair.settle()
    pair.relay.session.send([b"there"])
    pair.settle()
    assert pair.relay.connection.address == elsewhere
    assert (pair.relay.peer.datagrams, pair.client.datagrams) == ([b"here"], [b"there"])
    assert pair.client.quic.ended is None
    assert pair.relay.quic.ended is None


def test_a_client_may_probe_any_number_of_paths_one_after_the_other():
    pair = Pair.established()
    written_to = set()
    carry = pair.relay_sends

    def note(sent):
        written_to.update(address for _, address in sent)
        carry(sent)

    pair.relay_sends = note
    for number in range(3 * PEER_CONNECTION_IDS):
        elsewhere = ("192.0.2.9", 4000 + number)
        probe = Forge(pair.client).packet(b"\x1a" + b"%08d" % number + bytes(1100))
        pair.client.quic._packet_number += 1
        pair.relay_sends(pair.relay.receive(probe, address=elsewhere))
        pair.settle()
        assert elsewhere in written_to
    assert len(pair.relay.quic._network_paths) <= PEER_CONNECTION_IDS
    assert pair.relay.quic.ended is pair.client.quic.ended is None


def test_a_client_that_gives_no_other_connection_id_is_not_asked_again():
    pair = Pair.established()
    forge = Forge(pair.client)
    for port in range(2 * PEER_CONNECTION_IDS):
        pair.relay.receive(forge.packet(b"\x1a" + bytes(1100)), address=("192.0.2.9", port), now=pair.now)
    reserved = [path for path in pair.relay.quic._network_paths if path.peer_cid is not None]
    assert len(reserved) == PEER_CONNECTION_IDS - 2
    assert pair.relay.quic.ended is None


# -- what goes to an address that has not proved to be one -----------------------------------------------


@pytest.mark.parametrize("flight", ["hello", "pieces", "nonsense"])
def test_no_more_than_three_times_what_came_goes_to_an_address_before_it_answers(flight):
    initials = ForgedInitials()
    if flight == "hello":
        pair = Pair()
        relay = pair.relay
        packets = pair.client.packets(START)
    else:
        relay = fresh_relay(initials)
        frames = crypto_frame(0, bytes(4)) if flight == "nonsense" else crypto_frame(1, b"x")
        packets = [initials.packet(frames)]
    sent = []
    for packet in packets:
        sent += relay.receive(packet)
    sent += relay.pass_time(2 * SESSION_DEADLINE)
    assert relay.quic.ended is not None
    assert sum(len(packet) for packet, _ in sent) <= AMPLIFICATION * sum(map(len, packets))

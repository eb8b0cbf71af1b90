"""What the relay uses of aioquic that aioquic does not offer, looked for name by name.

When a new version of aioquic is tried, the failures say what has moved.
"""

from __future__ import annotations

import ast
import gc
import inspect
import weakref
from pathlib import Path
from typing import Any

import pytest
from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection, QuicConnectionState, QuicNetworkPath
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketNumberWindow, QuicPacketRecovery
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.quic.stream import QuicStreamReceiver
from aioquic.tls import AlertDescription, Context, Epoch
from quic_parts import Forge, Pair, datagram_frame, relay_configuration

from transport.quic import aioquic_internals
from transport.quic.aioquic_internals import (
    CONNECTION_ID_LENGTH,
    CONNECTION_IDS,
    PEER_CONNECTION_IDS,
    WORKER,
    new_connection_id,
)
from transport.quic.frames import Ack
from transport.quic.ledger import SentPacket
from transport.quic.webtransport import WEBTRANSPORT_SETTINGS

USED = {
    "QuicRetryTokenHandler": ("_aead",),
    "QuicConnection": (
        "_QuicConnection__frame_handlers",
        "_ack_eliciting_sent_since_receipt",
        "_assert_stream_can_receive",
        "_close_at",
        "_close_begin",
        "_close_event",
        "_close_pending",
        "_consume_peer_cid",
        "_crypto_buffers",
        "_crypto_streams",
        "_cryptos",
        "_cryptos_initial",
        "_datagrams_pending",
        "_events",
        "_get_or_create_stream",
        "_handle_ack_frame",
        "_handle_crypto_frame",
        "_handle_new_connection_id_frame",
        "_handle_padding_frame",
        "_handle_reset_stream_frame",
        "_handle_stream_frame",
        "_handshake_confirmed",
        "_host_cid_seq",
        "_host_cids",
        "_idle_timeout",
        "_initialize",
        "_local_ack_delay_exponent",
        "_local_active_connection_id_limit",
        "_local_initial_source_connection_id",
        "_local_max_data",
        "_local_max_streams_bidi",
        "_local_max_streams_uni",
        "_loss",
        "_max_datagram_size",
        "_network_paths",
        "_packet_number",
        "_parse_transport_parameters",
        "_peer_cid",
        "_peer_cid_available",
        "_peer_cid_sequence_numbers",
        "_remote_active_connection_id_limit",
        "_remote_ack_delay_exponent",
        "_remote_max_datagram_frame_size",
        "_remote_max_idle_timeout",
        "_replenish_connection_ids",
        "_retire_peer_cid",
        "_serialize_transport_parameters",
        "_spaces",
        "_state",
        "_streams",
        "host_cid",
        "tls",
    ),
    "QuicPacketRecovery": (
        "_cc",
        "_detect_loss",
        "_in_persistent_congestion",
        "_pacer",
        "_pto_count",
        "_rtt_first_sample_time",
        "_rtt_initial",
        "_rtt_initialized",
        "_rtt_latest",
        "_rtt_min",
        "_rtt_smoothed",
        "_rtt_variance",
        "_send_probe",
        "_time_of_last_sent_ack_eliciting_packet",
        "get_probe_timeout",
        "max_ack_delay",
        "on_ack_received",
        "spaces",
    ),
    "QuicPacketPacer": ("update_rate",),
    "QuicCongestionControl": (
        "bytes_in_flight",
        "congestion_window",
        "on_packet_acked",
        "on_packet_sent",
        "on_packets_expired",
        "on_packets_lost",
        "on_persistent_congestion",
        "on_rtt_measurement",
    ),
    "QuicPacketSpace": (
        "ack_at",
        "ack_eliciting_in_flight",
        "ack_queue",
        "discarded",
        "expected_packet_number",
        "largest_acked_packet",
        "largest_received_packet",
        "largest_received_time",
        "received_packets",
        "sent_packets",
    ),
    "QuicPacketNumberWindow": ("_size", "add"),
    "QuicStream": ("max_stream_data_local", "receiver", "sender"),
    "QuicStreamSender": ("_buffer_stop", "_reset_error_code"),
    "QuicStreamReceiver": (
        "_buffer_start",
        "_final_size",
        "_stream_id",
        "handle_frame",
        "handle_reset",
        "highest_offset",
        "is_finished",
        "starting_offset",
    ),
    "Limit": ("sent", "used", "value"),
    "RangeSet": ("_RangeSet__ranges", "add", "shift", "subtract"),
    "CryptoPair": ("_update_key_requested", "recv", "send"),
    "CryptoContext": ("aead", "cipher_suite", "hp", "key_phase", "secret"),
    "AEAD": ("_aead", "_iv"),
    "HeaderProtection": ("_encryptor",),
    "QuicNetworkPath": (
        "addr",
        "bytes_received",
        "bytes_sent",
        "is_validated",
        "peer_cid",
        "remote_challenges",
    ),
    "QuicConnectionId": ("cid", "stateless_reset_token"),
    "Context": (
        "_cipher_suites",
        "_peer_certificate",
        "_server_handle_hello",
        "_supported_groups",
        "handle_message",
    ),
    "H3Connection": (
        "_check_request_or_push_frame_type",
        "_decode_headers",
        "_decoder",
        "_encoder",
        "_get_local_settings",
        "_local_control_stream_id",
        "_peer_decoder_stream_id",
        "_peer_encoder_stream_id",
        "_quic",
        "_receive_datagram",
        "_receive_stream_data",
        "_stream",
    ),
}

ARGUMENTS = {
    (QuicConnection, "_close_begin"): ["self", "is_initiator", "now"],
    (QuicConnection, "_consume_peer_cid"): ["self"],
    (QuicConnection, "_retire_peer_cid"): ["self", "connection_id"],
    (QuicConnection, "_handle_ack_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_handle_crypto_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_initialize"): ["self", "peer_cid"],
    (H3Connection, "_check_request_or_push_frame_type"): ["self", "frame_type", "stream"],
    (H3Connection, "_decode_headers"): ["self", "stream_id", "frame_data"],
    (H3Connection, "_receive_datagram"): ["self", "data"],
    (H3Connection, "_receive_stream_data"): ["self", "event"],
    (QuicStreamReceiver, "handle_frame"): ["self", "frame"],
    (QuicConnection, "_handle_new_connection_id_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_handle_padding_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_handle_reset_stream_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_handle_stream_frame"): ["self", "context", "frame_type", "buf"],
    (QuicConnection, "_parse_transport_parameters"): ["self", "data", "from_session_ticket"],
    (QuicConnection, "_serialize_transport_parameters"): ["self"],
    (QuicConnection, "_assert_stream_can_receive"): ["self", "frame_type", "stream_id"],
    (QuicConnection, "_get_or_create_stream"): ["self", "frame_type", "stream_id"],
    (QuicStreamReceiver, "handle_reset"): ["self", "final_size", "error_code"],
    (Context, "handle_message"): ["self", "input_data", "output_buf"],
    (Context, "_server_handle_hello"): ["self", "input_buf", "initial_buf", "handshake_buf"],
    (QuicPacketRecovery, "on_ack_received"): ["self", "ack_rangeset", "ack_delay", "now", "space"],
    (QuicPacketRecovery, "_detect_loss"): ["self", "now", "space"],
    (QuicPacketRecovery, "_in_persistent_congestion"): ["self", "packets"],
}


@pytest.fixture(scope="module")
def owners():
    """A live object of each class whose names are used."""
    pair = Pair.established()
    quic = pair.relay.quic
    space, crypto = quic._spaces[Epoch.ONE_RTT], quic._cryptos[Epoch.ONE_RTT]
    return {
        "QuicConnection": quic,
        "QuicPacketRecovery": quic._loss,
        "QuicPacketPacer": quic._loss._pacer,
        "QuicCongestionControl": quic._loss._cc,
        "QuicPacketSpace": space,
        "QuicPacketNumberWindow": space.received_packets,
        "QuicStream": quic._streams[0],
        "QuicStreamReceiver": quic._streams[0].receiver,
        "QuicStreamSender": quic._streams[0].sender,
        "Limit": quic._local_max_data,
        "RangeSet": space.ack_queue,
        "CryptoPair": crypto,
        "CryptoContext": crypto.recv,
        "AEAD": crypto.recv.aead,
        "HeaderProtection": crypto.recv.hp,
        "QuicNetworkPath": quic._network_paths[0],
        "QuicConnectionId": quic._host_cids[0],
        "Context": pair.client.quic.tls,
        "H3Connection": pair.relay.connection._h3,
        "QuicRetryTokenHandler": QuicRetryTokenHandler(),
    }


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner in USED for name in USED[owner]])
def test_aioquic_still_has(owners, owner, name):
    found = hasattr(owners[owner], name)
    assert found, f"aioquic's {owner} has no {name} any more: transport/quic/aioquic_internals.py uses it"


@pytest.mark.parametrize(("owner", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_private_methods_take_the_same_arguments(owner, name):
    arguments = list(inspect.signature(getattr(owner, name)).parameters)
    assert arguments == ARGUMENTS[owner, name], f"aioquic's {owner.__name__}.{name} takes other arguments"


def _slots(tree):
    """Names of the attributes of our own classes, by source: compiled classes have no ``__slots__``."""
    return {
        name.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__slots__"
        for name in ast.walk(node.value)
        if isinstance(name, ast.Constant)
    }


def test_every_private_name_that_is_used_is_in_the_table():
    modules = Path(aioquic_internals.__file__).parent.glob("aioquic_*.py")
    tree = ast.parse("".join(module.read_text() for module in modules))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= _slots(tree) | {"_reassembly", "_refused", "_token_of", "_new_id"}
    own -= {name for names in USED.values() for name in names}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    listed = {name for names in USED.values() for name in names}
    assert used - own - listed == set()
    assert {name for name in listed if name.startswith("_")} - used <= {
        "_QuicConnection__frame_handlers",
        "_RangeSet__ranges",
        "_handle_ack_frame",
        "_handle_padding_frame",
        "_handle_reset_stream_frame",
        "_replenish_connection_ids",
        "_get_local_settings",
    }


def test_states_have_their_names():
    assert QuicConnectionState.CONNECTED in QuicConnectionState
    assert {"FIRSTFLIGHT", "CONNECTED", "CLOSING", "DRAINING", "TERMINATED"} == set(
        QuicConnectionState.__members__
    )


def test_congestion_control_reads_no_more_of_a_packet_than_ours_has():
    fields = set(QuicSentPacket.__dataclass_fields__)
    assert set(SentPacket._fields) - {"flight"} <= fields
    # What else it has is for packets that can be sent again, which aioquic keeps itself.
    assert fields - set(SentPacket._fields) == {
        "delivery_handlers",
        "epoch",
        "in_flight",
        "is_crypto_packet",
        "packet_type",
        "quic_logger_frames",
    }


def test_the_duplicate_filter_is_as_large_as_the_path_takes_it_for():
    assert QuicPacketNumberWindow()._size == 2 * MAX_ACK_RANGES


def test_a_new_path_is_not_validated():
    assert not QuicNetworkPath(("192.0.2.1", 1)).is_validated


# -- connection IDs ------------------------------------------------------------------------------------


def assert_steerable(connection_id):
    assert len(connection_id) == CONNECTION_ID_LENGTH == 8
    assert connection_id[0] == WORKER == 0


def test_connection_ids_begin_with_the_worker():
    made = {new_connection_id() for _ in range(100)}
    assert len(made) == 100
    for connection_id in made:
        assert_steerable(connection_id)


def test_all_connection_ids_of_a_connection_can_be_steered():
    pair = Pair.established(stock=True)
    client, relay = pair.client.quic, pair.relay
    given = [client._peer_cid, *client._peer_cid_available]
    assert len(given) == CONNECTION_IDS
    for connection_id in given:
        assert_steerable(connection_id.cid)
        assert connection_id.cid in relay.host.connection_ids
    for connection_id in relay.host.connection_ids:
        assert_steerable(connection_id)


def test_a_client_is_asked_for_no_more_connection_ids_than_it_needs():
    pair = Pair.established(stock=True)
    assert pair.client.quic._remote_active_connection_id_limit == PEER_CONNECTION_IDS
    assert len(pair.relay.quic._peer_cid_available) == PEER_CONNECTION_IDS - 1
    for _ in range(3 * PEER_CONNECTION_IDS):  # it replaces those that migrations use up
        pair.relay.quic.change_connection_id()
        pair.relay.connection.go_away()  # has aioquic asked for what it wants to send
        pair.relay.connection.want_flush()
        pair.settle(0.1)
    assert len(pair.relay.quic._peer_cid_available) == PEER_CONNECTION_IDS - 1
    assert pair.relay.quic.ended is None


def test_connection_ids_given_later_can_be_steered_too():
    pair = Pair.established(stock=True)
    used = set()
    for _ in range(20):
        pair.client.quic.change_connection_id()
        pair.settle(0.1)
        assert_steerable(pair.relay.quic.host_cid)
        used.add(pair.relay.quic.host_cid)
    assert len(used) == 20
    assert len(pair.relay.host.connection_ids) <= CONNECTION_IDS
    assert {entry.cid for entry in pair.relay.quic._host_cids} == set(pair.relay.host.connection_ids)


def test_the_first_connection_id_is_authenticated_by_the_transport_parameters():
    pair = Pair()
    pair.settle()
    assert pair.client.quic.ended is None
    assert pair.client.quic._remote_initial_source_connection_id == pair.relay.quic.host_cid


# -- after the handshake, and after the end -------------------------------------------------------------


def test_handshake_packets_that_come_late_or_again_change_nothing():
    pair = Pair()
    sent = []
    pair.network.carry = record(pair.network.carry, sent)
    pair.settle()
    pair.request()
    pair.settle()
    long_headers = [packet for packet in sent if packet[0] & 0x80]
    assert len(long_headers) >= 2, "the Initial and the Handshake packets of the client"
    for packet in long_headers:
        pair.relay.receive(packet, address=pair.address, now=pair.now)
    pair.client.send(b"still here")
    pair.settle()
    assert pair.relay.quic.ended is None
    assert pair.relay.peer.datagrams == [b"still here"]


def record(carry, sent):
    def carry_and_record(packets, now, *, to_relay):
        packets = list(packets)
        if to_relay:
            sent.extend(packets)
        carry(packets, now, to_relay=to_relay)

    return carry_and_record


def test_tls_messages_after_the_handshake_are_refused():
    pair = Pair.established()
    forge = Forge(pair.client)
    key_update = b"\x18\x00\x00\x01\x00"
    pair.relay.receive(forge.packet(b"\x06\x00\x05" + key_update), now=pair.now)
    pair.relay.flush()
    assert (
        pair.relay.quic.ended.error_code == QuicErrorCode.CRYPTO_ERROR + AlertDescription.unexpected_message
    )


def test_a_client_that_names_0_as_its_idle_timeout_waits_for_ever():
    pair = Pair(stock=True, idle_timeout=0.0)
    pair.client.quic.configuration.idle_timeout = 1000.0
    pair.settle()
    assert pair.relay.quic.idle_timeout == relay_configuration().idle_timeout
    pair.request()
    pair.settle(30)
    assert pair.client.status == b"200"
    assert pair.relay.peer.closed == []


@pytest.mark.parametrize("exponent", [0, 3, 8, 20])
def test_delays_of_acknowledgements_are_in_the_clients_units(exponent):
    pair = Pair.established(ack_delay_exponent=exponent)
    assert pair.relay.quic.one_rtt()._delay(Ack([(0, 0)], 5)) == 5 * 2**exponent / 1_000_000


def test_padding_is_passed_over_wherever_it_stands():
    pair = Pair.established(stock=True)
    forge = Forge(pair.client)
    padded = bytes(500) + datagram_frame(b"first") + bytes(3) + datagram_frame(b"second") + bytes(400)
    pair.relay.receive(forge.packet(padded), now=pair.now)
    assert pair.relay.peer.datagrams == [b"first", b"second"]
    assert pair.relay.quic.ended is None


@pytest.mark.parametrize("stock", [True, False])
def test_an_ended_connection_is_freed_without_the_garbage_collector(stock):
    pair = Pair.established(stock=stock)
    connection = pair.relay.connection
    pair.client.quic.close()
    pair.settle(5)
    assert pair.relay.quic.ended is not None
    gc.collect()
    gc.disable()
    try:
        connection.dissolve()
        gone = weakref.ref(connection.quic)
        host = pair.relay.host
        host.connection_ids.clear()
        host.peers.clear()
        pair.relay = None
        del connection
        assert gone() is None
    finally:
        gc.enable()


# -- the rest of the module ----------------------------------------------------------------------------


def test_acknowledgements_that_aioquic_reads_are_passed_on():
    pair = Pair.established(stock=True)
    acks = []
    pair.relay.quic.on_ack = lambda ack, now: acks.append((ack, now))
    pair.relay.quic.send_ping(1)
    pair.relay.host.want_flush(pair.relay.connection)
    number = pair.relay.quic._packet_number
    pair.settle(0.1)
    assert any(low <= number <= high for ack, _ in acks for low, high in ack.ranges)


def test_settings_of_every_dialect_reach_the_client():
    pair = Pair.established()
    received = pair.client.h3.received_settings
    assert {key: received[key] for key in WEBTRANSPORT_SETTINGS} == WEBTRANSPORT_SETTINGS


def test_there_is_no_path_before_the_handshake_is_confirmed():
    pair = Pair()
    assert pair.relay.quic.one_rtt() is None
    assert pair.relay.quic.last_received_at == 0.0
    pair.settle()
    assert pair.relay.quic.one_rtt() is not None


def test_how_a_connection_ended_is_known_at_once():
    pair = Pair.established()
    assert pair.relay.quic.ended is None
    pair.client.quic.close(error_code=0x123, reason_phrase="enough")
    pair.settle(0.02)
    ended: Any = pair.relay.quic.ended
    assert (ended.error_code, ended.reason_phrase) == (0x123, "enough")


def test_the_state_tells_when_the_path_may_be_used():
    pair = Pair.established()
    state = pair.relay.quic.one_rtt()
    assert state.usable
    pair.relay.quic.request_key_update()
    assert not state.usable
    pair.relay.quic.send_ping(1)
    pair.relay.quic.datagrams_to_send(pair.now)
    assert state.usable
    pair.relay.quic.close()
    assert not state.usable


def test_datagrams_that_wait_in_aioquic_are_counted():
    pair = Pair.established()
    pair.client.send(b"a", b"b")
    assert pair.client.quic.datagrams_waiting == 2
    assert pair.relay.quic.peer_datagram_limit == 65536

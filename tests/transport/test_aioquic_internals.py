"""What the relay uses of aioquic that aioquic does not offer, looked for name by name.

When a new version of aioquic is tried, the failures say what has moved.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from aioquic.quic.connection import QuicConnection, QuicConnectionState, QuicNetworkPath
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketNumberWindow, QuicPacketRecovery
from aioquic.tls import Epoch
from quic_parts import Pair

from transport import aioquic_internals
from transport.aioquic_internals import CONNECTION_ID_LENGTH, WORKER, new_connection_id
from transport.ledger import SentPacket
from transport.webtransport import WEBTRANSPORT_SETTINGS

USED = {
    "QuicConnection": (
        "_ack_eliciting_sent_since_receipt",
        "_close_at",
        "_close_event",
        "_close_pending",
        "_crypto_buffers",
        "_cryptos",
        "_datagrams_pending",
        "_handle_ack_frame",
        "_handshake_confirmed",
        "_host_cids",
        "_idle_timeout",
        "_local_ack_delay_exponent",
        "_local_initial_source_connection_id",
        "_loss",
        "_network_paths",
        "_packet_number",
        "_peer_cid",
        "_remote_ack_delay_exponent",
        "_remote_max_datagram_frame_size",
        "_replenish_connection_ids",
        "_spaces",
        "_state",
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
        "_time_of_last_sent_ack_eliciting_packet",
        "get_probe_timeout",
        "max_ack_delay",
        "on_ack_received",
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
        "expected_packet_number",
        "largest_acked_packet",
        "largest_received_packet",
        "largest_received_time",
        "received_packets",
        "sent_packets",
    ),
    "QuicPacketNumberWindow": ("_size", "add"),
    "RangeSet": ("_RangeSet__ranges", "add", "shift", "subtract"),
    "CryptoPair": ("_update_key_requested", "recv", "send"),
    "CryptoContext": ("cipher_suite", "key_phase", "secret", "version"),
    "QuicNetworkPath": ("addr", "bytes_sent", "is_validated"),
    "QuicConnectionId": ("cid",),
    "Context": ("_peer_certificate",),
    "H3Connection": ("_get_local_settings", "_local_control_stream_id", "_quic"),
}

ARGUMENTS = {
    (QuicConnection, "_handle_ack_frame"): ["self", "context", "frame_type", "buf"],
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
        "RangeSet": space.ack_queue,
        "CryptoPair": crypto,
        "CryptoContext": crypto.recv,
        "QuicNetworkPath": quic._network_paths[0],
        "QuicConnectionId": quic._host_cids[0],
        "Context": pair.client.quic.tls,
        "H3Connection": pair.relay.connection._h3,
    }


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner in USED for name in USED[owner]])
def test_aioquic_still_has(owners, owner, name):
    found = hasattr(owners[owner], name)
    assert found, f"aioquic's {owner} has no {name} any more: transport/aioquic_internals.py uses it"


@pytest.mark.parametrize(("owner", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_private_methods_take_the_same_arguments(owner, name):
    arguments = list(inspect.signature(getattr(owner, name)).parameters)
    assert arguments == ARGUMENTS[owner, name], f"aioquic's {owner.__name__}.{name} takes other arguments"


def test_every_private_name_that_is_used_is_in_the_table():
    tree = ast.parse(Path(aioquic_internals.__file__).read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= set(aioquic_internals.OneRttState.__slots__)
    own -= {name for names in USED.values() for name in names}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    listed = {name for names in USED.values() for name in names}
    assert used - own - listed == set()
    assert {name for name in listed if name.startswith("_")} - used <= {
        "_RangeSet__ranges",
        "_handle_ack_frame",
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
    assert set(SentPacket._fields) <= fields
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
    assert len(given) > 4
    for connection_id in given:
        assert_steerable(connection_id.cid)
        assert connection_id.cid in relay.host.connection_ids
    for connection_id in relay.host.connection_ids:
        assert_steerable(connection_id)


def test_connection_ids_given_later_can_be_steered_too():
    pair = Pair.established(stock=True)
    for _ in range(20):
        pair.client.quic.change_connection_id()
        pair.settle(0.1)
        assert_steerable(pair.relay.quic.host_cid)
    assert len(pair.relay.host.connection_ids) <= 8
    assert {entry.cid for entry in pair.relay.quic._host_cids} == set(pair.relay.host.connection_ids)


def test_the_first_connection_id_is_authenticated_by_the_transport_parameters():
    pair = Pair()
    pair.settle()
    assert pair.client.quic.ended is None
    assert pair.client.quic._remote_initial_source_connection_id == pair.relay.quic.host_cid


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
    assert (pair.relay.quic.ended.error_code, pair.relay.quic.ended.reason_phrase) == (0x123, "enough")


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

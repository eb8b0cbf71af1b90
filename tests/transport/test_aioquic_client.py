from __future__ import annotations

import pytest
from quic_parts import RELAY_ADDRESS, Pair

from transport.quic.aioquic_client import RESET_REASON
from transport.quic.stateless_reset import TOKEN_LENGTH


@pytest.fixture
def client():
    return Pair.established().client.quic


def reset_with(token):
    return b"\x45" + bytes(range(20)) + token


def test_a_reset_with_the_token_of_the_connection_id_in_use_ends_the_connection(client):
    client.receive_datagram(reset_with(client._peer_cid.stateless_reset_token), RELAY_ADDRESS, 1001.0)
    assert client.ended.reason_phrase == RESET_REASON
    assert client.ended_by_peer
    assert client.datagrams_to_send(1001.0) == []


@pytest.mark.parametrize("of", ["nothing", "a spare connection ID"])
def test_a_reset_with_another_token_ends_nothing(client, of):
    assert client._peer_cid_available
    spare = client._peer_cid_available[0].stateless_reset_token
    token = bytes(TOKEN_LENGTH) if of == "nothing" else spare
    client.receive_datagram(reset_with(token), RELAY_ADDRESS, 1001.0)
    assert client.ended is None


def test_a_token_in_a_packet_that_is_no_reset_ends_nothing(client):
    token = client._peer_cid.stateless_reset_token
    for packet in (token, b"\x45" + bytes(3) + token, b"\xc5" + bytes(20) + token, reset_with(token) + b"\0"):
        client.receive_datagram(packet, RELAY_ADDRESS, 1001.0)
    assert client.ended is None

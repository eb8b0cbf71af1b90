"""What is replaced in aioquic does the same as aioquic's own, of which this has another copy."""

from __future__ import annotations

import random
import sys
from enum import EnumType

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.h3 import connection as h3_connection
from aioquic.quic import connection as quic_connection
from aioquic.quic import packet, packet_builder

import transport.quic.aioquic_hot_spots  # noqa: F401
from transport.quic.tls_blocks import PulledBlock, PushedBlock

SEED = 20
FLIPS = 2000


def client_hello():
    buf = Buffer(capacity=2000)
    hello = tls.ClientHello(
        random=bytes(range(32)),
        legacy_session_id=bytes(32),
        cipher_suites=[0x1301, 0x1302],
        legacy_compression_methods=[0],
        key_share=[(0x1D, bytes(range(32)))],
        supported_groups=[0x1D, 0x17],
        signature_algorithms=[0x403, 0x804],
        supported_versions=[0x304],
        psk_key_exchange_modes=[1],
        server_name="relay.example",
        alpn_protocols=["h3"],
        other_extensions=[(0x39, bytes(50))],
    )
    tls.push_client_hello(buf, hello)
    return buf.data


def outcome(module, data):
    """What parsing a ClientHello comes to: its fields, or the kind of error and its text."""
    buf = Buffer(data=data)
    try:
        hello = module.pull_client_hello(buf)
    except Exception as error:  # noqa: BLE001 - each copy has alerts of its own
        return type(error).__name__, str(error)
    return repr(vars(hello)), buf.tell()


def test_it_is_in_use(original):
    assert (tls.pull_block, tls.push_block) == (PulledBlock, PushedBlock)
    assert original.pull_block is not PulledBlock


def test_messages_are_written_the_same(original):
    data = client_hello()
    buf = Buffer(capacity=2000)
    original.push_client_hello(buf, original.pull_client_hello(Buffer(data=data)))
    assert buf.data == data


def test_messages_are_read_and_refused_the_same(original):
    data, chance = client_hello(), random.Random(SEED)
    outcomes = {outcome(tls, data)}
    for _ in range(FLIPS):
        damaged = bytearray(data[: chance.choice([len(data), chance.randrange(1, len(data))])])
        for _ in range(chance.randrange(3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        found = outcome(tls, bytes(damaged))
        assert found == outcome(original, bytes(damaged))
        outcomes.add(found)
    assert ("AlertDecodeError", "extra bytes at the end of a block") in outcomes
    assert len(outcomes) > FLIPS // 10


def test_encryption_levels_are_found_by_what_they_are():
    levels = {epoch: epoch.name for epoch in tls.Epoch}
    assert [levels[tls.Epoch(number)] for number in range(4)] == [
        "INITIAL",
        "ZERO_RTT",
        "HANDSHAKE",
        "ONE_RTT",
    ]


def test_members_of_enumerations_are_theirs_and_all_else_is_asked_of_them(original):
    for name in ("Epoch", "CipherSuite", "HandshakeType", "ExtensionType"):
        stand_in, enumeration = getattr(tls, name), getattr(original, name)
        members = {member.name: member.value for member in enumeration}
        assert {member.name: member.value for member in stand_in} == members
        for member in stand_in:
            assert getattr(stand_in, member.name) is member
            assert stand_in(member.value) is member
            assert isinstance(member, stand_in)
        assert not isinstance("INITIAL", stand_in)
        with pytest.raises(ValueError, match="1234567"):
            stand_in(1234567)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="looks at members are cheap")
@pytest.mark.parametrize("module", [tls, packet, packet_builder, quic_connection, h3_connection])
def test_no_look_at_a_member_goes_by_way_of_a_function(module):
    kinds = [kind for kind in vars(module).values() if isinstance(kind, EnumType)]
    assert {kind.__module__ for kind in kinds} <= {"enum"}

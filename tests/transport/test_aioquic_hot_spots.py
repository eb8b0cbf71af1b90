"""What is replaced in aioquic does the same as aioquic's own, of which this has another copy."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys

import pytest
from aioquic import tls
from aioquic.buffer import Buffer

from transport.quic.aioquic_hot_spots import PulledBlock, PushedBlock

SEED = 20
FLIPS = 2000


@pytest.fixture(scope="module")
def original():
    """aioquic.tls as it is without this package."""
    spec = importlib.util.spec_from_file_location("aioquic.original_tls", tls.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


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


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_a_block_that_is_left_by_an_error_says_nothing_of_its_own(capacity):
    buf = Buffer(data=bytes(capacity - 1) + b"\x02ab")
    with contextlib.suppress(KeyError), PulledBlock(buf, capacity) as length:
        assert length == len(b"ab")
        raise KeyError
    written = Buffer(capacity=10)
    with contextlib.suppress(KeyError), PushedBlock(written, capacity):
        written.push_bytes(b"ab")
        raise KeyError
    assert (written.tell(), written.data[capacity:]) == (capacity + 2, b"ab")


def test_encryption_levels_are_found_by_what_they_are():
    levels = {epoch: epoch.name for epoch in tls.Epoch}
    assert [levels[tls.Epoch(number)] for number in range(4)] == [
        "INITIAL",
        "ZERO_RTT",
        "HANDSHAKE",
        "ONE_RTT",
    ]

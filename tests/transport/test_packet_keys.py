from __future__ import annotations

from typing import NamedTuple

import pytest
from aioquic.quic.crypto import CryptoContext, next_key_phase
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite
from cryptography.exceptions import InvalidTag

from transport.quic.aioquic_one_rtt import keys_of
from transport.quic.packet_keys import AES_SUITES, SAMPLE


class Secret(NamedTuple):
    cipher_suite: CipherSuite
    secret: bytes
    version: int


CID = bytes.fromhex("0011223344556677")
NUMBER_AT = 1 + len(CID)
SECRETS = [
    Secret(suite, bytes(range(size)), version)
    for suite, size in ((CipherSuite.AES_128_GCM_SHA256, 32), (CipherSuite.AES_256_GCM_SHA384, 48))
    for version in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)
]


@pytest.fixture(params=SECRETS, ids=lambda secret: f"{secret.cipher_suite.name}-{secret.version:#x}")
def secret(request):
    return request.param


def context(secret):
    """aioquic's own protection with the same secret."""
    crypto = CryptoContext()
    crypto.setup(cipher_suite=secret.cipher_suite, secret=secret.secret, version=secret.version)
    return crypto


def nonce(keys, number):
    return (keys.iv ^ number).to_bytes(12, "big")


def header(flags, number, size):
    return bytes((flags | size - 1,)) + CID + (number & (1 << 8 * size) - 1).to_bytes(size, "big")


PACKETS = [
    (flags, number, size, bytes([number % 256]) * length)
    for flags, number, size, length in [
        (0x40, 0, 1, 20),
        (0x40, 1, 2, 40),
        (0x40, 255, 1, 900),
        (0x60, 70_000, 3, 1200),
        (0x60, 1 << 30, 4, 4),
        (0x40, (1 << 40) + 3, 4, 1452),
    ]
]


def test_every_suite_of_the_path_is_tested():
    assert {secret.cipher_suite for secret in SECRETS} == AES_SUITES


def test_masks_and_opening_undo_what_aioquic_sealed(secret):
    crypto = context(secret)
    keys = keys_of(crypto, seals=False)
    sealed = [
        crypto.encrypt_packet(header(flags, number, size), plain, number)
        for flags, number, size, plain in PACKETS
    ]
    masks = list(keys.receive_masks(sealed, NUMBER_AT))
    assert len(masks) == len(sealed)
    for packet, (flags_mask, number_mask), (flags, number, size, plain) in zip(
        sealed, masks, PACKETS, strict=True
    ):
        first = packet[0] ^ (flags_mask & 0x1F)
        assert first == flags | size - 1
        field = (int.from_bytes(packet[NUMBER_AT : NUMBER_AT + 4], "big") ^ number_mask) >> (32 - 8 * size)
        assert field == number & (1 << 8 * size) - 1
        data = packet[NUMBER_AT + size :]
        assert keys.crypt(nonce(keys, number), data, header(flags, number, size)) == plain


def test_sealing_is_what_aioquic_opens(secret):
    crypto = context(secret)
    keys = keys_of(crypto, seals=True)
    for flags, number, size, plain in PACKETS:
        head = header(flags, number, size)
        data = keys.crypt(nonce(keys, number), plain, head)
        mask = keys.mask(data[4 - size : 4 - size + SAMPLE])
        packet = bytes((head[0] ^ (mask[0] & 0x1F),)) + CID
        packet += bytes(a ^ b for a, b in zip(head[NUMBER_AT:], mask[1:5], strict=False)) + data
        assert packet == crypto.encrypt_packet(head, plain, number)
        assert crypto.decrypt_packet(packet, NUMBER_AT, number) == (head, plain, number, False)


def test_one_call_masks_many_samples(secret):
    keys = keys_of(context(secret), seals=True)
    samples = [bytes([n]) * SAMPLE for n in range(50)]
    assert keys.mask(b"".join(samples)) == b"".join(keys.mask(sample) for sample in samples)


def test_after_a_key_update_the_header_key_stays_and_the_packet_key_changes(secret):
    crypto = context(secret)
    updated = next_key_phase(crypto)
    before = keys_of(crypto, seals=False)
    head = header(0x44, 77, 2)
    # What aioquic does at a key update: the new packet key, the old header key.
    crypto.aead, crypto.key_phase, crypto.secret = updated.aead, updated.key_phase, updated.secret
    after = keys_of(crypto, seals=False)
    assert after.secret != before.secret
    packet = crypto.encrypt_packet(head, b"after the update", 77)
    [(flags_mask, number_mask)] = after.receive_masks([packet], NUMBER_AT)
    assert packet[0] ^ (flags_mask & 0x1F) == head[0]
    assert int.from_bytes(packet[NUMBER_AT : NUMBER_AT + 2], "big") ^ number_mask >> 16 == 77
    data = packet[NUMBER_AT + 2 :]
    assert after.crypt(nonce(after, 77), data, head) == b"after the update"
    with pytest.raises(InvalidTag):
        before.crypt(nonce(before, 77), data, head)


@pytest.mark.parametrize("damaged", ["header", "payload", "tag", "number"])
def test_a_changed_packet_does_not_open(secret, damaged):
    crypto = context(secret)
    keys = keys_of(crypto, seals=False)
    head, number = header(0x40, 5, 2), 5
    data = bytearray(crypto.encrypt_packet(head, b"x" * 40, 5)[len(head) :])
    if damaged == "header":
        head = bytes((head[0] ^ 0x20,)) + head[1:]
    elif damaged == "number":
        number = 6
    else:
        data[0 if damaged == "payload" else -1] ^= 1
    with pytest.raises(InvalidTag):
        keys.crypt(nonce(keys, number), bytes(data), head)


def test_keys_that_aioquic_has_given_up_are_an_error(secret):
    crypto = context(secret)
    crypto.teardown()
    with pytest.raises(ValueError, match="no keys"):
        keys_of(crypto, seals=True)

"""Keys are those of the RFCs, and those that aioquic makes without this package."""

from __future__ import annotations

import hmac
import random

import pytest
from aioquic import tls
from aioquic.quic import crypto
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

import transport.quic.aioquic_hot_spots  # noqa: F401
from transport.quic import key_schedule

SEED = 31


def test_aioquic_uses_it():
    assert tls.KeySchedule is key_schedule.KeySchedule
    assert crypto.derive_key_iv_hp is key_schedule.derive_key_iv_hp
    assert crypto.hkdf_extract is tls.hkdf_extract is key_schedule.hkdf_extract
    assert crypto.hkdf_expand_label is tls.hkdf_expand_label is key_schedule.hkdf_expand_label


@pytest.mark.parametrize("name", ["sha256", "sha384"])
def test_hmacs_are_pythons(name):
    chance = random.Random(SEED)
    for size in (0, 1, 20, 32, 48, 63, 64):
        key, message = chance.randbytes(size), chance.randbytes(size * 3)
        assert key_schedule.hmac_digest(name, key, message) == hmac.digest(key, message, name)


def test_initial_secrets_are_those_of_rfc_9001_a_1():
    algorithm = tls.cipher_suite_hash(CipherSuite.AES_128_GCM_SHA256)
    salt = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
    initial = key_schedule.hkdf_extract(algorithm, salt, bytes.fromhex("8394c8f03e515708"))
    assert initial.hex() == "7db5df06e7a69e432496adedb00851923595221596ae2ae9fb8115c1e9ed0a44"
    secret = key_schedule.hkdf_expand_label(algorithm, initial, b"client in", b"", 32)
    assert secret.hex() == "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"


@pytest.mark.parametrize(
    ("suite", "version", "secret", "keys"),
    [
        pytest.param(
            CipherSuite.AES_128_GCM_SHA256,
            QuicProtocolVersion.VERSION_1,
            "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea",
            (
                "1f369613dd76d5467730efcbe3b1a22d",
                "fa044b2f42a3fd3b46fb255c",
                "9f50449e04a0e810283a1e9933adedd2",
            ),
            id="RFC 9001 A.1",
        ),
        pytest.param(
            CipherSuite.CHACHA20_POLY1305_SHA256,
            QuicProtocolVersion.VERSION_1,
            "9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b",
            (
                "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
                "e0459b3474bdd0e44a41c144",
                "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
            ),
            id="RFC 9001 A.5",
        ),
        pytest.param(
            CipherSuite.AES_128_GCM_SHA256,
            QuicProtocolVersion.VERSION_2,
            "14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b",
            (
                "8b1a0bc121284290a29e0971b5cd045d",
                "91f73e2351d8fa91660e909f",
                "45b95e15235d6f45a6b19cbcb0294ba9",
            ),
            id="RFC 9369 A.1",
        ),
    ],
)
def test_keys_of_packets_are_those_of_the_rfcs(suite, version, secret, keys):
    made = key_schedule.derive_key_iv_hp(cipher_suite=suite, secret=bytes.fromhex(secret), version=version)
    assert tuple(key.hex() for key in made) == keys


@pytest.mark.parametrize("suite", ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"])
@pytest.mark.parametrize("shared", [None, b"s" * 32])
def test_secrets_are_those_of_aioquics_own_schedule(original, suite, shared):
    schedules = [tls.KeySchedule(getattr(tls.CipherSuite, suite))]
    schedules.append(original.KeySchedule(getattr(original.CipherSuite, suite)))
    seen = []
    for schedule in schedules:
        said = []
        for message, label in (
            (b"hello", b"c hs traffic"),
            (b"finished", b"s ap traffic"),
            (b"", b"res master"),
        ):
            schedule.extract(shared)
            schedule.update_hash(message)
            said += [schedule.secret, schedule.derive_secret(label)]
            said += [schedule.finished_verify_data(said[-1]), schedule.certificate_verify_data(b"context")]
        seen.append((said, schedule.generation, schedule.algorithm.digest_size))
    assert seen[0] == seen[1]

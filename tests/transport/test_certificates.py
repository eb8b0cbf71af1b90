from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from transport.certificates import (
    BACKDATE,
    RENEW_AFTER,
    VALIDITY,
    Certificate,
    CertificateError,
    EphemeralCertificateStore,
    FileCertificateStore,
    generate,
    load,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("localhost", "127.0.0.1", "::1", "relay.example")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "chain.pem", tmp_path / "key.pem"


def write(certificate: Certificate, paths: tuple[Path, Path]) -> None:
    paths[0].write_bytes(certificate.chain_pem())
    paths[1].write_bytes(certificate.private_key_pem())


def self_signed(key, life: timedelta = timedelta(days=90)) -> Certificate:
    subject = x509.Name([])
    builder = x509.CertificateBuilder(
        issuer_name=subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=NOW,
        not_valid_after=NOW + life,
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Certificate((builder.sign(key, algorithm),), key)


# -- made on the spot ---------------------------------------------------------------------------------


def test_what_is_made_meets_the_browsers_demands():
    certificate = generate(NAMES, NOW)

    assert isinstance(certificate.private_key, ec.EllipticCurvePrivateKey)
    assert isinstance(certificate.private_key.curve, ec.SECP256R1)
    assert certificate.leaf.version is x509.Version.v3
    assert certificate.not_after - certificate.not_before == VALIDITY <= timedelta(days=14)
    assert certificate.not_before == NOW - BACKDATE
    assert certificate.leaf.issuer == certificate.leaf.subject
    certificate.leaf.verify_directly_issued_by(certificate.leaf)


def test_only_short_lived_p256_of_its_own_making_can_be_pinned():
    assert generate(NAMES, NOW).can_be_pinned
    assert not self_signed(ec.generate_private_key(ec.SECP256R1())).can_be_pinned, "90 days"
    short = timedelta(days=14)
    assert self_signed(ec.generate_private_key(ec.SECP256R1()), short).can_be_pinned
    assert not self_signed(ec.generate_private_key(ec.SECP384R1()), short).can_be_pinned
    assert not self_signed(rsa.generate_private_key(65537, 2048), short).can_be_pinned


def test_the_hash_is_that_of_the_der_form():
    certificate = generate(NAMES, NOW)
    der = ssl.PEM_cert_to_DER_cert(certificate.chain_pem().decode())
    assert certificate.sha256 == hashlib.sha256(der).hexdigest()


def test_names_become_subject_alternative_names():
    names = (*NAMES, "0.0.0.0", "::", "", "gärten.example", "fe80::1%eth0", "localhost")
    found = generate(names, NOW).leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["localhost", "relay.example"]
    assert found.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "fe80::1")
    ]


def test_an_ephemeral_certificate_is_renewed_before_it_ends():
    store = EphemeralCertificateStore(NAMES, NOW)
    first = store.current
    due = first.not_before + RENEW_AFTER
    assert due < first.not_after

    assert not store.refresh(due - timedelta(seconds=1))
    assert not store.refresh(NOW, force=True), "a hash that clients pinned is not thrown away on request"
    assert store.current is first

    assert store.refresh(due)
    assert store.current.sha256 != first.sha256
    assert store.current.complaints(due) == ()
    assert not store.refresh(due)


class File:
    """What a store keeps, in memory."""

    def __init__(self):
        self.content = None

    def read(self):
        return self.content

    def write(self, content):
        self.content = content


def hashes_of(store):
    return store.current.sha256, store.next.sha256


def test_a_kept_certificate_and_its_successor_are_shown_again():
    file = File()
    first = EphemeralCertificateStore(NAMES, NOW, file)
    second = EphemeralCertificateStore(["another.name"], NOW + timedelta(days=1), file)
    assert hashes_of(second) == hashes_of(first)
    assert second.current.private_key.private_numbers() == first.current.private_key.private_numbers()
    renewal = NOW + RENEW_AFTER
    assert second.refresh(renewal)
    third = EphemeralCertificateStore(NAMES, renewal, file)
    assert third.current.sha256 == first.next.sha256
    assert hashes_of(third) == hashes_of(second)


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (RENEW_AFTER - timedelta(hours=2), "current"),
        (RENEW_AFTER, "next"),
        (2 * RENEW_AFTER - timedelta(hours=3), "next"),
        (2 * RENEW_AFTER, None),
        (-timedelta(days=1), None),
    ],
)
def test_after_a_time_away_it_is_the_one_that_holds_then(away, expected):
    file = File()
    first = EphemeralCertificateStore(NAMES, NOW, file)
    second = EphemeralCertificateStore(NAMES, NOW + away, file)
    found = {first.current.sha256: "current", first.next.sha256: "next"}
    assert found.get(second.current.sha256) == expected
    assert second.current.complaints(NOW + away) == ()
    assert hashes_of(EphemeralCertificateStore(NAMES, NOW + away, file)) == hashes_of(second)


def _spoilt():
    file = File()
    EphemeralCertificateStore(NAMES, NOW, file)
    good = file.content
    other = File()
    EphemeralCertificateStore(NAMES, NOW, other)
    blocks = good.split(b"-----BEGIN ")
    strange = self_signed(rsa.generate_private_key(65537, 2048), timedelta(days=10))
    yield from (b"", b"\xff" * 99, good[: len(good) // 2], good[:-60], good.replace(b"MII", b"XII"))
    yield good + good
    yield b"-----BEGIN ".join([blocks[0], blocks[1], *other.content.split(b"-----BEGIN ")[2:]])
    yield strange.chain_pem() + strange.private_key_pem() + good[len(good) // 2 :]


@pytest.mark.parametrize("number", range(8))
def test_a_kept_certificate_that_is_damaged_is_made_anew_with_one_line(number, lines):
    file = File()
    file.content = list(_spoilt())[number]
    store = EphemeralCertificateStore(NAMES, NOW, file)
    assert store.current.can_be_pinned
    assert [line.partition(" ")[0] for line in lines] == ["WARNING"]
    assert hashes_of(EphemeralCertificateStore(NAMES, NOW, file)) == hashes_of(store)


def test_the_certificate_that_follows_is_known_before_it_comes():
    store = EphemeralCertificateStore(["relay.example"], NOW)
    following = store.next
    assert following.can_be_pinned
    renewal = NOW + RENEW_AFTER
    # Valid from an hour before it is used, for clients whose clock is behind.
    assert following.not_before <= renewal - BACKDATE
    assert store.refresh(renewal)
    assert store.current is following
    assert store.next is not following
    assert store.refresh(renewal + 10 * RENEW_AFTER)
    assert store.current.not_before < renewal + 10 * RENEW_AFTER < store.current.not_after


def test_a_clock_set_back_renews_too():
    store = EphemeralCertificateStore(NAMES, NOW)
    earlier = NOW - timedelta(days=400)
    assert store.refresh(earlier)
    assert store.current.complaints(earlier) == ()


# -- from files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "rsa"],
)
@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_pairs_of_every_usual_kind_load(paths, key, form):
    certificate = self_signed(key)
    paths[0].write_bytes(certificate.chain_pem())
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    assert load(*paths).chain == certificate.chain


def test_a_chain_keeps_its_order_and_the_key_may_follow_other_blocks(paths):
    leaf, other = generate(NAMES, NOW), generate(NAMES, NOW)
    paths[0].write_bytes(leaf.chain_pem() + other.chain_pem())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    paths[1].write_bytes(parameters + leaf.chain_pem() + leaf.private_key_pem())
    loaded = load(*paths)
    assert loaded.chain == (leaf.leaf, other.leaf)
    assert loaded.sha256 == leaf.sha256


def encrypted(certificate: Certificate) -> bytes:
    return certificate.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def traditional_encrypted(certificate: Certificate) -> bytes:
    return certificate.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"secret"),
    )


BAD_KEYS = {
    "encrypted": (encrypted, "the private key is encrypted"),
    "encrypted, old form": (traditional_encrypted, "the private key is encrypted"),
    "another": (lambda _: generate(NAMES, NOW).private_key_pem(), "does not belong to the first certificate"),
    "empty": (lambda _: b"", "no private key in PEM form"),
    "the certificate": (lambda certificate: certificate.chain_pem(), "no private key in PEM form"),
    "garbled": (
        lambda _: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "the private key cannot be read",
    ),
    "ed25519": (
        lambda _: self_signed(ed25519.Ed25519PrivateKey.generate()).private_key_pem(),
        "not an ECDSA P-256, ECDSA P-384 or RSA key",
    ),
    "huge": (lambda _: b"x" * 2_000_000, "larger than"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_bad_key_is_one_clear_line(paths, case):
    content, message = BAD_KEYS[case]
    certificate = generate(NAMES, NOW)
    paths[0].write_bytes(certificate.chain_pem())
    paths[1].write_bytes(content(certificate))
    with pytest.raises(CertificateError) as caught:
        load(*paths)
    text = str(caught.value)
    assert message in text
    assert str(paths[1]) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "binary", "garbled"],
)
def test_a_bad_chain_is_one_clear_line(paths, content):
    write(generate(NAMES, NOW), paths)
    paths[0].write_bytes(content)
    with pytest.raises(CertificateError, match="no certificate in PEM form"):
        load(*paths)


def test_an_rsa_key_that_no_client_takes_is_refused_and_does_not_replace_one_that_works(paths):
    working, small = generate(NAMES, NOW), self_signed(rsa.generate_private_key(65537, 1024))
    write(working, paths)
    store = FileCertificateStore(*paths)
    write(small, paths)
    with pytest.raises(CertificateError, match="an RSA key of 1024 bits, too few for TLS: 2048") as caught:
        store.refresh(NOW, force=True)
    assert caught.value.path == paths[1]
    assert store.current.sha256 == working.sha256


def test_missing_files_directories_and_pipes_are_refused_without_waiting(paths, tmp_path):
    with pytest.raises(CertificateError, match="No such file"):
        load(*paths)
    with pytest.raises(CertificateError, match="not a regular file"):
        load(tmp_path, tmp_path)
    os.mkfifo(paths[0])
    with pytest.raises(CertificateError, match="not a regular file"):
        load(*paths)


def test_an_expired_pair_loads_with_a_complaint(paths):
    certificate = generate(NAMES, NOW)
    write(certificate, paths)
    loaded = load(*paths)
    assert loaded.complaints(NOW) == ()
    [complaint] = loaded.complaints(NOW + timedelta(days=11))
    assert "expired on 2030-01-12 02:04 UTC" in complaint


# -- reloading ----------------------------------------------------------------------------------------


def test_unchanged_files_are_not_another_certificate(paths):
    write(generate(NAMES, NOW), paths)
    store = FileCertificateStore(*paths)
    assert not store.refresh(NOW)
    assert not store.refresh(NOW, force=True)


def test_a_switched_symbolic_link_is_noticed(tmp_path):
    """certbot keeps live/NAME/*.pem as links into archive/ and points them at the next version."""
    live = (tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    first, second = generate(NAMES, NOW), generate(NAMES, NOW)
    for number, certificate in enumerate((first, second)):
        write(certificate, (tmp_path / f"fullchain{number}.pem", tmp_path / f"privkey{number}.pem"))
    for link in live:
        link.symlink_to(f"{link.stem}0.pem")
    store = FileCertificateStore(*live)
    assert store.current.sha256 == first.sha256

    for link in live:
        link.unlink()
        link.symlink_to(f"{link.stem}1.pem")
    assert store.refresh(NOW)
    assert store.current.sha256 == second.sha256


def test_half_a_change_is_reported_once_and_the_old_pair_stays(paths):
    first, second = generate(NAMES, NOW), generate(NAMES, NOW)
    write(first, paths)
    store = FileCertificateStore(*paths)

    paths[0].write_bytes(second.chain_pem())
    with pytest.raises(CertificateError, match="does not belong"):
        store.refresh(NOW)
    assert not store.refresh(NOW), "said once"
    assert store.current.sha256 == first.sha256
    with pytest.raises(CertificateError, match="does not belong"):
        store.refresh(NOW, force=True)

    paths[1].write_bytes(second.private_key_pem())
    assert store.refresh(NOW)
    assert store.current.sha256 == second.sha256


def test_a_file_that_vanishes_and_comes_back(paths):
    certificate = generate(NAMES, NOW)
    write(certificate, paths)
    store = FileCertificateStore(*paths)
    paths[0].unlink()
    with pytest.raises(CertificateError, match="No such file"):
        store.refresh(NOW)
    assert not store.refresh(NOW)
    assert store.current.sha256 == certificate.sha256
    write(certificate, paths)
    assert not store.refresh(NOW), "the same certificate again"


def test_names_are_domains_and_addresses_without_their_kind():
    certificate = generate(["LocalHost", "127.0.0.1", "0:0::1", "*.example.org"], NOW)
    assert certificate.names == {"localhost", "127.0.0.1", "::1", "*.example.org"}

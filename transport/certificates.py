"""The relay's TLS certificate: one made on the spot and renewed, or a pair of PEM files and reloaded.

Theory of operation. The endpoint reads ``store.current`` for every new connection, so a renewed or reloaded
certificate reaches new clients while established sessions keep the one they were opened with. Nothing here
reads a clock or waits: the owner calls ``refresh(now)`` from a thread every now and then (files are read and
keys are made there) and logs what it says.

A certificate that was made here, and the one that follows it, can be kept in a file: a relay that is started
again within their life then shows what pages have pinned. The names in it may be old by then; by hash it is
taken whatever they are.

An ephemeral certificate is for browsers' ``serverCertificateHashes``, which take it only if it is an X.509v3
certificate for an ECDSA P-256 key that is valid for at most 14 days (W3C WebTransport, "custom certificate
requirements"; RSA is refused).
"""

from __future__ import annotations

import ipaddress
import re
import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from loguru import logger

from transport.certificate_checks import PrivateKey, obstacles_to_pinning, problems

if TYPE_CHECKING:
    from collections.abc import Iterable


VALIDITY = timedelta(days=10)
"""Whole life of an ephemeral certificate: below the 14 days of browsers, as the existing relay has it."""

BACKDATE = timedelta(hours=1)
"""How far the start lies in the past, for clients whose clock is behind ours."""

RENEW_AFTER = timedelta(days=8)
"""Age at which an ephemeral certificate is replaced: two days before it would end."""

MAX_PEM_BYTES = 1 << 20
"""Largest certificate or key file that is read: real chains are a few kilobytes."""

SMALLEST_RSA = 2048
"""Bits; smaller keys are refused by browsers, and by OpenSSL at the security level that Python has it at."""

_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?P<kind>(?:[A-Z0-9]+ )*PRIVATE KEY)-----.+?-----END (?P=kind)-----", re.DOTALL
)
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class CertificateError(Exception):
    """A certificate or key cannot be used; the message is one line that begins with the file."""

    def __init__(self, path: Path, reason: str) -> None:
        """``path`` is the file that has to be another."""
        super().__init__(f"{path}: {reason}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain, leaf first, with the leaf's private key."""

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    @property
    def sha256(self) -> str:
        """SHA-256 of the leaf's DER form, 64 hex digits: what ``serverCertificateHashes`` pins."""
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def not_before(self) -> datetime:
        """Start of the validity, UTC."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """End of the validity, UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def is_self_signed(self) -> bool:
        """Whether no authority stands for it: its own key has signed it."""
        return _is_self_signed(self.leaf)

    @property
    def names(self) -> frozenset[str]:
        """Domains, in lower case and with wildcards as they stand there, and addresses of subjectAltName."""
        return _names(self.leaf)

    @property
    def can_be_pinned(self) -> bool:
        """Whether browsers accept it by its hash: made by nobody else, ECDSA P-256, at most 14 days."""
        return self.is_self_signed and not obstacles_to_pinning(self)

    def complaints(self, now: datetime) -> tuple[str, ...]:
        """Say what clients will hold against this certificate at ``now``, one line each."""
        return problems(self, now)

    @classmethod
    def from_pem(cls, chain: bytes, private_key: bytes) -> Certificate:
        """Undo :meth:`chain_pem` and :meth:`private_key_pem`. Raises CertificateError, ValueError."""
        return cls(tuple(x509.load_pem_x509_certificates(chain)), _private_key(private_key, Path("-")))

    def chain_pem(self) -> bytes:
        """Return the chain as PEM text, leaf first."""
        return b"".join(item.public_bytes(serialization.Encoding.PEM) for item in self.chain)

    def private_key_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS #8 PEM text."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class CertificateStore(Protocol):
    """Where the endpoint finds the certificate of the moment."""

    @property
    def current(self) -> Certificate:
        """The certificate for the next connection."""

    @property
    def next(self) -> Certificate | None:
        """The certificate that will follow, where that is known: clients may pin both."""

    def refresh(self, now: datetime, *, force: bool = False) -> bool:
        """Renew or reload if it is time; ``force`` looks even if nothing seems changed.

        Returns whether ``current`` is another certificate than before. Raises CertificateError, and keeps
        the old one, when there is a new one that cannot be used: once per version of the files. May read
        files or make a key: call it from a thread, never two calls at a time.
        """


class KeptFile(Protocol):
    """A private file; whoever keeps it says what goes wrong."""

    def read(self) -> bytes | None:
        """Return its content; None where there is none."""

    def write(self, content: bytes, /) -> None:
        """Put this in its place, all of it or nothing."""


def generate(names: Iterable[str], now: datetime) -> Certificate:
    """Make a self-signed ECDSA P-256 certificate for host names and addresses, valid from just before now.

    ``now`` is aware, in UTC. Names that cannot stand in a certificate (not ASCII, or the unspecified
    address) are left out.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmrelay")])
    start = now - BACKDATE
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_DIGITAL_SIGNATURE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Certificate((builder.sign(key, hashes.SHA256()),), key)


def load(certificate_path: Path, key_path: Path) -> Certificate:
    """Read a chain (leaf first) and the leaf's private key from PEM files; raises CertificateError."""
    chain_pem, key_pem = _read(certificate_path), _read(key_path)
    try:
        chain = tuple(x509.load_pem_x509_certificates(chain_pem))
        leaf_key = chain[0].public_key() if chain else None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(certificate_path, "no certificate in PEM form in this file") from None
    private_key = _private_key(key_pem, key_path)
    if leaf_key != private_key.public_key():
        raise CertificateError(
            key_path,
            f"this key does not belong to the first certificate in {certificate_path}"
            f"{_whose(private_key, chain)}",
        )
    if isinstance(private_key, rsa.RSAPrivateKey) and private_key.key_size < SMALLEST_RSA:
        raise CertificateError(
            key_path,
            f"an RSA key of {private_key.key_size} bits, too few for TLS: {SMALLEST_RSA} at least, or ECDSA",
        )
    return Certificate(chain, private_key)


def _whose(private_key: PrivateKey, chain: tuple[x509.Certificate, ...]) -> str:
    """Say what is probably wrong with a chain whose first certificate has another key."""
    for number, certificate in enumerate(chain[1:], start=2):
        if certificate.public_key() == private_key.public_key():
            return f", but to number {number}: the server's own must come first"
    return ""


class EphemeralCertificateStore:
    """A certificate of the relay's own making, replaced before it ends."""

    def __init__(self, names: Iterable[str], now: datetime, kept: KeptFile | None = None) -> None:
        """Go on with what is in ``kept`` while it holds; reads and writes that file."""
        self._names = tuple(names)
        self._kept = kept
        content = None if kept is None else kept.read()
        found = None if content is None else read_kept(content)
        if found is None:
            if content is not None:
                logger.warning(
                    "the certificate that was kept is damaged; a new one is made, with another hash"
                )
            self._take(self._pair(now))
        else:
            self._current, self._next = found
            self.refresh(now)

    @property
    def current(self) -> Certificate:
        """The certificate for the next connection."""
        return self._current

    @property
    def next(self) -> Certificate:
        """The certificate that follows when this one is renewed."""
        return self._next

    def refresh(self, now: datetime, *, force: bool = False) -> bool:  # noqa: ARG002
        """Replace the certificate when its time has come.

        ``force`` changes nothing: clients that pinned the hash would be locked out for no reason. A clock
        that was set back before the start replaces it too.
        """
        if self._current.not_before <= now < self._current.not_before + RENEW_AFTER:
            return False
        if self._next.not_before <= now < self._next.not_before + RENEW_AFTER:
            self._take((self._next, self._successor(self._next)))
        else:
            self._take(self._pair(now))
        return True

    def _take(self, pair: tuple[Certificate, Certificate]) -> None:
        self._current, self._next = pair
        if self._kept is not None:
            self._kept.write(b"".join(item.chain_pem() + item.private_key_pem() for item in pair))

    def _pair(self, now: datetime) -> tuple[Certificate, Certificate]:
        current = generate(self._names, now)
        return current, self._successor(current)

    def _successor(self, certificate: Certificate) -> Certificate:
        return generate(self._names, certificate.not_before + RENEW_AFTER)


class FileCertificateStore:
    """A pair of PEM files, read again when they change.

    Changes are seen by modification time, inode and size of what the paths lead to, so that the switch of
    a symbolic link (certbot's way of renewing) counts. While only one of the two files is new the pair does
    not match: that is reported once, the old pair stays, and the next change is looked at afresh.
    """

    def __init__(self, certificate_path: Path, key_path: Path) -> None:
        self._paths = (certificate_path, key_path)
        self._seen = tuple(_version(path) for path in self._paths)
        self._current = load(*self._paths)

    @property
    def current(self) -> Certificate:
        """The certificate for the next connection."""
        return self._current

    @property
    def next(self) -> None:
        """Not known before the files change."""
        return None

    def refresh(self, now: datetime, *, force: bool = False) -> bool:  # noqa: ARG002
        """Read the files again if they changed, or in any case with ``force``."""
        # Looked at before reading: a file that changes meanwhile is seen as changed the next time.
        versions = tuple(_version(path) for path in self._paths)
        if versions == self._seen and not force:
            return False
        self._seen = versions
        fresh = load(*self._paths)
        changed = fresh.chain != self._current.chain
        self._current = fresh
        return changed


def read_kept(content: bytes) -> tuple[Certificate, Certificate] | None:
    """Read the two certificates that were kept, each with its key; None if they cannot be used."""
    try:
        leaves = x509.load_pem_x509_certificates(content)
        keys = [load_pem_private_key(block[0], password=None) for block in _PRIVATE_KEY.finditer(content)]
        current, following = (
            Certificate((leaf,), key)
            for leaf, key in zip(leaves, keys, strict=True)
            if isinstance(key, ec.EllipticCurvePrivateKey) and leaf.public_key() == key.public_key()
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    else:
        if current.can_be_pinned and following.can_be_pinned:
            return current, following
    return None


_DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@lru_cache(maxsize=8)
def _is_self_signed(leaf: x509.Certificate) -> bool:
    if leaf.issuer != leaf.subject:
        return False
    try:
        # Some authorities have the same name as what they sign.
        leaf.verify_directly_issued_by(leaf)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@lru_cache(maxsize=8)
def _names(leaf: x509.Certificate) -> frozenset[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    domains = found.get_values_for_type(x509.DNSName)
    return frozenset((*map(str.lower, domains), *map(str, found.get_values_for_type(x509.IPAddress))))


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """Names as subject alternative names: addresses and DNS names told apart, each once, in order."""
    found: dict[x509.GeneralName, None] = {}
    for name in names:
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            if name and name.isascii():
                found[x509.DNSName(name)] = None
        else:
            if not address.is_unspecified:
                found[x509.IPAddress(address)] = None
    return list(found)


def _read(path: Path) -> bytes:
    """Contents of a regular file of sane size."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CertificateError(path, "not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise CertificateError(path, error.strerror or str(error)) from None
    if len(data) > MAX_PEM_BYTES:
        raise CertificateError(path, f"larger than {MAX_PEM_BYTES} bytes, not a PEM file")
    return data


def _private_key(pem: bytes, path: Path) -> PrivateKey:
    """Find the first private key in ``pem``; certificates or EC parameters may stand beside it."""
    block = _PRIVATE_KEY.search(pem)
    if block is None:
        raise CertificateError(path, "no private key in PEM form in this file")
    try:
        key = load_pem_private_key(block.group(), password=None)
    except TypeError:
        raise CertificateError(
            path, "the private key is encrypted; the relay needs it in the clear"
        ) from None
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise CertificateError(path, "the private key cannot be read") from None
    if isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    ):
        return key
    raise CertificateError(path, "not an ECDSA P-256, ECDSA P-384 or RSA key")


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from the next; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size

"""What clients will hold against a certificate, and what the operator can do about it.

Two ways lead to a client's trust, with demands of their own. A certificate that an authority signed is
checked by name, purpose and chain (RFC 5280, RFC 9110 section 4.3.4). A self-signed one is taken by browsers
by its hash only (``serverCertificateHashes``), and then must be X.509v3, for an ECDSA P-256 key, and valid
for at most 14 days (W3C WebTransport, "custom certificate requirements"); how long an authority's is valid is
that authority's business.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

SOON = timedelta(days=1)
"""Time before its end from which a certificate is complained about."""

PINNED_AT_MOST = timedelta(days=14)
"""Longest life that browsers allow a certificate that is pinned by its hash."""

MAKE_ONE = "`vmrelay certs generate DIR` makes one that they take, or use one of an authority"

_WEAK_HASHES = (hashes.MD5, hashes.SHA1)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class CheckedCertificate(Protocol):
    """What is looked at of a certificate; implemented by ``transport.certificates.Certificate``."""

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The server's certificate first, each followed by its issuer's."""

    @property
    def private_key(self) -> PrivateKey:
        """The server's key."""

    @property
    def leaf(self) -> x509.Certificate:
        """The server's certificate."""

    @property
    def not_before(self) -> datetime:
        """Start of the validity, UTC."""

    @property
    def not_after(self) -> datetime:
        """End of the validity, UTC."""

    @property
    def is_self_signed(self) -> bool:
        """Whether no authority stands for it."""


def problems(certificate: CheckedCertificate, now: datetime) -> tuple[str, ...]:
    """Say what clients will hold against this certificate at ``now`` (aware), one line each."""
    try:
        found = _problems(certificate)
        return (*_of_time(certificate, now), *found)
    except (ValueError, UnsupportedAlgorithm):
        return ("the certificate has extensions that cannot be read: clients will refuse it",)


def obstacles_to_pinning(certificate: CheckedCertificate) -> tuple[str, ...]:
    """Say why browsers do not take the certificate by its hash; nothing if they do."""
    key, life = certificate.private_key, certificate.not_after - certificate.not_before
    found = []
    if isinstance(key, rsa.RSAPrivateKey):
        found.append("its key is RSA, not ECDSA P-256")
    elif not isinstance(key.curve, ec.SECP256R1):
        found.append(f"its key is for the curve {key.curve.name}, not P-256")
    if life > PINNED_AT_MOST:
        found.append(
            f"it is valid for {life / timedelta(days=1):.4g} days, not at most {PINNED_AT_MOST.days}"
        )
    if certificate.leaf.version is not x509.Version.v3:
        found.append("it is no X.509v3 certificate")
    return tuple(found)


def _problems(certificate: CheckedCertificate) -> Iterator[str]:
    names = _extension(certificate.leaf, x509.SubjectAlternativeName)
    if names is None or not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        yield (
            "the certificate names no host in a subjectAltName, and clients ignore its subject: those that "
            f"do not pin its hash will refuse it; {MAKE_ONE}"
        )
    if certificate.is_self_signed:
        obstacles = obstacles_to_pinning(certificate)
        if obstacles:
            yield (
                "the certificate is self-signed, and browsers will not take it by its hash: "
                f"{' and '.join(obstacles)}; {MAKE_ONE}"
            )
    else:
        yield from _of_an_authority(certificate)


def _of_an_authority(certificate: CheckedCertificate) -> Iterator[str]:
    leaf = certificate.leaf
    if isinstance(leaf.signature_hash_algorithm, _WEAK_HASHES):
        weak = leaf.signature_hash_algorithm.name.upper()
        yield f"the certificate is signed with {weak}: clients will refuse it; have it issued with SHA-256"
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and not {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    } & set(usage):
        yield "the certificate is not for servers (extendedKeyUsage without serverAuth): clients refuse it"
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        yield "the certificate is that of an authority itself: have it issue one for this server"
    yield from _of_the_chain(certificate.chain)


def _of_the_chain(chain: tuple[x509.Certificate, ...]) -> Iterator[str]:
    for number, (lower, upper) in enumerate(pairwise(chain), start=1):
        if lower.issuer != upper.subject:
            yield (
                f"certificate {number + 1} of the file is not the issuer of number {number}: clients may "
                "refuse the chain; the server's own comes first, and each is followed by its issuer's"
            )
            return
    access = _extension(chain[0], x509.AuthorityInformationAccess)
    if len(chain) == 1 and access is not None:
        issuers = [item for item in access if item.access_method == AuthorityInformationAccessOID.CA_ISSUERS]
        if issuers:
            yield (
                "the file has the server's certificate only, and not the authority's intermediate ones: many "
                "clients will refuse it; use the full chain (certbot's fullchain.pem)"
            )


def _of_time(certificate: CheckedCertificate, now: datetime) -> Iterator[str]:
    end, start = certificate.not_after, certificate.not_before
    if now >= end:
        yield (
            f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC: clients will refuse it; renew the files, "
            "and they are read again"
        )
    elif now < start:
        yield (
            f"the certificate is not valid before {start:%Y-%m-%d %H:%M} UTC: clients will refuse it; "
            "look at this machine's clock"
        )
    elif end - now <= SOON:
        yield (
            f"the certificate expires on {end:%Y-%m-%d %H:%M} UTC, within a day; renew the files, "
            "and they are read again"
        )
    for number, issuer in enumerate(certificate.chain[1:], start=2):
        if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
            yield (
                f"certificate {number} of the chain is valid from {issuer.not_valid_before_utc:%Y-%m-%d} to "
                f"{issuer.not_valid_after_utc:%Y-%m-%d} only: clients may refuse the chain"
            )


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

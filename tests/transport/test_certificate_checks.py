from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from transport.certificate_checks import obstacles_to_pinning
from transport.certificates import Certificate, CertificateError, generate, load

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())

NAMES = x509.SubjectAlternativeName(
    [x509.DNSName("relay.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
)
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
INTERMEDIATE_AT = x509.AuthorityInformationAccess(
    [
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://ca.example/1.der"),
        )
    ]
)
MAIL = x509.SubjectAlternativeName([x509.RFC822Name("admin@relay.example")])


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(
    key=P256,
    *extensions,
    subject="relay.example",
    issuer="An Authority",
    signer=AUTHORITY_KEY,
    life=timedelta(days=90),
    start=NOW - timedelta(days=1),
    algorithm=None,
):
    builder = x509.CertificateBuilder(
        issuer_name=name(issuer),
        subject_name=name(subject),
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=start,
        not_valid_after=start + life,
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, algorithm or hashes.SHA256())


def self_signed(key=P256, *extensions, **options):
    leaf = signed(key, *extensions, issuer="relay.example", signer=key, **options)
    return Certificate((leaf,), key)


AUTHORITY = signed(AUTHORITY_KEY, subject="An Authority", life=timedelta(days=3650))


def of_authority(key=P256, *extensions, chain=(AUTHORITY,), **options):
    return Certificate((signed(key, *extensions, **options), *chain), key)


# -- what is well -------------------------------------------------------------------------------------

WELL = {
    "the relay's own": lambda: generate(["relay.example"], NOW),
    "self-signed for 14 days": lambda: self_signed(P256, NAMES, life=timedelta(days=14)),
    "an authority's for 90 days": lambda: of_authority(P256, NAMES, SERVER),
    "an authority's for 13 months": lambda: of_authority(P256, NAMES, life=timedelta(days=397)),
    "an authority's with RSA": lambda: of_authority(RSA, NAMES),
    "an authority's with P-384": lambda: of_authority(P384, NAMES),
    "an authority's with intermediate": lambda: of_authority(P256, NAMES, INTERMEDIATE_AT),
    "a private authority's, which has no intermediate": lambda: of_authority(P256, NAMES, chain=()),
    "an authority's of the server's own name": lambda: of_authority(
        RSA, NAMES, issuer="relay.example", chain=()
    ),
}


@pytest.mark.parametrize("case", WELL)
def test_what_clients_take_is_not_complained_about(case):
    assert WELL[case]().complaints(NOW) == ()


# -- what is not --------------------------------------------------------------------------------------

WRONG = {
    "self-signed with RSA": (
        lambda: self_signed(RSA, NAMES, life=timedelta(days=10)),
        "self-signed, and browsers will not take it by its hash: its key is RSA, not ECDSA P-256; ",
    ),
    "self-signed with P-384": (
        lambda: self_signed(P384, NAMES, life=timedelta(days=10)),
        "its key is for the curve secp384r1, not P-256; ",
    ),
    "self-signed for a year": (
        lambda: self_signed(P256, NAMES, life=timedelta(days=365)),
        "it is valid for 365 days, not at most 14; `vmrelay certs generate DIR` makes one that they take",
    ),
    "self-signed for a second too long": (
        lambda: self_signed(P256, NAMES, life=timedelta(days=14, seconds=600)),
        "it is valid for 14.01 days, not at most 14; ",
    ),
    "self-signed without a name": (
        lambda: self_signed(P256, life=timedelta(days=10)),
        "names no host in a subjectAltName",
    ),
    "self-signed by openssl's defaults": (
        lambda: self_signed(RSA, NAMES, life=timedelta(days=30)),
        "its key is RSA, not ECDSA P-256 and it is valid for 30 days, not at most 14; ",
    ),
    "an authority's without a name": (
        lambda: of_authority(P256, SERVER),
        "names no host in a subjectAltName",
    ),
    "a mail address for a name": (lambda: of_authority(P256, MAIL), "names no host in a subjectAltName"),
    "for clients": (lambda: of_authority(P256, NAMES, CLIENT), "is not for servers"),
    "the authority's own": (
        lambda: of_authority(P256, NAMES, x509.BasicConstraints(ca=True, path_length=None)),
        "that of an authority itself",
    ),
    "the leaf alone": (
        lambda: of_authority(P256, NAMES, INTERMEDIATE_AT, chain=()),
        "use the full chain (certbot's fullchain.pem)",
    ),
    "a chain of something else": (
        lambda: of_authority(P256, NAMES, issuer="Another Authority"),
        "certificate 2 of the file is not the issuer of number 1",
    ),
    "an authority that has ended": (
        lambda: of_authority(
            P256,
            NAMES,
            chain=(signed(subject="An Authority", start=NOW - timedelta(days=99), life=timedelta(days=9)),),
        ),
        "certificate 2 of the chain is valid from 2029-09-25 to 2029-10-04 only",
    ),
    "expired": (
        lambda: of_authority(P256, NAMES, start=NOW - timedelta(days=90)),
        "expired on 2030-01-02 03:04 UTC: clients will refuse it; renew the files",
    ),
    "not yet valid": (
        lambda: of_authority(P256, NAMES, start=NOW + timedelta(hours=1)),
        "is not valid before 2030-01-02 04:04 UTC: clients will refuse it; look at this machine's clock",
    ),
    "ends soon": (
        lambda: of_authority(P256, NAMES, start=NOW - timedelta(days=89)),
        "expires on 2030-01-03 03:04 UTC, within a day; renew the files",
    ),
    "self-signed and ends soon": (
        lambda: self_signed(P256, NAMES, start=NOW - timedelta(days=9.5), life=timedelta(days=10)),
        "expires on 2030-01-02 15:04 UTC, within a day; renew the files",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_clients_refuse_is_one_complaint_that_says_what_to_do(case):
    make, said = WRONG[case]
    [complaint] = make().complaints(NOW)
    assert complaint.startswith(("the certificate", "certificate", "the file has"))
    assert said in complaint
    assert "\n" not in complaint


def test_a_certificate_of_the_first_version_cannot_be_pinned():
    leaf = self_signed(P256, life=timedelta(days=10)).leaf

    class OfTheFirstVersion:
        """As openssl makes them without extensions; cryptography only reads them."""

        version = x509.Version.v1
        not_valid_before_utc, not_valid_after_utc = leaf.not_valid_before_utc, leaf.not_valid_after_utc

    assert obstacles_to_pinning(Certificate((leaf,), P256)) == ()
    old: Any = OfTheFirstVersion()
    assert obstacles_to_pinning(Certificate((old,), P256)) == ("it is no X.509v3 certificate",)


def test_several_problems_are_several_complaints():
    certificate = self_signed(RSA, start=NOW - timedelta(days=365), life=timedelta(days=364))
    expired, nameless, not_pinned = certificate.complaints(NOW)
    assert "expired on" in expired
    assert "names no host" in nameless
    assert "its key is RSA" in not_pinned


def test_who_signed_tells_an_authority_from_a_server_and_not_the_names():
    assert self_signed().is_self_signed
    assert not of_authority().is_self_signed
    assert not of_authority(issuer="relay.example", chain=()).is_self_signed
    assert not of_authority(issuer="relay.example", chain=(), life=timedelta(days=5)).can_be_pinned


def test_a_chain_in_the_wrong_order_is_refused_with_what_is_wrong(tmp_path):
    chain = of_authority(P256, NAMES).chain
    backwards = Certificate(tuple(reversed(chain)), P256)
    (tmp_path / "chain.pem").write_bytes(backwards.chain_pem())
    (tmp_path / "key.pem").write_bytes(backwards.private_key_pem())
    with pytest.raises(CertificateError, match="but to number 2: the server's own must come first"):
        load(tmp_path / "chain.pem", tmp_path / "key.pem")

"""Tokens and the keys that they are checked by."""

from __future__ import annotations

import hmac
import itertools
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from relay.token_claims import Pass, TokenError
from relay.tokens import (
    LEEWAY,
    MAX_TOKEN,
    KeysError,
    load_keys,
    make_key,
    public_half,
    sign,
)

NOW = 1_800_000_000.0
CLAIMS = {"exp": NOW + 60, "room": "lab", "name": "web", "jti": "t1"}
SECRET, PAIR = make_key("HS256"), make_key("EdDSA")


def text(data):
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def load(tmp_path):
    def write(*entries, revoked=None):
        file = tmp_path / "keys.json"
        file.write_text(json.dumps({"keys": entries}))
        if revoked is None:
            return load_keys(file)
        (tmp_path / "revoked").write_text(revoked)
        return load_keys(file, tmp_path / "revoked")

    return write


@pytest.mark.parametrize("key", [SECRET, PAIR], ids=["HS256", "EdDSA"])
def test_what_was_signed_is_read(load, key):
    keys = load(public_half(key))
    assert keys.read(sign(key, CLAIMS), NOW) == Pass(NOW + 60, "lab", "web", "t1")
    assert keys.read(sign(key, {"exp": NOW + 60}), NOW) == Pass(NOW + 60)


def test_other_makers_tokens_are_read(load):
    """Python's own and Node's jsonwebtoken make nothing else."""
    token = jwt.encode(CLAIMS, "k" * 32, algorithm="HS256", headers={"kid": "shared"})
    keys = load({"kty": "oct", "kid": "shared", "k": text(b"k" * 32)})
    assert keys.read(token, NOW).room == "lab"


@pytest.mark.parametrize("scrap", [b"[" * 3000, b'{"kid":' + b"[" * 2900, b'{"alg":' * 400])
def test_a_header_nested_too_deeply_is_refused_as_any_scrap_is(load, scrap):
    token = f"{text(scrap)}.e30."
    assert len(token) <= MAX_TOKEN
    with pytest.raises(TokenError, match="signed for this relay"):
        load(PAIR).read(token, NOW)


def test_a_token_with_a_critical_header_that_nobody_understands_is_refused(load):
    """RFC 7515 section 4.1.11."""
    secret = load(SECRET).by_id[SECRET["kid"]].key
    headers = {"kid": SECRET["kid"], "crit": ["bound-to"], "bound-to": "192.0.2.1"}
    token = jwt.encode(CLAIMS, secret, algorithm="HS256", headers=headers)
    with pytest.raises(TokenError, match="signed for this relay"):
        load(SECRET).read(token, NOW)


@pytest.mark.parametrize("claims", [{"sub": 42}, {"iss": ["a", "b"]}, {"iat": "today"}])
def test_claims_that_are_for_others_may_be_anything(load, claims):
    """Many issuers have numbers for their users, which RFC 7519 does not allow them in ``sub``."""
    secret = load(SECRET).by_id[SECRET["kid"]].key
    head, payload = ({"alg": "HS256", "kid": SECRET["kid"]}, CLAIMS | claims)
    signed = ".".join(text(json.dumps(part).encode()) for part in (head, payload))
    signature = hmac.digest(secret, signed.encode(), "sha256")
    assert load(SECRET).read(f"{signed}.{text(signature)}", NOW) == load(SECRET).read(
        sign(SECRET, CLAIMS), NOW
    )


def test_there_may_be_an_old_and_a_new_key(load):
    keys = load(SECRET, public_half(PAIR))
    assert keys.read(sign(SECRET, CLAIMS), NOW) == keys.read(sign(PAIR, CLAIMS), NOW)
    with pytest.raises(TokenError, match="key is not known"):
        load(SECRET).read(sign(PAIR, CLAIMS), NOW)


@pytest.mark.parametrize(
    ("claims", "complaint"),
    [
        ({}, "until when"),
        ({"exp": "tomorrow"}, "until when"),
        ({"exp": True}, "until when"),
        ({"exp": 1e300}, "until when"),
        ({"exp": NOW - LEEWAY - 1}, "has expired"),
        ({"exp": NOW + 60, "nbf": NOW + LEEWAY + 1}, "does not hold yet"),
        ({"exp": NOW + 60, "nbf": "later"}, "until when"),
        ({"exp": NOW + 60, "room": "No Room"}, "room is none"),
        ({"exp": NOW + 60, "room": ["lab"]}, "room is none"),
        ({"exp": NOW + 60, "name": 7}, "claims"),
        ({"exp": NOW + 60, "jti": 7}, "claims"),
        ({"exp": NOW + 60, "name": "x" * 300}, "claims"),
    ],
)
def test_claims_that_are_not_accepted(load, claims, complaint):
    with pytest.raises(TokenError, match=complaint):
        load(SECRET).read(sign(SECRET, claims), NOW)


@pytest.mark.parametrize(("exp", "nbf"), [(NOW - LEEWAY + 1, NOW), (NOW + 9, NOW + LEEWAY)])
def test_clocks_may_differ_a_little(load, exp, nbf):
    assert load(SECRET).read(sign(SECRET, {"exp": exp, "nbf": nbf}), NOW).expires == exp


def with_other_header(token, **header):
    _, claims, signature = token.split(".")
    return f"{text(json.dumps(header).encode())}.{claims}.{signature}"


def forged():
    token = sign(SECRET, CLAIMS)
    head, claims, signature = token.split(".")
    changed = text(json.dumps({**CLAIMS, "room": "other"}).encode())
    yield "claims changed", f"{head}.{changed}.{signature}"
    yield "signature cut", f"{head}.{claims}.{signature[:-4]}"
    yield "no signature", f"{head}.{claims}."
    yield "alg none", f"{text(json.dumps({'alg': 'none', 'kid': SECRET['kid']}).encode())}.{claims}."
    yield "another alg", jwt.encode(CLAIMS, "x" * 64, algorithm="HS512", headers={"kid": SECRET["kid"]})
    # The public half of a pair as if it were a secret: the classic confusion of algorithms.
    public = text(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    yield (
        "public key as secret",
        jwt.encode(CLAIMS, PAIR["x"] + public, algorithm="HS256", headers={"kid": PAIR["kid"]}),
    )
    yield "no kid", jwt.encode(CLAIMS, "k" * 32, algorithm="HS256")
    yield "kid of another kind", with_other_header(token, alg="HS256", kid=[SECRET["kid"]])
    yield "nothing", ""
    yield "dots", ".."
    yield "not text", "\udcff.a.b"
    yield "no ASCII", "é.é.é"
    yield "long", "a" * (MAX_TOKEN + 1)


@pytest.mark.parametrize(("what", "token"), list(forged()), ids=[what for what, _ in forged()])
def test_what_nobody_signed_is_refused_in_one_sentence_without_it(load, what, token):
    with pytest.raises(TokenError) as refused:
        load(SECRET, public_half(PAIR)).read(token, NOW)
    assert "\n" not in str(refused.value)
    assert not token or token not in str(refused.value)


@pytest.mark.parametrize("revoked", ["t0\nt1\n", "\ufefft1\r\nt0\r\n"], ids=["plain", "of a Windows editor"])
def test_a_revoked_token_is_refused(load, revoked):
    keys = load(SECRET, revoked=revoked)
    with pytest.raises(TokenError, match="revoked"):
        keys.read(sign(SECRET, CLAIMS), NOW)
    assert keys.read(sign(SECRET, {**CLAIMS, "jti": "t2"}), NOW).id == "t2"


RSA = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(generate_private_key(65537, 2048).public_key()))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not a JWK Set"),
        ("[]", "not a JWK Set"),
        ("{}", "not a JWK Set"),
        ('{"keys": 1}', "not a JWK Set"),
        ('{"keys": ["a"]}', "not a JWK Set"),
        ("[" * 100_000, "not a JWK Set"),
        ('{"keys": []}', "there is no key"),
        (json.dumps({"keys": [{**SECRET, "kid": None}]}), "needs a kid"),
        (json.dumps({"keys": [{**SECRET, "k": "c2hvcnQ"}]}), "less than 32 bytes"),
        (json.dumps({"keys": [{**SECRET, "alg": "HS512"}]}), "for another algorithm"),
        (json.dumps({"keys": [{**RSA, "kid": "r"}]}), "for another algorithm"),
        (json.dumps({"keys": [{**PAIR, "crv": "Ed448"}]}), "for another algorithm"),
        (json.dumps({"keys": [SECRET, SECRET]}), "same kid"),
        ("x" * (2 << 20), "larger than"),
    ],
    ids=itertools.count(),
)
def test_a_file_that_is_no_set_of_keys_is_one_line(tmp_path, content, complaint):
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(KeysError, match=complaint) as refused:
        load_keys(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET["k"] not in str(refused.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(KeysError, match="No such file"):
        load_keys(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KeysError, match="not a text file"):
        load_keys(tmp_path / "binary")


def test_the_public_half_does_not_sign():
    with pytest.raises(ValueError, match="cannot sign"):
        sign(public_half(PAIR), CLAIMS)

"""Tokens that let a client in: JSON Web Tokens (RFC 7519), signed by a key that the operator has.

The keys are a file, a JWK Set (RFC 7517): ``oct`` keys for HS256, which relay and issuer share, and Ed25519
ones for EdDSA (RFC 8037), of which the relay needs the public half only. A token names its key by ``kid``, so
that there can be an old and a new one while they are changed. The algorithm is the key's, never the token's.

A token holds until ``exp``, which there must be, and from ``nbf`` on; ``relay.token_claims`` has the others.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from relay.token_claims import TokenError, read_claims

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from relay.token_claims import Pass

ALGORITHMS = {"oct": "HS256", "OKP": "EdDSA"}
"""By the key's type; no other is taken."""
MIN_SECRET = 32
"""Bytes of an HS256 key: RFC 7518 section 3.2."""
LEEWAY = 5.0
"""Seconds by which the clocks of relay and issuer may differ."""
MAX_TOKEN = 4096
"""Characters that are looked at."""
MAX_TIME = 1e11
"""Seconds since 1970, some 3,000 years."""
MAX_FILE = 1 << 20
MAX_REVOKED = 100_000

_KID = re.compile(r"[\x21-\x7e]{1,128}")


class KeysError(Exception):
    """A file of keys or of revoked tokens cannot be used; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class _Key:
    algorithm: str
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """What tokens are checked by."""

    by_id: Mapping[str, _Key]
    revoked: frozenset[str] = field(default_factory=frozenset)

    def have(self, key: object) -> bool:
        """Whether a key is one of these."""
        return key in self.by_id.values()

    def read(self, token: str, now: float) -> Pass:
        """Check a token at ``now`` (Unix time). Raises TokenError."""
        try:
            if len(token) > MAX_TOKEN:
                raise TokenError("The token is too long.")
            key = self.by_id.get(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                raise TokenError("The token's key is not known here.")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                # Claims are read below, the times by the clock of the caller; some are for others to read.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("The token is not one that was signed for this relay.") from None
        return replace(self._check(claims, now), key=key)

    def _check(self, claims: Mapping[str, Any], now: float) -> Pass:
        expires, begins = _time(claims.get("exp")), _time(claims.get("nbf", 0))
        if expires is None or begins is None:
            raise TokenError("The token does not say until when it holds.")
        if expires <= now - LEEWAY:
            raise TokenError("The token has expired.")
        if begins > now + LEEWAY:
            raise TokenError("The token does not hold yet.")
        found = read_claims(claims, expires)
        if found.id and found.id in self.revoked:
            raise TokenError("The token has been revoked.")
        return found


def _time(value: object) -> float | None:
    """Read a NumericDate; None for what is none, or further away than any life."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < MAX_TIME else None


def load_keys(path: Path, revoked: Path | None = None) -> Keys:
    """Read a JWK Set, and a file with the ``jti`` of a revoked token in each line. Raises KeysError."""
    _, keys = _read_set(path)
    lines = [] if revoked is None else _read(revoked).split()
    if len(lines) > MAX_REVOKED:
        raise KeysError(f"{revoked}: more than {MAX_REVOKED} tokens; leave out those that have expired")
    return Keys({kid: _half_for_checks(key) for kid, key in keys.items()}, frozenset(lines))


def _half_for_checks(key: _Key) -> _Key:
    """Leave the private half out, of which no two are equal."""
    return replace(key, key=key.key.public_key()) if isinstance(key.key, Ed25519PrivateKey) else key


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Read the keys of a JWK Set as they stand there, if all can be used. Raises KeysError."""
    return _read_set(path)[0]


def _read_set(path: Path) -> tuple[list[dict[str, Any]], dict[str, _Key]]:
    found = _read(path)
    try:
        entries: list[dict[str, Any]] = json.loads(found)["keys"]
        keys = dict(map(_read_key, entries))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        why = f": {error}" if type(error) is ValueError else ""
        raise KeysError(f"{path}: not a JWK Set with keys for HS256 or EdDSA{why}") from None
    if not keys:
        raise KeysError(f"{path}: there is no key in it")
    if len(keys) < len(entries):
        raise KeysError(f"{path}: two keys have the same kid")
    return entries, keys


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise KeysError(f"{path}: larger than {MAX_FILE} bytes")
        # With a mark ahead of it, as Windows editors write, the first id would be that of no token.
        return data.decode("utf-8-sig")
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: not a text file") from None


def _read_key(entry: Mapping[str, Any]) -> tuple[str, _Key]:
    kid, kind = entry.get("kid"), entry.get("kty")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise ValueError("each key needs a kid")
    algorithm = ALGORITHMS.get(str(kind))
    curve_fits = entry.get("crv") in (None, "Ed25519")
    if algorithm is None or entry.get("alg", algorithm) != algorithm or not curve_fits:
        raise ValueError(f"key {kid[:40]!r} is for another algorithm")
    key = jwt.PyJWK.from_dict(dict(entry), algorithm).key
    if kind == "oct" and len(key) < MIN_SECRET:
        raise ValueError(f"key {kid[:40]!r} has less than {MIN_SECRET} bytes")
    return kid, _Key(algorithm, key)


def make_key(algorithm: str) -> dict[str, str]:
    """Make a key, as a JWK that can sign."""
    kid = f"{time.strftime('%Y-%m-%d', time.gmtime())}-{secrets.token_hex(4)}"
    if algorithm == "HS256":
        return {"kty": "oct", "kid": kid, "alg": algorithm, "k": _text(secrets.token_bytes(MIN_SECRET))}
    key = Ed25519PrivateKey.generate()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": kid,
        "alg": "EdDSA",
        "x": _text(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
        "d": _text(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())),
    }


def public_half(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JWK as a relay needs it; of a secret there is no other half."""
    return {name: value for name, value in entry.items() if name != "d"}


def sign(entry: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Make a token, signed with a JWK. Raises ValueError if the key cannot sign."""
    kid, key = _read_key(entry)
    if entry["kty"] == "OKP" and "d" not in entry:
        raise ValueError(f"key {kid[:40]!r} is the public half, which cannot sign")
    return jwt.encode(dict(claims), key.key, algorithm=key.algorithm, headers={"kid": kid})


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

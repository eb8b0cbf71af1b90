"""A session's terms as one worker tells them another of its machine (``relay.carrying``): JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from actors.port_policy import Guard, PortPolicy, Role
from actors.ports import SessionTerms
from netstack.malformed import MalformedPacket


def pack_terms(path: str, terms: SessionTerms) -> bytes:
    """Pack a session's path and terms."""
    policy = None
    if terms.policy is not None:
        policy = asdict(terms.policy)
        policy["guards"], policy["role"] = terms.policy.guards.value, terms.policy.role.value
        policy["own"] = sorted(terms.policy.own)
        if terms.policy.macs is not None:
            policy["macs"] = sorted(mac.hex() for mac in terms.policy.macs)
    expires = None if math.isinf(terms.expires) else terms.expires
    told = {"path": path, "name": terms.name, "token": terms.token, "expires": expires, "policy": policy}
    return json.dumps(told).encode()


def read_terms(packed: bytes) -> tuple[str, SessionTerms]:
    """Undo :func:`pack_terms`: the session's path, and the terms. Raises MalformedPacket."""
    try:
        told: dict[str, Any] = json.loads(packed)
        expires, policy = told["expires"], told["policy"]
        if policy is not None:
            macs = policy["macs"]
            policy["macs"] = None if macs is None else frozenset(map(bytes.fromhex, macs))
            policy["guards"], policy["role"] = Guard(policy["guards"]), Role(policy["role"])
            policy["own"] = frozenset(policy["own"]).intersection(policy)
            policy = PortPolicy(**policy)
        expires = math.inf if expires is None else float(expires)
        return str(told["path"]), SessionTerms(str(told["name"]), expires, policy, str(told["token"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise MalformedPacket("bad_room_message") from None

"""What a token says of its session: the claims that this relay knows, checked.

``room``, the one room that it is for, else any; ``name``, the host name that its guest gets; ``mac``, the
MACs that its session may use; ``limits``, in place of the room's; ``rights``, what its session may beyond the
plainest; ``jti``, by which it can be revoked; ``aud``, whom it is for. Claims of other names are for others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netstack.control import MAX_NAME_LENGTH, encodable
from netstack.dns_zone import RESERVED_NAMES, clean_label
from netstack.ethernet import is_station, parse_mac
from netstack.room_names import ROOM_NAME
from relay.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS = {
    name.replace("_", "-"): name
    for name in ("bit_rate", "packet_rate", "max_flows", "flow_rate", "max_half_open")
}
"""Settings of a room that a token may have for its session, as they are written, and their names."""

BRIDGE, FORWARD, ADMIN = RIGHTS = ("bridge", "forward", "admin")
"""More than one MAC; being reached through forwards; the admin API, which asks for this one."""
USUAL_RIGHTS = frozenset({BRIDGE, FORWARD})
"""What a session without a token may, and one whose token does not speak of rights."""

NOT_FOR_GUESTS = RESERVED_NAMES | {""}
"""What ``clean_label`` may make of a name that cannot be kept."""

MAX_MACS = 16
"""MACs that a token may name: as many as the gateway gives addresses to, of one session."""
MAX_RIGHTS = 16


class TokenError(Exception):
    """A token is not accepted; the message is a sentence for the client, and holds nothing of the token."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a token that is accepted says."""

    expires: float
    """Unix time."""
    room: str | None = None
    """The one room that it is for; None for all."""
    name: str = ""
    """The guest's host name; empty leaves it to the client."""
    id: str = ""
    macs: frozenset[bytes] | None = None
    """MACs that the session may use, 6 bytes each; None for any."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """By the names of settings; what is not named is as in the room."""
    rights: frozenset[str] = USUAL_RIGHTS
    key: object = field(default=None, compare=False, repr=False)
    """What its signature was checked by."""


AUDIENCE = "vmrelay"
"""What ``aud`` says, where a token has it: whoever is not named must refuse it (RFC 7519, section 4.1.3)."""


def read_claims(claims: Mapping[str, Any], expires: float) -> Pass:
    """Read all but the times. Raises TokenError."""
    room, name, identifier = claims.get("room"), claims.get("name", ""), claims.get("jti", "")
    if room is not None and not (isinstance(room, str) and ROOM_NAME.fullmatch(room)):
        raise TokenError("The token's room is none.")
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not isinstance(identifier, str):
        raise TokenError("The token's claims are not as they should be.")
    if name and clean_label(name) in NOT_FOR_GUESTS:
        raise TokenError("The token's name is none that a guest can have.")
    if identifier and identifier.split() != [identifier]:
        raise TokenError("The token's jti has white space in it, so nobody could revoke it.")
    audience = claims.get("aud", AUDIENCE)
    if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError(f"The token is not for {AUDIENCE}: its aud names others.")
    return Pass(
        expires,
        room,
        encodable(name),
        encodable(identifier),
        _macs(claims.get("mac")),
        _limits(claims.get("limits", {})),
        _rights(claims.get("rights")),
    )


def _macs(said: object) -> frozenset[bytes] | None:
    """Read one MAC, or a list of them."""
    if said is None:
        return None
    texts = said if isinstance(said, list) else [said]
    try:
        macs = frozenset(map(parse_mac, texts))
    except (ValueError, TypeError, AttributeError):
        macs = frozenset()
    if not macs or len(macs) > MAX_MACS or not all(map(is_station, macs)):
        raise TokenError(f"The token's mac is not a MAC address, or a list of up to {MAX_MACS}.")
    return macs


def _limits(said: object) -> dict[str, int]:
    """Read limits as a configuration file has them. One that is not known is none that could be kept."""
    try:
        return {LIMITS[key]: _limit(LIMITS[key], value) for key, value in said.items()}  # type: ignore[attr-defined]
    except (AttributeError, KeyError, ValueError):
        known = ", ".join(LIMITS)
        raise TokenError(f"The token's limits are not such as the relay keeps: {known}.") from None


def _limit(name: str, value: object) -> int:
    text = str(value) if type(value) in (int, str) else ""
    limit: int = OPTIONS[name].kind.parse(text)
    return limit


def _rights(said: object) -> frozenset[str]:
    """Read a list of rights. One that is not known gives nothing."""
    if said is None:
        return USUAL_RIGHTS
    if not isinstance(said, list) or len(said) > MAX_RIGHTS or not all(isinstance(it, str) for it in said):
        raise TokenError("The token's rights are no list of words.")
    return frozenset(said) & frozenset(RIGHTS)

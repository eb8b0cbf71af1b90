"""``vmrelay token``: keys, and tokens that they sign, for relays with ``--auth``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from netstack.dns_zone import RESERVED_NAMES, clean_label
from netstack.ethernet import format_mac, is_station, parse_mac
from netstack.room_names import NAME_RULE, ROOM_NAME
from relay.admin import client
from relay.complaint import complain
from relay.revocations import TOKEN_ID
from relay.setting_kinds import parse_duration
from relay.settings import OPTIONS
from relay.token_claims import ADMIN, BRIDGE, FORWARD, LIMITS, MAX_MACS, RIGHTS, TokenError, read_claims
from relay.tokens import (
    ALGORITHMS,
    MAX_FILE,
    KeysError,
    load_keys,
    make_key,
    public_half,
    read_entries,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NO_RIGHTS = "none"
MAX_LIFE = 10 * 366 * 86_400


def _duration(text: str) -> int:
    try:
        seconds = int(parse_duration(text))
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_LIFE:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time of up to ten years, such as 12h or 30d")
    return seconds


def _room(text: str) -> str:
    if not ROOM_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:70]!r}: {NAME_RULE}")
    return text


def _host_name(text: str) -> str:
    label = clean_label(text)
    if not label or label in RESERVED_NAMES:
        raise argparse.ArgumentTypeError(f"{text[:70]!r} is no name that a guest can have")
    return label


def _mac(text: str) -> str:
    try:
        mac = parse_mac(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not is_station(mac):
        raise argparse.ArgumentTypeError(f"{text!r} is no MAC that a guest can have")
    return format_mac(mac)


def _identifier(text: str) -> str:
    if not TOKEN_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("a token's id has 1 to 200 visible ASCII characters")
    return text


def _limit(name: str) -> Callable[[str], int | str]:
    def parse(text: str) -> int | str:
        try:
            OPTIONS[name].kind.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, not {text[:80]!r}") from None
        return int(text) if text.isdecimal() else text

    return parse


def _rights(text: str) -> list[str]:
    words = [word for word in text.split(",") if word]
    if text == NO_RIGHTS:
        return []
    if not words or not set(words) <= set(RIGHTS):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not {NO_RIGHTS}, or some of {', '.join(RIGHTS)}")
    return words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay token``."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    key = actions.add_parser(
        "key",
        help="make a key, or add one to those in a file",
        description="Make a key that signs tokens, in a JWK Set that only you can read. A file that is there "
        "gets one more, and whoever may read it still can: tokens are signed with the last, and the relay "
        "takes those of all.",
        allow_abbrev=False,
    )
    key.add_argument("file", metavar="FILE", type=Path)
    key.add_argument(
        "--algorithm",
        choices=tuple(ALGORITHMS.values()),
        default="EdDSA",
        help="EdDSA (default; the relay needs the public half only), or HS256 (a secret that both have)",
    )
    key.add_argument("--json", action="store_true", help="print as JSON")
    public = actions.add_parser(
        "public",
        help="print the keys as a relay needs them",
        description="Print the JWK Set without what signs: of EdDSA keys the public half.",
        allow_abbrev=False,
    )
    public.add_argument("file", metavar="FILE", type=Path)
    create = actions.add_parser(
        "create",
        help="make a token",
        description="Print a token, signed with the last key of the file; clients put it behind ?token=.",
        allow_abbrev=False,
    )
    create.add_argument("file", metavar="FILE", type=Path, help="keys, as 'vmrelay token key' makes them")
    create.add_argument(
        "--room", type=_room, metavar="ROOM", help="the one room that it is for (default: all)"
    )
    create.add_argument(
        "--expires",
        type=_duration,
        default=_duration("1d"),
        metavar="TIME",
        help="how long it holds, such as 30m, 12h or 30d (default: 1d); its sessions end then, too",
    )
    create.add_argument("--name", type=_host_name, metavar="NAME", help="host name that its guest gets")
    create.add_argument(
        "--mac",
        type=_mac,
        action="append",
        metavar="MAC",
        help=f"a MAC that its session may use (default: any); repeat, up to {MAX_MACS} times",
    )
    for flag, name in LIMITS.items():
        create.add_argument(
            f"--{flag}",
            type=_limit(name),
            metavar="N",
            help=f"in place of the room's limit: {OPTIONS[name].help}",
        )
    create.add_argument(
        "--rights",
        type=_rights,
        metavar="LIST",
        help=f"{NO_RIGHTS}, or a comma list of {BRIDGE} (more than one MAC), {FORWARD} (being reached by "
        f"forwards) and {ADMIN} (default: {BRIDGE} and {FORWARD}, as without a token)",
    )
    create.add_argument(
        "--id",
        type=_identifier,
        metavar="ID",
        help="its jti, by which it can be revoked (default: a random one)",
    )
    create.add_argument("--json", action="store_true", help="print the token, its id and its end as JSON")
    revoke = actions.add_parser(
        "revoke",
        help="have a running relay refuse a token for good",
        description="Revoke a token: its sessions end now, and the relay keeps its id.",
        allow_abbrev=False,
    )
    revoke.add_argument(
        "text",
        metavar="ID",
        help="its jti, which 'vmrelay token show' prints, or the token; - reads it from standard input",
    )
    revoke.add_argument("--json", action="store_true", help="print as JSON")
    client.add_arguments(revoke)
    show = actions.add_parser(
        "show",
        help="print what a token says",
        description="Print a token's claims; with --keys also whether it is accepted at this moment.",
        allow_abbrev=False,
    )
    show.add_argument("text", metavar="TOKEN", help="the token; - reads it from the standard input")
    show.add_argument("--keys", metavar="FILE", type=Path, help="check it by these keys")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; return the exit status."""
    actions = {
        "key": _add_key,
        "public": _print_public,
        "create": _create,
        "revoke": _revoke,
        "show": _show,
    }
    try:
        return actions[args.action](args)
    except (KeysError, TokenError, client.AskError, OSError, ValueError) as error:
        return complain(error)


def _add_key(args: argparse.Namespace) -> int:
    entries = read_entries(args.file) if args.file.exists() else []
    made = make_key(args.algorithm)
    text = json.dumps({"keys": [*entries, made]}, indent=2) + "\n"
    # Beside it and then in its place: a relay may read it at any moment, nobody ever who could not before.
    path = args.file.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if entries:
                _give_to_readers_of(path, descriptor)
        beside.replace(path)
    except OSError:
        beside.unlink()
        raise
    told = {"kid": made["kid"], "alg": args.algorithm}
    print(json.dumps(told, indent=1) if args.json else made["kid"])  # noqa: T201
    return 0


def _give_to_readers_of(path: Path, descriptor: int) -> None:
    """Give an open file the owner, as far as this user may, the group and the mode of another one."""
    status = path.stat()
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _print_public(args: argparse.Namespace) -> int:
    print(json.dumps({"keys": [public_half(entry) for entry in read_entries(args.file)]}, indent=2))  # noqa: T201
    return 0


def _create(args: argparse.Namespace) -> int:
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now, "exp": now + args.expires, "jti": args.id or os.urandom(9).hex()}
    said = {key: getattr(args, key) for key in ("room", "name", "mac", "rights")}
    limits = {flag: getattr(args, name) for flag, name in LIMITS.items()}
    said["limits"] = {flag: value for flag, value in limits.items() if value is not None} or None
    claims |= {key: value for key, value in said.items() if value is not None}
    read_claims(claims, claims["exp"])
    token = sign(read_entries(args.file)[-1], claims)
    told = {"token": token, "id": claims["jti"], "expires": _moment(claims["exp"])}
    print(json.dumps(told, indent=1) if args.json else token)  # noqa: T201
    return 0


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _revoke(args: argparse.Namespace) -> int:
    said = _said(args)
    if said.count(".") == 2:  # noqa: PLR2004 - as a token has them
        with contextlib.suppress(ValueError):
            said = str(_claims(said).get("jti", ""))
            if not said:
                raise TokenError("the token has no id (jti): change the key that signed it")
    done = client.connect(args).post(f"/v1/tokens/{said}/revoke")
    told = f"{done['revoked']} is revoked; {done['ended']} sessions were ended"
    print(json.dumps(done, indent=1) if args.json else told)  # noqa: T201
    return 0


def _said(args: argparse.Namespace) -> str:
    return sys.stdin.read(MAX_FILE).strip() if args.text == "-" else str(args.text)


def _claims(token: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise ValueError("that is no token") from None
    return claims


def _show(args: argparse.Namespace) -> int:
    said = _said(args)
    claims = _claims(said)
    header = jwt.get_unverified_header(said)
    for name in ("exp", "nbf", "iat"):
        if isinstance(claims.get(name), (int, float)) and 0 <= claims[name] < 1e11:  # noqa: PLR2004
            claims[name] = _moment(claims[name])
    print(json.dumps({"kid": header.get("kid"), "alg": header.get("alg"), **claims}, indent=2))  # noqa: T201
    if args.keys is not None:
        load_keys(args.keys).read(said, time.time())
        print("accepted", file=sys.stderr)  # noqa: T201
    return 0

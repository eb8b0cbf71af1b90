"""``vmrelay config``: check the settings without starting, and tell where each value comes from."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from relay import settings
from relay.complaint import complain
from relay.room_tables import OTHERS, ROOMS
from relay.setting_kinds import NO_RATE, RATE, flag
from relay.spelling import CONFIG_VARIABLE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from relay.settings import Origin, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay config``: what is to be done, and all flags of the relay."""
    parser.add_argument(
        "action",
        choices=("check", "print"),
        metavar="check|print",
        help="check: say whether a relay could start so; print: show every value, as a file for --config",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    settings.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check or print; return the exit status: 0 if a relay could start, 2 if not."""
    flags = {name: value for name, value in vars(args).items() if name not in {"action", "json"}}
    try:
        found, origins = settings.explain(flags, os.environ)
        _check_files(found)
    except settings.SettingsError as error:
        if args.json:
            print(json.dumps({"ok": False, "error": str(error)}))  # noqa: T201
        else:
            complain(error)
        return 2
    if args.action == "print" and args.json:
        file = flags.get("config") or os.environ.get(CONFIG_VARIABLE)
        print(_as_json(found, origins, f"file {file}"))  # noqa: T201
    elif args.action == "print":
        print("\n".join(_as_toml(found, origins)))  # noqa: T201
    elif args.json:
        print(json.dumps({"ok": True}))  # noqa: T201
    else:
        own = [origin for origin in origins.values() if origin.kind != "default"]
        rooms = f"; rooms with settings of their own: {', '.join(sorted(found.rooms))}" if found.rooms else ""
        print(f"the settings are valid: {len(own)} of {len(origins)} are not the defaults{rooms}")  # noqa: T201
    return 0


def _check_files(found: Settings) -> None:
    """Read the files that the relay would read at its start, and make none. Raises SettingsError."""
    from relay.admin.opening import AdminError, read_token
    from relay.audit import AuditError, refuse_unwritable
    from relay.cluster import nats_servers
    from relay.own_certificate import open_files
    from relay.tokens import KeysError, load_keys

    try:
        if found.cert_pem is not None and found.key_pem is not None:
            open_files(found.cert_pem, found.key_pem)
        if found.auth_keys is not None:
            load_keys(found.auth_keys, found.auth_revoked)
        if found.admin_token is not None:
            read_token(found.admin_token)
        if found.audit_log is not None:
            refuse_unwritable(found.audit_log)
        nats_servers(found)
    except (KeysError, AdminError, AuditError) as error:
        raise settings.SettingsError(str(error)) from None


def _value(name: str, found: Settings, origin: Origin) -> object:
    """Give a value as a file has it: what was written, else the default."""
    kind = settings.OPTIONS[name].kind
    value = getattr(found, name)
    if kind is RATE and not value:
        return NO_RATE
    if origin.kind != "default" and not isinstance(value, bool | int | float):
        return [origin.text] if list in kind.toml else origin.text
    if isinstance(value, bool | int | float) or value is None:
        return value
    return [str(item) for item in value] if isinstance(value, tuple | frozenset) else str(value)


def _tables(found: Settings) -> Mapping[str, Any]:
    """Give the rooms' tables of the file, as they are written there."""
    return found.tables.written if isinstance(found, settings.SettingsWithRooms) else {}


def _as_json(found: Settings, origins: dict[str, Origin], file: str) -> str:
    told: dict[str, Any] = {
        flag(name)[2:]: {"value": _value(name, found, origin), "from": str(origin)}
        for name, origin in origins.items()
    }
    tables = _tables(found)
    for name in (OTHERS, ROOMS):
        told[name] = {"value": tables.get(name, {}), "from": file if name in tables else "default"}
    return json.dumps(told, indent=1)


def _as_toml(found: Settings, origins: dict[str, Origin]) -> Iterator[str]:
    for name, origin in origins.items():
        value, key = _value(name, found, origin), flag(name)[2:]
        line = f"{key} =" if value is None else f"{key} = {_toml(value)}"
        yield f"#{line}" if origin.kind == "default" else f"{line}  # {origin}"
    tables = _tables(found)
    of_rooms = {f"{ROOMS}.{room}": values for room, values in tables.get(ROOMS, {}).items()}
    others = {OTHERS: tables[OTHERS]} if OTHERS in tables else {}
    for table, values in (others | of_rooms).items():
        yield ""
        yield f"[{table}]"
        for key, value in values.items():
            yield f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    """Write a text, number, truth value or list of texts: as JSON, but for what that escapes otherwise."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isascii() and c != "\x7f" else f"\\U{ord(c):08x}" for c in text)

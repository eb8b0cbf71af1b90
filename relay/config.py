"""``vmrelay config``: check the settings without starting, and tell where each value comes from."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from relay import settings
from relay.setting_kinds import flag
from transport.certificates import CertificateError, FileCertificateStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

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
            print(f"vmrelay: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if args.action == "print":
        print(_as_json(found, origins) if args.json else "\n".join(_as_toml(found, origins)))  # noqa: T201
    elif args.json:
        print(json.dumps({"ok": True}))  # noqa: T201
    else:
        own = [origin for origin in origins.values() if origin.kind != "default"]
        rooms = f"; rooms with settings of their own: {', '.join(sorted(found.rooms))}" if found.rooms else ""
        print(f"the settings are valid: {len(own)} of {len(origins)} are not the defaults{rooms}")  # noqa: T201
    return 0


def _check_files(found: Settings) -> None:
    """Read the files that the relay would read at its start. Raises SettingsError."""
    from relay.admin.opening import AdminError, read_token
    from relay.tokens import KeysError, load_keys

    try:
        if found.cert_pem is not None and found.key_pem is not None:
            FileCertificateStore(found.cert_pem, found.key_pem)
        if found.auth_keys is not None:
            load_keys(found.auth_keys, found.auth_revoked)
        if found.admin_token is not None:
            read_token(found.admin_token)
    except (CertificateError, KeysError, AdminError) as error:
        raise settings.SettingsError(str(error)) from None


def _value(name: str, found: Settings, origin: Origin) -> object:
    """Give a value as a file has it: what was written, else the default."""
    kind = settings.OPTIONS[name].kind
    value = getattr(found, name)
    if origin.kind != "default" and not isinstance(value, bool | int | float):
        return [origin.text] if list in kind.toml else origin.text
    if isinstance(value, bool | int | float) or value is None:
        return value
    return [str(item) for item in value] if isinstance(value, tuple | frozenset) else str(value)


def _as_json(found: Settings, origins: dict[str, Origin]) -> str:
    told = {
        flag(name)[2:]: {"value": _value(name, found, origin), "from": str(origin)}
        for name, origin in origins.items()
    }
    return json.dumps(told, indent=1)


def _as_toml(found: Settings, origins: dict[str, Origin]) -> Iterator[str]:
    for name, origin in origins.items():
        value, key = _value(name, found, origin), flag(name)[2:]
        line = f"{key} =" if value is None else f"{key} = {json.dumps(value)}"
        yield f"#{line}" if origin.kind == "default" else f"{line}  # {origin}"
    if found.rooms:
        yield f"# rooms with settings of their own: {', '.join(sorted(found.rooms))}"

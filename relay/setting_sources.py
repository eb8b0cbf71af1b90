"""Where settings' values come from: the TOML file, and texts of flags and environment variables.

Every value goes through the same check wherever it comes from, and a bad one is a ``SettingsError`` that
names its source in one line.
"""

from __future__ import annotations

import re
import tomllib
from functools import partial
from typing import TYPE_CHECKING, Any

from relay.room_tables import OTHERS, ROOMS, RoomTables, take_tables
from relay.setting_kinds import SWITCH, SettingsError, flag
from relay.spelling import MAX_NAMED, misspelt_variables, perhaps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from relay.setting_kinds import Kind, Option

_PASSWORD = re.compile(r"//[^/@,\s]*@")
"""User and password in a URL, which do not belong in a log."""

MAX_CONFIG_BYTES = 1 << 20
"""Largest configuration file that is read."""

OUTSIDE = f": settings stand outside of tables, but for those of [{OTHERS}] and [{ROOMS}.NAME]"
"""What is said of a table that there is not."""


def refuse_misspelt(
    environment: Mapping[str, str],
    variables: Mapping[str, str],
    others: Sequence[str],
    options: Mapping[str, Option],
) -> None:
    """Refuse variables of our prefix that are none: ``variables`` by settings, and ``others``.

    Raises SettingsError.
    """
    found = misspelt_variables(environment, variables, others, _switches(options))
    if found:
        complaints = [
            f"{name[:80]}{f', perhaps {near}' if near else ''}" for name, near in sorted(found.items())
        ]
        more = f"; and {len(complaints) - MAX_NAMED} more" if len(complaints) > MAX_NAMED else ""
        raise SettingsError(
            f"unknown environment variable {'; '.join(complaints[:MAX_NAMED])}{more} (see vmrelay --help)"
        )


def _switches(options: Mapping[str, Option]) -> frozenset[str]:
    """Name the settings that are true or false."""
    return frozenset(name for name, option in options.items() if option.kind is SWITCH)


def read_file(path: Path, options: Mapping[str, Option]) -> tuple[dict[str, Any], RoomTables, dict[str, str]]:
    """Read a configuration: values by settings, the rooms' tables, and the values as they are written.

    Raises SettingsError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise SettingsError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        table = tomllib.loads(data.decode("utf-8-sig"))  # Windows editors begin files with a mark
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError; nested too deep
        raise SettingsError(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    switches = frozenset(flag(name)[2:] for name in _switches(options))
    tables = take_tables(table, str(path), partial(_from_table, options), switches)
    values = _from_table(options, table, str(path))
    texts = {name: _text_of(table[flag(name)[2:]]) for name in values}
    return values, tables, texts


def _from_table(options: Mapping[str, Option], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the settings of a TOML table."""
    names = {flag(name)[2:]: name for name in options}
    values = {}
    for key, value in table.items():
        if key not in names:
            switches = (flag(name)[2:] for name in _switches(options))
            hint = OUTSIDE if isinstance(value, dict) else perhaps(key, names, switches)
            raise SettingsError(f"{where}: unknown setting {key[:80]!r}{hint}")
        option, source = options[names[key]], f"{where}: {key}"
        values[names[key]] = checked(option, _toml_text(option.kind, value, source), source)
    return values


def _toml_text(kind: Kind, value: Any, source: str) -> str:
    """Bring a TOML value to the text that a flag would have; booleans are no numbers here."""
    fits = isinstance(value, kind.toml) and isinstance(value, bool) == (kind is SWITCH)
    if isinstance(value, list):
        fits = fits and all(isinstance(item, str) for item in value)
    if not fits:
        raise SettingsError(f"{source}: must be {kind.expected}")
    return _text_of(value)


def _text_of(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def checked(option: Option, text: str, source: str) -> Any:
    """Read the text of a value. Raises SettingsError."""
    try:
        return option.kind.parse(text)
    except ValueError as error:
        said, shown = str(error), repr(_PASSWORD.sub("//***@", text)[:80])
        given = f", not {shown}" if said.startswith("must ") else f" (in {shown})"
        raise SettingsError(f"{source}: {said}{'' if repr(text) in said else given}") from None

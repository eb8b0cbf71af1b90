"""How settings get their values: from flags, environment variables and a TOML file.

A value is looked up in this order: flag, environment variable, configuration file, default. Lists replace
each other, they are not joined across sources.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from relay.contradictions import (
    refuse_contradictions,
    refuse_contradictions_of_rooms,
    refuse_half_a_certificate,
    refuse_half_of_auth,
    refuse_ways_out_of_islands,
)
from relay.home import at_home
from relay.room_tables import NO_TABLES
from relay.setting_kinds import ARGUMENTS, SettingsError, flag
from relay.setting_sources import checked, read_file, refuse_misspelt
from relay.settings.settings import OPTIONS, Settings, SettingsWithRooms
from relay.spelling import CONFIG_VARIABLE, OTHER_VARIABLES, is_service_link

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from relay.setting_kinds import Option

_DEFAULTS = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting, and ``--config``. Flags that are not given leave no trace."""
    for name, option in OPTIONS.items():
        parser.add_argument(
            flag(name),
            dest=name,
            default=argparse.SUPPRESS,
            help=_help(name, option),
            **ARGUMENTS.get(option.kind, {"metavar": option.metavar}),
        )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"TOML file with any of these settings, named as the flags [{CONFIG_VARIABLE}]",
    )


class Origin(NamedTuple):
    """Where the value of a setting comes from."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str
    """The flag, the variable, or the file; empty for a default."""
    text: str = ""
    """The value as it was written there; lists with commas."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Put flags (the parsed namespace as a mapping), environment and file together.

    An environment variable that is set to nothing counts as not set, and so does one that Kubernetes made for
    a service of our name. One that is misspelt is refused: with VMRELAY_DENY_CDIR a network that should be
    closed would stay open. Raises SettingsError.
    """
    return explain(flags, environment)[0]


def explain(flags: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Settings, dict[str, Origin]]:
    """As :func:`resolve`, and tell where each value comes from, by its field's name."""
    variables = {name: _variable(name, option) for name, option in OPTIONS.items()}
    refuse_misspelt(environment, variables | {"config": CONFIG_VARIABLE}, OTHER_VARIABLES, OPTIONS)
    path = config_path(flags, environment)
    values, tables, texts = ({}, NO_TABLES, {}) if path is None else read_file(path, OPTIONS)
    origins = dict.fromkeys(OPTIONS, Origin("default", ""))
    origins |= {name: Origin("file", str(path), text) for name, text in texts.items()}
    for name, option in OPTIONS.items():
        variable = _variable(name, option)
        text = environment.get(variable, "").strip()
        if text and not is_service_link(variable, text):
            values[name] = checked(option, text, variable)
            origins[name] = Origin("environment", variable, text)
        if name in flags:
            given = flags[name]
            text = ",".join(given) if isinstance(given, list) else str(given)
            values[name] = checked(option, text, flag(name))
            origins[name] = Origin("flag", flag(name), text)
    settings = Settings(**values)
    refuse_half_a_certificate(settings)
    refuse_contradictions(settings)
    if tables == NO_TABLES:
        refuse_half_of_auth(settings)
        refuse_ways_out_of_islands(settings, tables)
        return settings, origins
    with_rooms = SettingsWithRooms(**values, tables=tables)
    refuse_half_of_auth(with_rooms)
    try:
        refuse_contradictions_of_rooms(with_rooms)
        refuse_ways_out_of_islands(with_rooms, tables)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return with_rooms, origins


def config_path(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Path | None:
    """Tell which configuration file flags and environment name, if any. Raises SettingsError."""
    text = str(flags.get("config", environment.get(CONFIG_VARIABLE, "").strip()))
    source = flag("config") if "config" in flags else CONFIG_VARIABLE
    if not text.strip() and "config" in flags:  # as a shell's variable that is not set leaves it
        raise SettingsError(f"{source}: must be the path of a file, not ''")
    try:
        return at_home(text) if text else None
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def _variable(name: str, option: Option) -> str:
    return option.own_variable or f"VMRELAY_{name.upper()}"


def _help(name: str, option: Option) -> str:
    """Help line: what it does, its default unless that is "nothing", its environment variable."""
    default = getattr(_DEFAULTS, name)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    default_note = f", default {shown}" if default else ""
    return f"{option.help}{default_note} [{_variable(name, option)}]"

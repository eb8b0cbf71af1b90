"""Settings as an operator gives them: flags, environment variables, a file; and what is said of bad ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from relay.settings import OPTIONS, Settings, SettingsError, add_arguments, resolve

if TYPE_CHECKING:
    from pathlib import Path


def settings(*flags: str, config: str | None = None, **environment: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    given_flags = vars(parser.parse_args(flags))
    if config is not None:
        given_flags["config"] = config
    return resolve(given_flags, environment)


def write_file(folder: Path, text: str) -> str:
    """Write a configuration file and give its path."""
    path = folder / "relay.toml"
    path.write_text(text)
    return str(path)


def complaint(*flags: str, **kwargs: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(*flags, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def assert_named_and_refused(name: str, text: str, message: str) -> None:
    """Assert that flag and variable refuse a bad value, in one line that begins with their name."""
    variable = OPTIONS[name.replace("-", "_")].own_variable or f"VMRELAY_{name.replace('-', '_').upper()}"
    said = complaint(**{variable: text})
    assert said.startswith(f"{variable}: ")
    assert message in said
    if name != "host-access":
        assert complaint(f"--{name}={text}").startswith(f"--{name}: ")

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.home import at_home


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/relay.toml", "/home/me/relay.toml"),
        ("~/../x", "/home/me/../x"),
        ("/etc/relay.toml", "/etc/relay.toml"),
        ("relay.toml", "relay.toml"),
        # Names of files, as they stand there.
        ("~", "~"),
        ("~other/x", "~other/x"),
        ("a~/x", "a~/x"),
    ],
)
def test_the_home_is_written_out_where_a_path_begins_with_it(monkeypatch, text, path):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(text) == Path(path)


def test_without_a_home_nothing_is_made_in_its_place(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has no entry
    with pytest.raises(ValueError, match="this user has no home"):
        at_home("~/x")

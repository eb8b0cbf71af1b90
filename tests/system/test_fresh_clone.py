"""The two lines that the README opens with, in a copy of the tree without anything prepared."""

from __future__ import annotations

import re
import shutil

import pytest
from processes import ROOT, Program

NOT_IN_A_CLONE = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".cache",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    "build",
    "dist",
    "node_modules",
)
SETTING_UP = 300.0
"""Seconds for making an environment and installing what the lock files name."""


@pytest.fixture
def clone(tmp_path):
    return shutil.copytree(ROOT, tmp_path / "vmrelay", ignore=NOT_IN_A_CLONE)


def test_make_run_sets_up_and_starts_the_relay(clone, load):
    # A home that cannot be written to, as for a service account.
    options = "--port 0 --bind 127.0.0.1"
    relay = Program(
        "make", "-C", clone, "run", f"ARGS={options}", environment={"HOME": "/nonexistent", "MAKEFLAGS": ""}
    )
    relay.hash = relay.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})$", patience=SETTING_UP)[1]
    relay.url = relay.wait_for(r"Listening on (https://\S+)$")[1]
    figures = load(relay, "ping", "--dst", "10.0.2.2", "--count", 3)
    relay.stop()
    assert figures["intact"] == 3
    assert "the relay is shutting down" in relay.output


def test_readme_opens_with_make_run_and_make_test():
    commands = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert commands[:2] == ["make run\n", "make test\n"]

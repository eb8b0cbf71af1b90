"""What the README says of settings, files and targets is so."""

from __future__ import annotations

import re
from pathlib import Path

from relay.settings import OPTIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_variable():
    table = dict(re.findall(r"^\| `(--[a-z0-9-]+)` \| `([A-Z0-9_]+)` \|", README, re.MULTILINE))
    table.pop("--config")
    assert table == {
        f"--{name.replace('_', '-')}": option.own_variable or f"VMRELAY_{name.upper()}"
        for name, option in OPTIONS.items()
    }


def test_files_and_sections_that_are_linked_exist():
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    sections = {
        "#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert [t for t in targets if t not in sections and not (ROOT / t).exists()] == []


def test_make_targets_that_are_named_exist():
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets

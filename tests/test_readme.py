"""What the README says of settings, files and targets is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def anchors(text):
    """What links may name of a Markdown file's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_files_and_sections_that_are_linked_exist():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        file, _, section = target.partition("#")
        path = ROOT / (file or "README.md")
        assert path.exists(), target
        assert not section or section in anchors(path.read_text()), target


def test_make_targets_that_are_named_exist():
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize(
    ("begins", "ends"),
    [("# vmrelay", "Contents: "), ("## What guests may reach", "- `--allow-cidr")],
    ids=["introduction", "section"],
)
def test_it_says_by_what_guests_reach_the_outside_and_are_reached(begins, ends):
    told = README.partition(f"{begins}\n")[2].partition(f"\n{ends}")[0]
    for way in ("TCP", "UDP", "ping", "IPv6", "`--forward`"):
        assert re.search(rf"(?<!\w){way}(?!\w)", told), way

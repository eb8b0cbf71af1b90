"""The import rules: that they find what they are for, and that the documentation says the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
NAMES = {"dns": "dnspython", "jwt": "pyjwt", "nats": "nats_py"}
"""Libraries whose distributions are called otherwise than what is imported."""

OPTIONAL = {"IPython", "rich", "textual", "traitlets"}
"""Libraries that are used where a user has them, and those of extras."""


def allowed(package):
    [names] = [contract["may_import"] for contract in CONTRACTS if contract.get("package") == package]
    return names


def libraries(package):
    ours = PROJECT["tool"]["importlinter"]["root_packages"]
    return {
        NAMES.get(name, name)
        for name in allowed(package)
        if name.partition(".")[0] not in {*ours, "stdlib", *sys.stdlib_module_names}
    }


def documented():
    """What the table of packages says, by package."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return dict(re.findall(r"^\| `(\w+)/` \|.*\|(.*)\|$", text, re.MULTILINE))


@pytest.mark.parametrize("package", PROJECT["tool"]["importlinter"]["root_packages"])
def test_the_documented_libraries_are_those_that_a_package_may_import(package):
    known = {library for each in documented() for library in libraries(each)}
    said = {library for library in known if re.search(rf"\b{library}\b", documented()[package])}
    assert said == libraries(package)


def test_each_dependency_is_some_packages_to_import():
    wanted = {re.split(r"[^\w-]", text)[0].replace("-", "_") for text in PROJECT["project"]["dependencies"]}
    assert wanted == {library for package in documented() for library in libraries(package)} - OPTIONAL


TREE = {
    "clean/__init__.py": "",
    "clean/good.py": "import struct\nfrom clean.other import X",
    "clean/other.py": "X = 1",
}


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("clean/good.py", "import struct", ""),
        ("clean/bad.py", "import socket", "clean.bad imports socket, which clean may not"),
        ("clean/bad.py", "import scapy.all", "clean.bad imports scapy, which clean may not"),
        (
            "clean/bad.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio",
            "clean.bad imports asyncio, which clean may not",
        ),
    ],
    ids=["allowed", "a module of the standard library", "a library", "for a type only"],
)
def test_an_import_that_is_not_on_the_list_is_found(tmp_path, file, text, complaint):
    for name, content in {**TREE, file: text}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = clean\ninclude_external_packages = True\n"
        "contract_types =\n    allow_list: scripts.import_rules.AllowListContract\n"
        "[importlinter:contract:1]\nname = clean\ntype = allow_list\npackage = clean\nmay_import = struct\n"
    )
    lint = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-logo",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (lint.returncode != 0) == bool(complaint), lint.stdout + lint.stderr
    assert complaint in lint.stdout

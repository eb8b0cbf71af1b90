"""The tests mirror the packages: whoever opens a module finds its tests by name, or by its import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("actors", "guest", "netstack", "relay", "transport")

WITHOUT_BEHAVIOUR = {
    "__init__",
    "messages",
    "trunk_messages",
    "room_events",
    "place",
    "ports",
    "served",
    "close_codes",
}
"""Modules that only define types and constants."""

OF_SEVERAL_MODULES = {"test_lan"}
"""Tests of a package's parts together."""


def _names(package):
    modules = {path.stem for path in (ROOT / package).rglob("*.py")} - WITHOUT_BEHAVIOUR
    tests = {path.stem for path in (ROOT / "tests" / package).glob("test_*.py")}
    return modules, tests


def _belongs(test, module, package):
    """Of relay/shell.py are test_shell.py, test_shell_errors.py and test_relay_shell.py."""
    names = (f"test_{module}", f"test_{package}_{module}")
    return any(test == name or test.startswith(f"{name}_") for name in names)


def _imported_by_tests(package):
    for path in (ROOT / "tests" / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_tests(package):
    modules, tests = _names(package)
    imported = {name.rpartition(".")[2] for name in _imported_by_tests(package) if name.startswith(package)}
    without = {
        module
        for module in modules
        if module not in imported and not any(_belongs(test, module, package) for test in tests)
    }
    assert without == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_test_of_a_package_has_its_module(package):
    modules, tests = _names(package)
    stray = {test for test in tests if not any(_belongs(test, module, package) for module in modules)}
    assert stray - OF_SEVERAL_MODULES == set()


def test_no_two_test_files_have_one_name():
    """pytest imports them by their names, all folders together."""
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))

"""What ``setup.py`` takes for an obstacle to compiling, before it tries."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig

import pytest
from setup_parts import ROOT


@pytest.fixture
def setup(monkeypatch):
    spec = importlib.util.spec_from_file_location("vmrelay_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("CC", raising=False)
    return module


@pytest.fixture
def headers(monkeypatch, tmp_path):
    """A folder for Python's headers."""
    monkeypatch.setattr(sysconfig, "get_path", {"include": str(tmp_path)}.get)
    return tmp_path


def test_with_all_there_nothing_is_in_the_way(setup, headers, monkeypatch):
    (headers / "Python.h").touch()
    # Options belong to a compiler's name, and a wrapper may stand before it.
    monkeypatch.setenv("CC", f"'{sys.executable}' -pthread")
    assert setup.obstacle() is None


def test_without_mypy_nothing_is_compiled(setup, monkeypatch):
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    assert setup.obstacle() == "mypy is not installed"


def test_without_the_compiler_that_this_python_was_built_with_nothing_is_compiled(setup, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", {"CC": "no-such-compiler -pthread"}.get)
    assert setup.obstacle() == "there is no C compiler (no-such-compiler)"


def test_a_compiler_that_is_named_counts(setup, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler-either")
    assert setup.obstacle() == "there is no C compiler (no-such-compiler-either)"


def test_without_pythons_headers_nothing_is_compiled(setup, headers, monkeypatch):
    monkeypatch.setenv("CC", sys.executable)
    assert setup.obstacle().startswith(f"Python's headers are missing ({headers}/Python.h;")

"""What a build needs is there, in the environment that pip makes for it and in that of the lock files."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from setup_parts import ROOT, compiled_modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("actors", "guest", "netstack", "relay", "transport")
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-test.lock")


def canonical(name):
    """The name by which package indexes know a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def by_name(requirements):
    return {canonical(re.match(r"[\w.-]+", requirement)[0]): requirement for requirement in requirements}


BUILD = by_name(PROJECT["build-system"]["requires"])
RUN = by_name(PROJECT["project"]["dependencies"])


def imports(path):
    """Dotted names of all that a file imports, for type checking too: mypyc reads that as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def file_of(module):
    path = ROOT / module.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def seen_by_the_compiler():
    """Top-level names of what is not ours and reached from the compiled modules, through any of our own."""
    outside, seen, ahead = set(), set(), compiled_modules()
    while ahead:
        module = ahead.pop()
        if module in seen or (path := file_of(module)) is None:
            continue
        seen.add(module)
        for name in imports(path):
            top = name.partition(".")[0]
            if top in PACKAGES:
                ahead.append(name)
            elif top not in sys.stdlib_module_names:
                outside.add(top)
    return outside


def test_the_build_requires_all_that_the_compiled_modules_import():
    distributions = packages_distributions()
    needed = {canonical(name) for module in seen_by_the_compiler() for name in distributions[module]}
    assert "aioquic" in needed
    assert needed - set(BUILD) == set()


def test_the_build_sees_the_versions_that_run():
    shared = set(BUILD) & set(RUN)
    assert {name: BUILD[name] for name in shared} == {name: RUN[name] for name in shared}


def pins(lock):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(LOCKS, 2)])
def test_lock_files_agree_on_versions(one, other):
    # Environments are made of several of them.
    one, other = pins(one), pins(other)
    assert {name: other.get(name, version) for name, version in one.items()} == one


def test_the_build_lock_holds_the_build_requirements():
    assert set(BUILD) <= set(map(canonical, pins("requirements-build.lock")))

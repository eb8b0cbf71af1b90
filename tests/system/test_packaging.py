"""Installing vmrelay as people do, on each Python there is, with a C compiler and without one.

Builds are isolated where pip isolates them by itself: they have what pyproject.toml names, and nothing of the
environment of these tests.
"""

from __future__ import annotations

import functools
import os
import sys
import zipfile

import interpreters
import pytest
from processes import Relay, run
from setup_parts import compiled_modules
from trees import copy_of_the_tree

MINUTES = 60.0
VERSIONS = [*interpreters.found()]

NO_HABITS = {"PYTHONPATH": "", "VMRELAY_COMPILE": "", "VMRELAY_OPTIMIZE": "0"}
"""Variables that would change what is built or imported."""
NO_COMPILER = {"CC": "/nonexistent/cc"}

FAILING_MYPYC = {
    "mypyc gives up": "raise AssertionError('RefExpr not resolved')",
    "mypyc finds errors": "raise SystemExit(1)",
    "mypyc is broken": "import mypyc.nothing",
}
HALF_A_COMPILER = """#!/bin/sh
# Fails at one file of several; of the others it only makes what was asked for.
case "$*" in *udp.c*) echo "udp.c: no" >&2; exit 1 ;; esac
while [ $# -gt 0 ]; do [ "$1" != -o ] || : >"$2"; shift; done
"""


class Environment:
    """A virtual environment of one of the Pythons."""

    def __init__(self, folder, version=interpreters.RUNNING):
        run(interpreters.found()[version], "-m", "venv", folder, patience=3 * MINUTES)
        self.programs = folder / "bin"
        self.python = self.programs / "python"

    def pip(self, *words, **variables):
        return pip(self.python, *words, **variables)

    def install(self, tree, **variables):
        """Install from ``tree``, in place of what may be there; give what the build said."""
        self.pip("uninstall", "--yes", "vmrelay")
        return self.pip("install", "--verbose", tree, **variables)

    def forms(self):
        """Suffixes of the files that the modules of the accelerator are imported from."""
        code = (
            "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
        )
        command = (self.python, "-P", "-c", code, *compiled_modules())
        files = run(*command, env=os.environ | NO_HABITS).stdout.split()
        return {file.rpartition(".")[2] for file in files}

    def form_that_the_relay_names(self):
        relay = Relay(program=(self.programs / "vmrelay",), environment=NO_HABITS)
        try:
            return relay.wait_for(r"datagram path: ([\w ]+)")[1]
        finally:
            relay.stop()


def pip(python, *words, check=True, **variables):
    """Run pip; give the completed process, all output as one."""
    done = run(
        *(python, "-m", "pip", "--disable-pip-version-check", *words),
        patience=8 * MINUTES,
        check=check,
        env=os.environ | NO_HABITS | variables,
    )
    done.stdout += done.stderr  # where builds are heard depends on pip's version
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a version; dependencies are installed into it once."""
    return functools.cache(
        lambda version: Environment(tmp_path_factory.mktemp("environment") / "it", version)
    )


@pytest.fixture
def tree(tmp_path):
    return copy_of_the_tree(tmp_path / "tree")


def left_behind(tree):
    """What of a build the next one, or Python, would take for something."""
    made_of_c = (path for path in tree.rglob("*.c") if tree / "tests" not in path.parents)
    return [*tree.rglob("*.so"), *made_of_c, *tree.glob("build")]


def wheel_in(folder):
    (wheel,) = folder.glob("vmrelay-*.whl")
    return wheel


def files_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def pages_of(tree):
    """The files that browsers get."""
    folders = (tree / "relay/pages", tree / "relay/admin/dashboard")
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(tree)) for path in files}


def extension_modules(wheel):
    names = {name for name in files_in(wheel) if name.endswith(".so")}
    return {name.partition(".")[0].replace("/", ".") for name in names}


def reasons(said):
    """Why there is no accelerator, of each line that tells it."""
    told = "vmrelay: building pure Python, without the accelerator: "
    return [line.partition(told)[2] for line in said.stdout.splitlines() if told in line]


@pytest.mark.parametrize("version", VERSIONS)
def test_pip_install_compiles_the_accelerator(environment, tree, version):
    place = environment(version)
    said = place.install(tree)
    assert reasons(said) == []
    assert place.forms() == {"so"}
    assert place.form_that_the_relay_names() == "compiled accelerator"
    assert left_behind(tree) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_pip_install_without_a_compiler_installs_pure_python(environment, tree, version):
    place = environment(version)
    said = place.install(tree, **NO_COMPILER)
    assert reasons(said) == ["there is no C compiler (/nonexistent/cc)"]
    assert place.forms() == {"py"}
    assert place.form_that_the_relay_names() == "pure Python"
    assert left_behind(tree) == []


def test_pip_wheel_of_an_sdist_holds_the_accelerator(tmp_path, tree):
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--outdir",
        tmp_path,
        tree,
        patience=5 * MINUTES,
    )
    (sdist,) = tmp_path.glob("vmrelay-*.tar.gz")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", tmp_path, sdist)
    wheel = wheel_in(tmp_path)
    assert extension_modules(wheel) == {*compiled_modules(), "vmrelay__mypyc"}
    assert not wheel.name.endswith("-any.whl")


def test_pip_wheel_without_a_compiler_on_the_path_is_for_any_platform(tmp_path, environment, tree):
    place = environment(interpreters.RUNNING)
    command = ("wheel", "--verbose", "--no-deps", "--wheel-dir", tmp_path, tree)
    said = place.pip(*command, PATH=str(place.programs))
    assert len(reasons(said)) == 1
    assert reasons(said)[0].startswith("there is no C compiler (")
    assert wheel_in(tmp_path).name.endswith("-py3-none-any.whl")


@pytest.fixture(params=["the compiler fails", "the compiler fails half-way", *FAILING_MYPYC])
def failing(request, tmp_path):
    """Variables with which compiling looks possible and fails."""
    if request.param == "the compiler fails":
        return {"CC": "false"}
    if request.param == "the compiler fails half-way":
        compiler = tmp_path / "cc"
        compiler.write_text(HALF_A_COMPILER)
        compiler.chmod(0o755)
        return {"CC": str(compiler)}
    package = tmp_path / "broken/mypyc"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "build.py").write_text(FAILING_MYPYC[request.param])
    return {"PYTHONPATH": str(package.parent)}


def test_a_compile_that_fails_leaves_pure_python_or_fails_where_it_is_demanded(tmp_path, tree, failing):
    # Without isolation: its environment is not what fails here.
    command = (sys.executable, "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir")
    done = pip(*command, tmp_path, tree, **failing)
    assert len(reasons(done)) == 1
    wheel = wheel_in(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extension_modules(wheel) == set()
    demanded = pip(*command, tmp_path / "demanded", tree, check=False, **failing, VMRELAY_COMPILE="1")
    assert demanded.returncode != 0
    assert left_behind(tree) == []


def test_the_accelerator_can_be_declined(tmp_path, tree):
    command = ("wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tree)
    done = pip(sys.executable, *command, VMRELAY_COMPILE="0")
    assert reasons(done) == ["VMRELAY_COMPILE=0"]
    assert extension_modules(wheel_in(tmp_path)) == set()
    assert pages_of(tree) <= files_in(wheel_in(tmp_path))


def test_an_editable_install_leaves_no_compiled_form_in_the_tree(tmp_path, tree):
    place = Environment(tmp_path / "environment")
    place.pip("install", "--no-deps", "--editable", tree, VMRELAY_COMPILE="1")
    assert left_behind(tree) == []

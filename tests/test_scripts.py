"""Scripts that newcomers run, with programs of the test's own in place of those that fetch and install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PYTHON = """#!/bin/sh
# As far as accelerate.sh asks: versions, the folder of the headers, a wheel, and what is in it.
case "$*" in
-VV) echo Python ;;
-c*) echo "$HEADERS" ;;
*"pip"*) for last; do [ "$before" != --wheel-dir ] || touch "$last/a.whl"; before=$last; done ;;
*"zipfile"*) for last; do :; done; mkdir "$last" ;;
esac
"""
APT_CACHE = """#!/bin/sh
case "${LC_ALL:-${LANG:-C}}" in
C*) depends=Depends candidate=Candidate ;;
*) depends="Hängt ab von" candidate=Installationskandidat ;;
esac
case "$1" in
depends) printf 'linux-image-686\\n  %s: linux-image-6.1.0-44-686\\n' "$depends" ;;
policy) printf '%s:\\n  %s: 1.85.0+dfsg-1\\n' "$2" "$candidate" ;;
search) echo "cargo-web - Rust package manager" ;;
esac
"""
APT_GET = """#!/bin/sh
echo "$*" >>"$APT_LOG"
case "$*" in *download*) exit 1 ;; esac
"""
DPKG = """#!/bin/sh
[ "$2" ] && [ "$4" ]
"""
MAKES_ENVIRONMENTS = """#!/bin/sh
case "$*" in
"-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip "*install*) echo "$PIP_USER" >>"$PIP_LOG" ;;
esac
"""
NOTHING = "#!/bin/sh\n"
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("scripts/*.sh"), ROOT / "examples/v86/build.sh", ROOT / ".ci/run")
    if path.name != "apt.sh"  # the others read it
)
GERMAN = {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "LC_MESSAGES": "de_DE.UTF-8"}


class Programs:
    """A folder on the path, into which programs are put by name."""

    def __init__(self, folder):
        self._folder = folder
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def put(self, **texts):
        for name, text in texts.items():
            program = self._folder / name.replace("_", "-")
            program.write_text(text)
            program.chmod(0o755)


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    return Programs(folder)


def copied(folder, *names):
    """Put scripts into a tree of their own."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def run(script, *arguments, **environment):
    return subprocess.run(
        [script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_old_builds_are_removed_and_nothing_else_in_a_tree_whose_path_has_spaces(tmp_path, programs):
    tree = tmp_path / "vm relay"
    copied(tree, "scripts/accelerate.sh", "scripts/apt.sh", "setup.py", "pyproject.toml")
    copied(tree, "requirements-build.lock")
    for package in ("actors", "guest", "netstack", "relay", "transport", "vmrelay", ".venv/bin"):
        (tree / package).mkdir(parents=True)
    (tree / "Python.h").touch()
    programs.put(cc=NOTHING)
    python = tree / ".venv/bin/python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    # What the path up to its first space names is somebody else's.
    bystander = tmp_path / "vm/letters"
    bystander.mkdir(parents=True)
    for age in range(3):
        old = tree / f".cache/accelerated/{age:016x}"
        old.mkdir(parents=True)
        os.utime(old, (1_000_000 - age, 1_000_000 - age))

    done = run(tree / "scripts/accelerate.sh", PATH=programs.path, HEADERS=str(tree))
    assert done.returncode == 0, done.stderr
    built = Path(done.stdout.rstrip("\n"))
    assert built.is_dir()
    assert bystander.is_dir()
    left = {folder for folder in built.parent.iterdir() if folder.is_dir()}
    assert left == {built, built.parent / f"{0:016x}"}


def test_the_demo_finds_its_kernel_whatever_language_apt_speaks(tmp_path, programs):
    copied(tmp_path, "examples/v86/build.sh", "examples/v86/init", "scripts/apt.sh")
    programs.put(apt_cache=APT_CACHE, apt_get=APT_GET, cpio=NOTHING, xz=NOTHING, dpkg_deb=NOTHING)
    log = tmp_path / "log"
    run(tmp_path / "examples/v86/build.sh", PATH=programs.path, APT_LOG=str(log), **GERMAN)
    assert log.read_text().splitlines()[-1] == "-qq download linux-image-6.1.0-44-686 busybox-static seabios"


def test_the_load_generator_finds_a_cargo_whatever_language_apt_speaks(tmp_path, programs):
    copied(tmp_path, "scripts/relaybench.sh", "scripts/apt.sh")
    root = "#!/bin/sh\necho 0\n"
    none = "#!/bin/sh\nexit 1\n"
    programs.put(apt_cache=APT_CACHE, apt_get=APT_GET, dpkg=DPKG, which=none, id=root)
    log = tmp_path / "log"
    run(
        tmp_path / "scripts/relaybench.sh",
        PATH=programs.path,
        APT_LOG=str(log),
        RELAYBENCH="",
        **GERMAN,
    )
    assert (
        log.read_text()
        .splitlines()[-1]
        .endswith("install -y --no-install-recommends --no-remove cargo-web libc6-dev")
    )


def test_an_environment_is_made_for_those_too_who_install_for_their_user(tmp_path, programs):
    copied(tmp_path, "scripts/venv.sh", "scripts/apt.sh")
    programs.put(new_python=MAKES_ENVIRONMENTS)
    log = tmp_path / "log"
    python = str(tmp_path / "bin/new-python")
    done = run(tmp_path / "scripts/venv.sh", "some.lock", PYTHON=python, PIP_USER="1", PIP_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines() == ["0", "0"]


@pytest.mark.parametrize(
    ("target", "program", "said"),
    [
        ("accelerated", "pytest", "packages at {folder}"),
        ("bench", "python", "asked for bench/loads.py --packages {folder}"),
    ],
)
def test_make_uses_the_compiled_packages_in_a_tree_whose_path_has_spaces(tmp_path, target, program, said):
    tree = tmp_path / "vm relay"
    copied(tree, "Makefile")
    folder = tree / ".cache/accelerated/00"
    stand_ins = {
        "scripts/accelerate.sh": f"#!/bin/sh\necho '{folder}'\n",
        "scripts/relaybench.sh": NOTHING,
        f".venv/bin/{program}": '#!/bin/sh\necho "packages at $PYTHONPATH"\necho "asked for $1 $2 $3"\n',
    }
    for name, text in stand_ins.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    what_is_there = ("-o", "tools", "-o", ".venv/run.stamp")
    done = run(
        "make", "-C", str(tree), *what_is_there, target, "SUDO=", PYTHONPATH="", MAKEFLAGS="", RELAYBENCH=""
    )
    assert done.returncode == 0, done.stderr
    assert said.format(folder=folder) in done.stdout.splitlines()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_folder_of_the_users_that_cd_looks_in_changes_nothing(tmp_path, script):
    """Exported, CDPATH would lead ``scripts/..`` to another folder, and name it among what is printed."""
    home, tree = tmp_path / "home", tmp_path / "tree"
    (home / Path(script).parent).mkdir(parents=True)
    (tree / script).parent.mkdir(parents=True)
    beginning, way, _ = (ROOT / script).read_text().partition('cd "$(dirname "$0")/')
    assert way
    end = (ROOT / script).read_text()[len(beginning + way) :].partition("\n")[0]
    (tree / script).write_text(f"{beginning}{way}{end}\npwd -P\n")
    (tree / script).chmod(0o755)
    done = subprocess.run(
        [script], cwd=tree, env=os.environ | {"CDPATH": str(home)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{tree.resolve()}\n"


def test_scripts_can_be_run_that_git_for_windows_has_fetched(tmp_path):
    copied(tmp_path, ".gitattributes", "scripts/run.sh")
    script = tmp_path / "scripts/run.sh"
    before = script.read_bytes()

    def git(*words):
        subprocess.run(
            ["git", "-c", "core.autocrlf=true", *words], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    git("add", ".")
    script.unlink()
    git("checkout", "--", "scripts/run.sh")
    assert script.read_bytes() == before

"""What a release consists of has one version, and workflows name what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def tree(tmp_path):
    """The files that say a version, and the script that compares them."""
    scripts = ("scripts/check-version.sh", "scripts/set-home.sh")
    for name in ("pyproject.toml", "clients/js/package.json", *scripts, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def check(tree, *tag):
    done = subprocess.run(
        [tree / "scripts/check-version.sh", *tag], capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_all_parts_have_one_version():
    assert check(ROOT) == (0, VERSION)


def test_a_tag_is_the_version_and_has_a_section_in_the_changelog(tree):
    replace(tree / "CHANGELOG.md", "## [Unreleased]", f"## [{VERSION}]")
    assert check(tree, f"v{VERSION}") == (0, VERSION)
    assert check(tree, "v9.9.9") == (1, f"the tag is v9.9.9, the version {VERSION}")


def test_a_tag_without_a_section_is_refused(tree):
    assert check(tree, f"v{VERSION}") == (1, f'CHANGELOG.md has no section "## [{VERSION}]"')


def test_parts_of_different_versions_are_refused(tree):
    replace(tree / "clients/js/package.json", f'"version": "{VERSION}"', '"version": "9.9.9"')
    assert check(tree) == (1, f"pyproject.toml has version {VERSION}, clients/js/package.json 9.9.9")


def test_a_release_says_where_the_project_lives(tree):
    home = "https://github.com/someone/vmrelay"
    subprocess.run([tree / "scripts/set-home.sh", home], check=True)
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    assert {"Homepage", "Documentation", "Changelog", "Issues", "Source"} == project["urls"].keys()
    assert all(url.startswith(home) for url in project["urls"].values())
    package = json.loads((tree / "clients/js/package.json").read_text())
    assert package["repository"] == {"type": "git", "url": f"git+{home}.git", "directory": "clients/js"}
    assert check(tree) == (0, VERSION)
    again = subprocess.run([tree / "scripts/set-home.sh", home], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, "pyproject.toml has [project.urls] already\n")


@pytest.mark.parametrize(
    "workflow", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda path: path.name
)
def test_workflows_run_what_is_there(workflow):
    text = workflow.read_text()
    named = re.findall(r"[\s:](?:\./)?((?:scripts|docker/D|\.ci)[\w./-]+)", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    targets = re.findall(r"make (\w+) >", text)
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if f"\n{target}:" not in makefile] == []

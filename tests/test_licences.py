"""What the software consists of, and under which licences, is told in full."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay.settings import OPTIONS

ROOT = Path(__file__).parent.parent
SBOM = ROOT / "docker/sbom.py"
LOCK = ROOT / "requirements.lock"
ONLY_OF_OLD_PYTHONS = {"PSF-2.0"}
"""typing_extensions, which is not needed from Python 3.13 on."""


def sbom(*arguments, check=True):
    command = [sys.executable, SBOM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def parts(expression):
    return set(expression.strip().split(" AND ")) - ONLY_OF_OLD_PYTHONS


def write_package(folder, name, *fields):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "\n".join(("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *fields))
    )


def licences(component):
    (said,) = component["licenses"]
    return said["expression"] if "expression" in said else said["license"]["id"]


def test_every_locked_package_is_listed_with_version_and_licence():
    document = json.loads(sbom("--lock", LOCK).stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = {component["name"]: component for component in document["components"]}
    pinned = re.findall(r"^(\S+)==(\S+) (;?)", LOCK.read_text(), re.MULTILINE)
    assert listed.keys() >= {name for name, _, marker in pinned if not marker}
    assert listed.keys() <= {name for name, _, _ in pinned}
    assert all(listed[name]["version"] == version for name, version, _ in pinned if name in listed)
    assert licences(listed["scapy"]) == "GPL-2.0-only"
    assert licences(listed["pykka"]) == licences(listed["pyopenssl"]) == "Apache-2.0"
    assert licences(listed["cryptography"]) == "Apache-2.0 OR BSD-3-Clause"
    assert len({component["bom-ref"] for component in listed.values()}) == len(listed)


def test_the_list_is_the_same_each_time():
    assert sbom("--lock", LOCK).stdout == sbom("--lock", LOCK).stdout


def test_the_images_label_names_all_licences():
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    label = re.search(r'org.opencontainers.image.licenses="([^"]+)"', dockerfile)[1]
    assert parts(label) == parts(sbom("--lock", LOCK, "--expression").stdout)
    assert "GPL-2.0-only" in parts(label)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        (("License-Expression: 0BSD",), "0BSD"),
        (("License-Expression: MIT OR Zlib",), "MIT OR Zlib"),
        (("Classifier: License :: OSI Approved :: MIT License",), "MIT"),
        (("License: MIT",), "MIT"),
        (("License: whatever", "Classifier: License :: OSI Approved :: ISC License (ISCL)"), "ISC"),
    ],
)
def test_licences_are_read_in_every_form_of_metadata(tmp_path, fields, licence):
    write_package(tmp_path, "Some_Thing", *fields)
    (component,) = json.loads(sbom("--path", tmp_path).stdout)["components"]
    assert (component["name"], component["purl"]) == ("some-thing", "pkg:pypi/some-thing@1.0")
    assert licences(component) == licence


def test_a_package_without_a_known_licence_is_an_error(tmp_path):
    write_package(tmp_path, "told", "License-Expression: MIT")
    write_package(tmp_path, "untold", "License: ask me")
    for arguments in ((), ("--expression",)):
        done = sbom("--path", tmp_path, *arguments, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "no licence is known of: untold\n"


def test_a_locked_package_that_is_not_there_is_an_error(tmp_path):
    write_package(tmp_path, "there", "License-Expression: MIT")
    lock = tmp_path / "lock"
    lock.write_text("there==1.0 \\\n    --hash=x\nelsewhere==1 ; sys_platform == 'win32'\ngone==1\n")
    done = sbom("--path", tmp_path, "--lock", lock, check=False)
    assert (done.returncode, done.stderr) == (1, "not installed: gone\n")


def test_the_readme_says_it_plainly():
    told = (ROOT / "README.md").read_text().partition("## Licence")[2]
    for words in ("GNU GPL, version 2 **only**", "Apache-2.0", "[MIT](LICENSE)", "`make sbom`"):
        assert words in told


def test_settings_that_the_security_policy_names_exist():
    told = set(re.findall(r"`--(?:no-)?([a-z-]+)`", (ROOT / "SECURITY.md").read_text()))
    assert told
    assert told <= {name.replace("_", "-") for name in OPTIONS}

"""What the documents say of settings, files and targets is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay.admin.routes import ROUTES
from relay.reload import LIVE
from relay.settings import OPTIONS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
EGRESS = (ROOT / "docs/egress.md").read_text()
ADMIN = (ROOT / "docs/admin.md").read_text()


def test_every_setting_is_in_the_table_with_its_variable():
    table = dict(re.findall(r"^\| `(--[a-z0-9-]+)` \| `([A-Z0-9_]+)` \|", SETTINGS, re.MULTILINE))
    table.pop("--config")
    assert table == {
        f"--{name.replace('_', '-')}": option.own_variable or f"VMRELAY_{name.upper()}"
        for name, option in OPTIONS.items()
    }


def anchors(text):
    """What links may name of a Markdown file's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_sections_that_are_linked_exist(document):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        file, _, section = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        assert not section or section in anchors(path.read_text()), target


def test_tests_that_are_named_exist():
    tests = list((ROOT / "tests").rglob("test_*.py"))
    functions = {name for path in tests for name in re.findall(r"def (test_\w+)", path.read_text())}
    there = functions | {path.name for path in tests} | {path.stem for path in tests}
    for document in DOCUMENTS:
        for name, more in re.findall(r"\b(test_\w+(?:\.py)?)(…?)", document.read_text()):
            found = any(function.startswith(name) for function in functions) if more else name in there
            assert found, f"{document.name}: {name}"


def test_every_route_of_the_admin_api_is_named():
    named = re.sub(
        r"(/v1/)\{([a-z,]+)\}",
        lambda found: " ".join(found[1] + name for name in found[2].split(",")),
        ADMIN.partition("\n## The API\n")[2].partition("\n## ")[0] + ADMIN.partition("\n## Monitoring\n")[2],
    )
    for path in {endpoint.path for endpoint in ROUTES}:
        text = re.sub(r"\{(\w+)(?::path)?\}", lambda found: found[1].upper(), path)
        assert re.search(rf"{re.escape(text)}(?![\w/])", named), path


def test_what_a_reload_takes_over_is_named():
    told = ADMIN.partition("\n## What can change while it runs\n")[2]
    told = told.partition("\n- ")[2].partition("\nAll else needs")[0]
    assert set(re.findall(r"`([a-z-]+)`", told)) == {name.replace("_", "-") for name in LIVE}


def test_every_key_that_a_relay_keeps_is_named():
    code = "".join(path.read_text() for path in (ROOT / "relay").rglob("*.py"))
    kept = set(re.findall(r"state\.secret\(\"([a-z-]+)\"\)", code))
    assert kept == set(re.findall(r"`([a-z-]+)\.key`", (ROOT / "docs/state.md").read_text()))


def test_make_targets_that_are_named_exist():
    text = "".join(document.read_text() for document in DOCUMENTS)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize(
    ("text", "ends"),
    [(README, "\n## Quick start"), (EGRESS, "\n- `--allow-cidr")],
    ids=["introduction", "section"],
)
def test_it_says_by_what_guests_reach_the_outside_and_are_reached(text, ends):
    told = text.partition(ends)[0]
    for way in ("TCP", "UDP", "ping", "IPv6", "`--forward`"):
        assert re.search(rf"(?<!\w){way}(?!\w)", told), way


def test_urls_without_tls_are_told_with_the_bind_that_they_need():
    """By default a relay listens at all addresses, and speaks TLS only."""
    told = 0
    for document in (*DOCUMENTS, ROOT / "clients/js/README.md"):
        for part in re.split(r"\n(?:\n|(?=[|-]))", document.read_text()):
            if re.search(r"\b(?:http|ws)://(?:127\.0\.0\.1|localhost):4433", part):
                assert "--bind 127.0.0.1" in part, f"{document.name}: {part}"
                told += 1
    assert told


def test_certbots_hook_hands_on_the_certificate_that_is_there_too(tmp_path):
    text = (ROOT / "docs/deployment.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "RENEWED_LINEAGE" in block)
    live = tmp_path / "letsencrypt/live/relay.example.org"
    live.mkdir(parents=True)
    (tmp_path / "letsencrypt/renewal-hooks/deploy").mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (live / name).write_text(name)
    for folder in ("/etc/letsencrypt", "/srv"):
        block = block.replace(folder, str(tmp_path / Path(folder).name))
    subprocess.run(["sh", "-ec", block], check=True)
    copies = tmp_path / "srv/vmrelay/certs"
    assert {file.name: file.read_text() for file in copies.iterdir()} == {
        "fullchain.pem": "fullchain.pem",
        "privkey.pem": "privkey.pem",
    }
    key = (copies / "privkey.pem").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (10001, 0o400)


AS_WITHOUT_ROOT = """
import ctypes, os, socket, sys
system = ctypes.CDLL(None, use_errno=True)
to_child, to_parent = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(to_parent[0], 1)
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{kind}", "w") as file:
            file.write("0 100000 65536")
    os.write(to_child[1], b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
system.unshare(0x10000000)  # CLONE_NEWUSER
os.write(to_parent[1], b"x")
os.read(to_child[0], 1)
os.setgid(0)
os.setuid(0)
system.unshare(0x40000000)  # CLONE_NEWNET
os.write(os.open("/proc/sys/net/ipv4/ping_group_range", os.O_WRONLY), sys.argv[1].encode())
os.setgid(10001)
os.setuid(10001)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
"""
"""A container of podman's, started by a user, has so many users and groups of its own."""


@pytest.mark.parametrize(
    "file",
    ["README.md", "docs/deployment.md", "docker/docker-compose.yml", "examples/kubernetes/statefulset.yaml"],
)
def test_guests_can_ping_by_the_sysctl_for_containers_wherever_these_run(file):
    found = re.findall(r'ping_group_range\S*\s*(?:value:)?\s*"?(\d+ \d+)"', (ROOT / file).read_text())
    assert len(found) == 1
    done = subprocess.run(
        [sys.executable, "-c", AS_WITHOUT_ROOT, *found], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

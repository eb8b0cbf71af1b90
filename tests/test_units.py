"""The units of systemd that are shipped, as systemd itself judges them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
UNITS = sorted(EXAMPLES.glob("*.service"))
MOST_EXPOSURE = 2.0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_services_are_sandboxed(unit):
    threshold = f"--threshold={MOST_EXPOSURE * 10:.0f}"
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", threshold, unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    found = re.search(rf"Overall exposure level for {unit.name}: ([0-9.]+)", told.stdout)
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_line(unit):
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    ).stderr
    complaints = [line for line in told.splitlines() if "is not executable" not in line]
    assert [line for line in complaints if unit.name in line] == []


PRIVATE = ["unshare", "--user", "--map-root-user"]
"""What PrivateUsers=yes makes of a service: its capabilities, if any, end at its own user namespace."""


@pytest.mark.parametrize(("start", "can_listen"), [(1024, False), (443, True)])
def test_the_relays_service_has_low_ports_by_the_sysctl_that_it_names(start, can_listen):
    unit = (EXAMPLES / "vmrelay.service").read_text()
    assert "PrivateUsers=yes" in unit
    assert "CAP_" not in unit
    name = "net.ipv4.ip_unprivileged_port_start"
    assert name in unit
    sysctl = f'echo {start} > /proc/sys/{name.replace(".", "/")} && exec "$@"'
    listen = [sys.executable, "-c", "import socket; socket.create_server(('', 443))"]
    words = ["unshare", "--net", "sh", "-c", sysctl, "sh", *PRIVATE, *listen]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (tried.returncode == 0) == can_listen, tried.stderr


@pytest.mark.parametrize(("group", "can_read"), [(12345, True), (12346, False)])
def test_the_relays_service_reads_a_key_by_a_group(group, can_read):
    assert "SupplementaryGroups=" in (EXAMPLES / "vmrelay.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        key = Path(folder) / "key.pem"
        key.write_text("a key")
        os.chown(key, 0, 12345)
        key.chmod(0o440)
        user = ["setpriv", "--reuid=65533", "--regid=65533", f"--groups={group}"]
        tried = subprocess.run([*user, *PRIVATE, "cat", key], capture_output=True, text=True, check=False)
    assert (tried.returncode == 0) == can_read, tried.stderr


def test_what_is_to_be_typed_puts_things_where_the_units_find_them(tmp_path):
    text = (EXAMPLES.parent / "docs/deployment.md").read_text()
    (block,) = re.findall(r"^```sh\n(python3 -m venv .*?)^```$", text, re.MULTILINE | re.DOTALL)
    words = [line.split() for line in block.splitlines()]
    for folder in ("etc/systemd/system", "usr/local/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for line in words:
        if line[0] in {"install", "ln"}:
            here = [f"{tmp_path}{word}" if word[0] == "/" else word for word in line]
            subprocess.run(here, cwd=EXAMPLES.parent, check=True)
    assert words[-1] == ["systemctl", "enable", "--now", "vmrelay"]
    unit = (tmp_path / "etc/systemd/system/vmrelay.service").read_text()
    program, _, settings = re.search(r"^ExecStart=(\S+) (\S+) (\S+)", unit, re.MULTILINE).groups()
    assert Path(f"{tmp_path}{settings}").is_file()
    assert str(Path(f"{tmp_path}{program}").readlink()) == f"{tmp_path}{words[0][-1]}/bin/vmrelay"


def test_the_relays_service_is_not_tried_again_with_a_wrong_setting():
    unit = (EXAMPLES / "vmrelay.service").read_text()
    status = re.search(r"^RestartPreventExitStatus=(\d+)$", unit, re.MULTILINE)[1]
    words = [sys.executable, "-m", "vmrelay", "--port", "70000"]
    ended = subprocess.run(words, capture_output=True, cwd=EXAMPLES.parent, check=False, timeout=60)
    assert ended.returncode == int(status)


def test_the_relays_service_may_write_where_the_configuration_has_its_audit_log():
    unit = (EXAMPLES / "vmrelay.service").read_text()
    folder = re.search(r"^LogsDirectory=(.*)$", unit, re.MULTILINE)[1]
    log = re.search(r'^#audit-log = "(.*)"$', (EXAMPLES / "vmrelay.toml").read_text(), re.MULTILINE)[1]
    assert Path(log).parent == Path("/var/log", folder)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_no_service_keeps_its_folder_where_only_root_may_enter(unit):
    """Of a dynamic user, systemd puts one that is to outlive the service below /run/private, of mode 0700."""
    lines = unit.read_text().splitlines()
    assert "DynamicUser=yes" in lines
    assert not [line for line in lines if line.startswith("RuntimeDirectoryPreserve=")]


def test_the_group_of_a_machine_has_the_folder_of_its_cards_socket(tmp_path):
    unit = (EXAMPLES / "vmrelay-attach.service").read_text()
    command = re.search(r"^ExecStartPre=\+(.*) (/run/\S+)$", unit, re.MULTILINE)
    socket = re.search(r" --qemu (\S+) ", unit)[1]
    assert Path(socket).parent == Path(command[2])
    assert f"\nReadWritePaths=-{command[2]}\n" in unit
    folder, words = tmp_path / "run", command[1].replace("-g kvm", "-g 12345").split()
    for _ in range(2):
        subprocess.run([*words, folder], check=True)
        (folder / "vm0").touch()
    found = folder.stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (12345, 0o2770)
    assert (folder / "vm0").stat().st_gid == 12345

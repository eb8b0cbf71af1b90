"""The command as Wireshark runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from operators import pings
from processes import PATIENCE, run


def test_wireshark_finds_the_relay_and_captures(relay, guest, tmp_path):
    folder, fifo = tmp_path / "run", tmp_path / "fifo"
    folder.mkdir(mode=0o700)
    (folder / "77.sock").symlink_to(relay.admin)
    environment = os.environ | {"RUNTIME_DIRECTORY": str(folder)}

    def extcap(*words):
        return run(sys.executable, "-m", "relay.main", "extcap", *words, env=environment).stdout

    assert "interface {value=vmrelay-77}{display=vmrelay at UDP 77}" in extcap("--extcap-interfaces")
    assert "{name=EN10MB}" in extcap("--extcap-interface", "vmrelay-77", "--extcap-dlts")
    assert "{call=--room}" in extcap("--extcap-interface", "vmrelay-77", "--extcap-config")
    assert "no filter" in extcap("--extcap-interface", "vmrelay-77", "--extcap-capture-filter", "no such")
    os.mkfifo(fifo)
    before = relay.output.count("captures")
    command = [sys.executable, "-m", "relay.main", "extcap", "--capture", "--extcap-interface", "vmrelay-77"]
    process = subprocess.Popen([*command, "--fifo", str(fifo)], env=environment)
    with fifo.open("rb") as file:
        relay.wait_for("captures", count=before + 1)
        pings(guest)
        assert file.read(4) == b"\x0a\x0d\x0d\x0a"
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)


def test_wireshark_is_told_where_the_command_is(tmp_path):
    done = run(
        sys.executable, "-m", "relay.main", "extcap", "--install", env=os.environ | {"HOME": str(tmp_path)}
    )
    script = tmp_path / ".local/lib/wireshark/extcap/vmrelay"
    assert done.stdout.strip() == str(script)
    assert "extcap {version=" in run(script, "--extcap-interfaces").stdout

"""Completion scripts, by the shells themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import run

from relay.main import COMMANDS


def script(shell):
    return run(sys.executable, "-m", "relay.main", "completion", shell).stdout


def test_bash_completes_commands_and_flags(tmp_path):
    (tmp_path / "vmrelay.bash").write_text(script("bash"))
    code = f"""
        source {tmp_path}/vmrelay.bash
        complete_it() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            local how=$(complete -p vmrelay | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            $how vmrelay "${{@: -1}}" ""; echo "${{COMPREPLY[@]}}"; }}
        complete_it vmrelay sta
        complete_it vmrelay ban --ti
    """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "status" in first.split()
    assert second.split() == ["--time"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("--congestion ''", "bbr cubic reno"),
        ("doctor --auth o", "off optional"),
        ("--cert-pem {0}/full", "{0}/fullchain.pem"),
        ("token create {0}/k", "{0}/keys.json"),
        ("capture -w {0}/k", "{0}/keys.json"),
        ("--state {0}/s", "{0}/state"),
        ("attach --qemu {0}/full", "{0}/fullchain.pem"),
    ],
)
def test_bash_completes_values_of_settings_and_paths(tmp_path, words, offered):
    (tmp_path / "vmrelay.bash").write_text(script("bash"))
    for name in ("fullchain.pem", "keys.json"):
        (tmp_path / name).touch()
    (tmp_path / "state").mkdir()
    code = f"""
        source {tmp_path}/vmrelay.bash
        COMP_WORDS=(vmrelay {words.format(tmp_path)}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $(complete -p vmrelay | sed 's/.*-F \\([^ ]*\\).*/\\1/') vmrelay "${{COMP_WORDS[@]: -1}}" ""
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered.format(tmp_path).split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_every_script(shell):
    text = script(shell)
    assert all(command in text for command in COMMANDS)
    assert "--bit-rate" in text or "bit-rate" in text
    subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_another_shell_is_refused_in_one_line():
    done = run(sys.executable, "-m", "relay.main", "completion", "cmd", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)

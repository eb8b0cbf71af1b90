"""The commands and programs of docs/clients.md, pasted as they stand there; only hosts, hashes, sockets and
names of namespaces are other ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys

import pytest
from processes import ROOT, THIS_TREE, Program, Relay, run

VMRELAY = shlex.join(THIS_TREE)
NAMESPACE = f"vmr{os.getpid()}-pasted"
BARE = "-accel tcg -m 64 -nodefaults -display none"
"""A machine without a system: it boots from its network card."""
BOOTING = 120.0
"""Seconds for its firmware, on a busy machine without KVM."""
BROADCASTS = (
    'sendp(Ether(dst="ff:ff:ff:ff:ff:ff") / IP(dst="10.0.2.255") / UDP(), loop=1, inter=0.1, verbose=0)'
)

PROMPT = """
import code
for line in {!r}:
    code.InteractiveInterpreter(globals()).runsource(line)
"""
"""Takes lines as a prompt does: what an expression gives is shown."""


def blocks_in(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def documented(section, kind):
    """Give the blocks of a kind in a section, as they stand there."""
    text = (ROOT / "docs/clients.md").read_text()
    part = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    blocks = blocks_in(part, kind)
    assert blocks, f"{section} has no {kind}"
    return blocks


def pasted(section, kind, relay):
    """Give them for a relay of ours."""
    blocks = documented(section, kind)
    ours = {r"(127\.0\.0\.1|HOST):4433": f"127.0.0.1:{relay.port}", r"\bHASH\b": relay.hash}
    for pattern, replacement in ours.items():
        blocks = [re.sub(pattern, replacement, block) for block in blocks]
    return blocks


@pytest.fixture(scope="module")
def relay():
    relay = Relay()
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


def test_a_namespace_with_a_tap_device_is_a_guest(relay):
    (block,) = pasted("TAP devices", "sh", relay)
    block = re.sub(r"(netns (?:add|exec)|--netns) vm\b", rf"\1 {NAMESPACE}", block)
    block = block.replace("sudo ", "").replace(".venv/bin/vmrelay", VMRELAY)
    add, attach, ping = block.splitlines()
    run(*shlex.split(add))
    attached = Program(*shlex.split(attach))
    try:
        attached.wait_for("address 10")
        assert " 3 received" in run(*shlex.split(ping, comments=True), "-c", 3).stdout
    finally:
        attached.stop()
        run("ip", "netns", "delete", NAMESPACE)


def test_what_may_be_typed_in_the_shell(relay):
    (command,) = pasted("Debug shell", "sh", relay)
    (session,) = pasted("Debug shell", "pycon", relay)
    lines = [line.removeprefix(">>> ") for line in session.splitlines()]
    assert len(lines) > 3
    shell = shlex.split(re.sub(r"^vmrelay", VMRELAY, command))
    neighbour = Program(*shell[:-1], "-c", BROADCASTS, shell[-1])
    try:
        done = run(*shell, input=PROMPT.format(lines), cwd=ROOT, patience=60)
    finally:
        neighbour.stop()
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "op=is-at" in said, "the answer to the ARP request"
    assert "echo-reply" in said
    assert len(re.findall(r"^Ether / ", done.stdout, re.MULTILINE)) >= 10


def test_a_network_card_in_python(relay, tmp_path):
    (block,) = pasted("Python", "python", relay)
    program = tmp_path / "card.py"
    probe = "ffffffffffff 525400ab0001 0806 0001 0800 06 04 0001 525400ab0001 00000000 000000000000 0a000202"
    program.write_text(f"frame = bytes.fromhex({probe!r})\n{block}")
    card = Program(sys.executable, program, environment={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})
    try:
        card.wait_for(r"^address 10\.0\.2\.\d+")
        card.wait_for(r"^[1-9]\d* frames")
    finally:
        card.stop()


def test_a_qemu_machine_is_a_guest_once_its_lines_are_pasted(relay, tmp_path):
    (block,) = pasted("QEMU", "sh", relay)
    block = block.replace("/tmp/nic0", str(tmp_path / "nic0")).replace("…", BARE)
    # In a process group of its own, which has both.
    pasting = Program("setsid", "sh", "-c", re.sub(r"^vmrelay", VMRELAY, block))
    try:
        pasting.wait_for(r"attached to \S+ as \S+, address 10", patience=BOOTING)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pasting.pid, signal.SIGTERM)
        pasting.stop()


def test_the_introduction_has_the_same_lines_for_qemu():
    (block,) = documented("QEMU", "sh")
    assert block in blocks_in((ROOT / "README.md").read_text(), "sh")

"""docs/shell.md, typed at a terminal as it stands there, with a kernel on the LAN that serves a page."""

from __future__ import annotations

import shlex
import sys
import threading
from types import SimpleNamespace

import pytest
from documents import blocks_in, says, sections_of
from kernel_guest import KernelGuest
from operators import OperatedRelay
from processes import ROOT, THIS_TREE, Program, run
from terminals import Shell

SECTIONS = sections_of((ROOT / "docs/shell.md").read_text())
HOST = SimpleNamespace(start=Program)
"""Where the relay and its client run: no namespace."""


@pytest.fixture
def relay(tmp_path):
    relay = OperatedRelay(tmp_path)
    yield relay
    relay.stop()


@pytest.fixture
def web(relay, tmp_path):
    guest = KernelGuest("web", relay, HOST, "--name", "web", "--mac", "52:54:00:00:00:0a")
    server = guest.start(sys.executable, "-u", "-m", "http.server", 8080, "--directory", tmp_path)
    server.wait_for("Serving")
    yield guest
    server.stop()
    guest.leave()


def ours(text, relay):
    return text.replace("HOST:4433", f"127.0.0.1:{relay.port}").replace("HASH", relay.hash)


def typed(section):
    """Give what is typed in a section, with what is shown then; lines that go on are one."""
    entries = []
    for line in "".join(blocks_in(SECTIONS[section], "pycon")).splitlines():
        if line.startswith(">>> "):
            entries.append(([line[4:]], []))
        elif line.startswith("..."):
            entries[-1][0].append(line[4:])
        else:
            entries[-1][1].append(line)
    assert entries
    return entries


def ask(terminal, lines):
    """Type an entry line by line, and an empty line behind a block; give what was printed then."""
    if len(lines) == 1:
        return terminal.ask(lines[0])
    for line in lines:
        terminal.type(f"{line}\n")
        terminal.expect("... ")
    terminal.type("\n")
    terminal.expect("\r\n")
    return terminal.expect(">>> ")


def when_told(relay, news, act):
    """Do something once the relay says that somebody looks on."""
    before = relay.output.count(news)

    def wait():
        relay.wait_for(news, count=before + 1)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_running_relay_at_the_prompt(relay, web):
    web.speak_only_when_asked()  # or frames of its may be in one batch with those that are looked at
    terminal = Shell("--admin", relay.admin)
    lookers = {
        "relay.sniff": (" captures ", lambda: web.ping("10.0.2.2", count=1)),
        "relay.trace": (" traces ", lambda: web.ping("192.168.1.5", count=1)),
    }
    try:
        for lines, shown in typed("On a running relay"):
            meanwhile = [when_told(relay, *what) for name, what in lookers.items() if name in lines[0]]
            said = ask(terminal, lines)
            for thread in meanwhile:
                thread.join()
            assert says(said, shown), f"{lines}\n{said}"
    finally:
        terminal.close()
    assert relay.wait_for(r"the operator \(\S+\) injected 3 frames as peer 1")
    assert relay.wait_for("for a try")


def test_a_guest_of_scapys_at_the_prompt(relay, web):
    terminal = Shell("--cert-hash", relay.hash, relay.url)
    try:
        for lines, shown in typed("As a guest"):
            said = ask(terminal, lines)
            assert says(said, shown), f"{lines}\n{said}"
    finally:
        terminal.close()


def test_a_script_from_a_file(relay, web, tmp_path):
    (block,) = blocks_in(SECTIONS["Scripts"], "sh")
    script = ours(block, relay).replace("vmrelay shell", f"{shlex.join(THIS_TREE)} shell")
    done = run("sh", "-e", "-c", script, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert (done.stdout, done.stderr) == (f"{web.address} {web.mac}\n", "")


def programs(relay):
    return [ours(block, relay) for block in blocks_in(SECTIONS["In programs"], "python")]


def test_a_socket_of_a_programs_own(relay, tmp_path):
    program = tmp_path / "probe.py"
    program.write_text(programs(relay)[0])
    done = run(sys.executable, program, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "52:54:00:12:34:56\n"
    relay.wait_for("peer 1 closed: disconnected")


def test_sr_a_sniffer_and_an_automaton_in_a_program(relay, web, tmp_path):
    program = tmp_path / "automaton.py"
    program.write_text(programs(relay)[1])
    done = run(sys.executable, program, env={"PYTHONPATH": str(ROOT)})
    answered, automaton, sniffed = done.stdout.splitlines()
    assert answered == "2 answered, 0 did not"
    assert automaton == "three answers"
    assert "echo-reply" in sniffed

from __future__ import annotations

import sys

import pytest
from operators import OperatedRelay
from processes import run
from terminals import Terminal

VMRELAY = (sys.executable, "-m", "relay.main")


@pytest.fixture
def relay(tmp_path):
    relay = OperatedRelay(tmp_path)
    yield relay
    relay.stop()


def ended(*words):
    """Run it in a terminal to the end; give status and output."""
    terminal = Terminal("top", *words)
    try:
        return terminal.wait(), terminal.unread
    finally:
        terminal.close()


def test_it_is_for_terminals(relay):
    for words in ((), ("--json",)):
        said = relay.vmrelay("top", *words, status=1)
        assert said == "vmrelay: error: this is for a terminal; vmrelay status --json is for programs\n"


def test_a_relay_that_cannot_be_asked_is_said_in_a_line(tmp_path):
    status, said = ended("--admin", tmp_path / "none.sock")
    assert (status, said.count("\n")) == (1, 1)
    assert "No such file" in said


@pytest.mark.parametrize("interval", ["0.01", "soon", "0"])
def test_an_interval_that_cannot_be_is_refused(interval):
    done = run(*VMRELAY, "top", "-n", interval, check=False)
    assert done.returncode == 2
    assert "--interval" in done.stderr


def test_without_its_library_it_says_what_to_install(relay, monkeypatch, tmp_path):
    # As if it were not installed: the import system looks no further.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, said = ended("--admin", relay.admin)
    assert status == 1
    assert "pip install 'vmrelay[top]'" in said


def test_the_library_is_not_loaded_by_other_commands(relay):
    code = (
        "import sys; from relay.main import main; "
        f"main(['rooms', '--admin', {str(relay.admin)!r}]); print('textual' in sys.modules)"
    )
    assert run(sys.executable, "-c", code).stdout.splitlines()[-1] == "False"

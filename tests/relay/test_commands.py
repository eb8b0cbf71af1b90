"""Commands that ask a running relay, where they cannot."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
from processes import THIS_TREE, free_port, run

NO_UTF8 = "\udcff"
"""As Python has a byte of the command line that is none; the commands that are run get that byte."""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ban", "address=nowhere"), "must be an address or a network"),
        (("ban", "mac=1"), "MAC"),
        (("ban", "planet=earth"), "address, mac or token can be banned"),
        (("peers", "--room", "nope"), "there is no room nope"),
        (("forwards", "--add", "tcp:1"), "must be"),
        (("disconnect", "9" * 5000), "no session is called 999"),
        (("forwards", "--room", "nope", "--add", "tcp::1:web:1"), "there is no room nope"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(relay, words, complaint):
    said = relay.vmrelay(*words, status=1)
    assert complaint in said
    assert said.count("\n") == 1


def test_what_a_command_cannot_mean_is_said_in_one_line_too(relay):
    said = relay.vmrelay("ban", "nobody", status=2)
    assert "address=192.0.2.0/24" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("why", "192.0.2.1", "--to-port", "0"),
        ("why", "192.0.2.1", "--to-port", "65536"),
        ("dashboard", "--http-port", "65536"),
        ("dashboard", "--http-port", "-1"),
        ("capture", "--snaplen", "-1"),
        ("capture", "--files", "x"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_range(relay, words):
    said = relay.vmrelay(*words, status=2)
    assert "must be a whole number from " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("why", NO_UTF8), 2, "no UTF-8"),
        (("peers", "--room", NO_UTF8), 2, "no UTF-8"),
        (("disconnect", "1", "--reason", NO_UTF8), 2, "no UTF-8"),
        (("ban", "--lift", NO_UTF8), 2, "no UTF-8"),
        (("ban", "mac=52:54:00:00:00:08", "--reason", NO_UTF8), 2, "no UTF-8"),
        (("capture", "-w", "/", "--file-size", "10M"), 1, "/: Is a directory"),
        (("capture", "--file-size", "10M"), 2, "need -w FILE"),
        (("capture", "-w", "-", "--file-time", "1h"), 2, "need -w FILE"),
        (("capture", "-w", "/dev/null", "--files", "3"), 2, "--files keeps the latest"),
        (("status", "--admin", "http://localhost:abc"), 2, "abc"),
        (("status", "--admin", "http://localhost:99999"), 2, "out of range"),
        (("status", "--admin", "http://[::1"), 2, "Invalid IPv6 URL"),
        (("status", "--admin", "http://a..b:9000"), 1, "not a host name"),
        (("status", "--admin", "https://127.0.0.1:9000"), 2, "no TLS"),
        (("shell", "--admin", "http://localhost:abc"), 2, "abc"),
    ],
)
def test_bad_input_is_said_in_one_line_and_never_by_a_traceback(relay, words, status, complaint):
    said = relay.vmrelay(*words, status=status)
    assert complaint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["жук", "a\nb"])
def test_users_of_all_names_may_ask(relay, name):
    environment = os.environ | {"LOGNAME": name}
    done = run(*THIS_TREE, "ban", "mac=52:54:00:00:00:07", "--admin", relay.admin, env=environment)
    assert done.stdout == "mac:52:54:00:00:00:07 is banned; 0 sessions were ended\n"
    named = json.dumps(name.encode("unicode_escape").decode())[1:-1]  # as a field of a line of JSON
    relay.wait_for(re.escape(f'"the operator ({named}) banned mac 52:54:00:00:00:07"'))


def test_what_others_say_steers_no_terminal(relay):
    relay.vmrelay("ban", "mac=52:54:00:00:00:09", "--reason", "\x1b[2Jgone\nand more")
    said = relay.vmrelay("ban")
    assert r"\x1b[2Jgone\nand more" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_without_a_relay_the_commands_say_so(tmp_path):
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "VMRELAY_ADMIN": "",
    }
    done = run(
        *(sys.executable, "-m", "relay.main", "status", "--port", free_port()),
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no relay of this user is running here at port" in done.stderr


def test_a_socket_that_nobody_listens_at_is_said_in_one_line(tmp_path):
    done = run(sys.executable, "-m", "relay.main", "rooms", "--admin", tmp_path / "x.sock", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No such file" in done.stderr

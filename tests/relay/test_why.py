"""Whether guests would reach something, as a running relay says it, and as its packets go."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from operators import OperatedRelay
from processes import run

from guest.relay_socket import RelayPeer

MAC = "52:54:00:00:78:01"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    options = ("--allow-cidr", "127.0.0.0/8", "--deny-cidr", "198.51.100.0/24")
    relay: Any = OperatedRelay(tmp_path_factory.mktemp("admin"), *options)
    peer = RelayPeer(relay.url, insecure=True, mac=MAC, name="web")
    relay.guest = str(peer.assigned.ip)
    yield relay
    peer.close()
    relay.stop()


@pytest.mark.parametrize(
    ("words", "ok", "answer"),
    [
        (("127.0.0.1",), True, "yes, from 127.0.0.1"),
        (("127.0.0.1", "--to-port", "25"), False, "--allow-smtp"),
        (("127.0.0.1", "--to-port", "25", "--protocol", "udp"), True, "yes, from"),
        (("10.9.9.9",), False, "--allow-cidr"),
        (("169.254.169.254",), False, "--allow-cidr"),
        (("198.51.100.7",), False, "--deny-cidr"),
        (("10.0.2.2",), True, "the gateway's own"),
        (("10.0.2.99",), False, "nobody on the LAN has it"),
        (("web",), True, "session"),
        (("web.vm.internal",), True, "session"),
        (("nowhere.invalid",), False, ""),
        (("127.0.0.1", "--from", "web"), True, "yes, from"),
        (("127.0.0.1", "--from", MAC), True, "yes, from"),
        (("127.0.0.1", "--from", "ghost"), False, "none has this name"),
    ],
)
def test_the_last_step_decides_and_names_the_rule(relay, words, ok, answer):
    steps = relay.asked("why", *words)
    assert all(step["ok"] for step in steps[:-1])
    assert steps[-1]["ok"] is ok
    assert answer in steps[-1]["answer"]


def test_the_verdict_is_for_people_too(relay):
    told = run(sys.executable, "-m", "relay.main", "why", "10.9.9.9", "--admin", relay.admin).stdout
    assert told.splitlines()[-1] == "=> it would not get through"
    told = run(sys.executable, "-m", "relay.main", "why", relay.guest, "--admin", relay.admin).stdout
    assert told.splitlines()[-1] == "=> it would be let through"


def test_bad_questions_are_refused(relay):
    for words in (("",), ("x", "--room", "nope")):
        done = run(sys.executable, "-m", "relay.main", "why", *words, "--admin", relay.admin, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)

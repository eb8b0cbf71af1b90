"""WebTransport libraries that are not ours, as guests: docs/clients.md has the list of what was tried."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
from processes import ROOT, Relay, run

GO_MODULE = ROOT / "tests/system/webtransport_go"
STEPS = ["status 200", "Assigned", "reset", "HeartbeatAck", "closed"]


def version(text):
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def go_is_new_enough():
    """Whether there is a Go that builds the module; distributions have older ones than it needs."""
    if shutil.which("go") is None:
        return False
    wanted = re.search(r"^go (\S+)$", (GO_MODULE / "go.mod").read_text(), re.MULTILINE)[1]
    return version(run("go", "env", "GOVERSION", cwd="/").stdout) >= version(wanted)


CLIENTS = ["aioquic", "webtransport-go"] if go_is_new_enough() else ["aioquic"]


@pytest.fixture(scope="module")
def guest(request, tmp_path_factory):
    """The command that runs a client."""
    if request.param == "aioquic":
        return [sys.executable, ROOT / "tests/system/aioquic_guest.py"]
    program = tmp_path_factory.mktemp("go") / "guest"
    run("go", "build", "-o", program, ".", cwd=GO_MODULE, patience=300)
    return [program]


@pytest.mark.parametrize("guest", CLIENTS, indirect=True)
def test_a_client_of_the_current_drafts_is_a_guest(guest):
    relay = Relay()
    try:
        done = run(*guest, relay.url, relay.hash, check=False)
        assert done.stdout.splitlines() == STEPS, done.stderr
        # It moves to another connection ID right behind the handshake, and loses nothing by that.
        assert relay.counters()["endpoint.drop.unknown_connection"] == 0
    finally:
        relay.stop()

"""What a running relay takes over from its configuration, and what it names as fixed."""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import Any

import pytest
from processes import Relay, free_port, run

from relay.reload import LIVE, differences, merged
from relay.settings import OPTIONS, Settings


def test_all_live_settings_exist():
    assert set(OPTIONS) >= LIVE


def test_differences_tell_live_ones_from_fixed_ones():
    old = Settings()
    new = Settings(log_level="debug", bit_rate=5, isolated=True, ipv6=False)
    assert differences(old, new) == (["bit-rate", "log-level"], ["ipv6", "isolated"])
    taken = merged(old, new)
    assert (taken.log_level, taken.bit_rate, taken.isolated, taken.ipv6) == ("debug", 5, False, True)


@pytest.fixture
def relay(tmp_path):
    tmp_path.joinpath("relay.toml").write_text("")
    relay: Any = Relay("--config", tmp_path / "relay.toml", "--admin", tmp_path / "admin.sock")
    relay.file, relay.admin = tmp_path / "relay.toml", tmp_path / "admin.sock"
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


def reload(relay, text, status=0):
    relay.file.write_text(text)
    done = run(sys.executable, "-m", "relay.main", "reload", "--json", "--admin", relay.admin, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_forwards_follow_the_configuration(relay):
    first, second, by_hand = free_port(), free_port(), free_port()
    run(
        *(sys.executable, "-m", "relay.main", "forwards", "--admin", relay.admin),
        *("--add", f"tcp:127.0.0.1:{by_hand}:web:80"),
    )
    assert reload(relay, f'forward = ["tcp::{first}:web:80"]')["changed"] == ["forward"]
    assert (is_open(first), is_open(second), is_open(by_hand)) == (True, False, True)
    reload(relay, f'forward = ["tcp::{second}:web:80"]')
    assert (is_open(first), is_open(second), is_open(by_hand)) == (False, True, True)


def test_a_signal_does_the_same_and_fixed_settings_are_named(relay):
    relay.file.write_text('log-level = "debug"\nisolated = true\n')
    relay.signal(signal.SIGHUP)
    relay.wait_for("other settings are in force: log-level")
    relay.wait_for("these settings need a restart: isolated")


def test_a_file_with_a_mistake_changes_nothing(relay):
    told = reload(relay, "bit-rat = 5", status=1)
    assert told["changed"] == []
    assert "unknown setting 'bit-rat', perhaps 'bit-rate'" in told["errors"][0]
    relay.wait_for("the settings stay as they were")
    assert reload(relay, 'log-level = "warning"')["changed"] == ["log-level"]

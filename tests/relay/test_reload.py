"""What a running relay takes over from its configuration, and what it names as fixed."""

from __future__ import annotations

import json
import signal
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from processes import Relay, free_port, run

from relay.reload import LIVE, differences, merged
from relay.room_tables import RoomTables
from relay.settings import OPTIONS, Settings, SettingsWithRooms
from relay.tokens import make_key
from transport.certificates import generate


def test_all_live_settings_exist():
    assert set(OPTIONS) >= LIVE


def test_differences_tell_live_ones_from_fixed_ones():
    old = Settings()
    new = Settings(log_level="debug", bit_rate=5, isolated=True, ipv6=False)
    assert differences(old, new) == (["bit-rate", "log-level"], ["ipv6", "isolated"])
    taken = merged(old, new)
    assert (taken.log_level, taken.bit_rate, taken.isolated, taken.ipv6) == ("debug", 5, False, True)


def with_rooms(others, **named):
    return SettingsWithRooms(tables=RoomTables(others, named))


def test_of_rooms_too_only_live_settings_are_taken_over():
    old = with_rooms(
        {"auth": "required", "max_peers": 5},
        a={"internet": False, "bit_rate": 1},
        b={"internet": False, "bit_rate": 1},
    )
    new = with_rooms(
        {"auth": "off", "max_peers": 6},
        a={"internet": True, "bit_rate": 2},
        c={"isolated": True, "bit_rate": 3, "auth": "optional"},
    )
    assert differences(old, new) == (
        ["auth", "bit-rate", "isolated", "max-peers"],
        ["auth", "internet"],
    )
    taken = merged(old, new)
    for room, in_force in {
        "default": ("off", True, False, 0, 1024),
        "a": ("required", False, False, 2, 6),
        "b": ("required", False, False, 0, 6),
        "c": ("optional", True, True, 3, 6),
        "other": ("required", True, False, 0, 6),
    }.items():
        of = taken.of_room(room)
        assert (of.auth, of.internet, of.isolated, of.bit_rate, of.max_peers) == in_force
    assert taken.rooms == {"a", "b", "c"}
    assert differences(taken, new) == ([], ["auth", "internet"]), "it is said each time"


@pytest.mark.parametrize(
    ("table", "fixed"),
    [({"internet": False}, ["internet"]), ({"auth": "required", "max_peers": 5}, ["auth"])],
)
def test_a_room_that_the_file_names_no_more_is_not_opened(table, fixed):
    old, live = with_rooms({}, b=table), {"max_peers": 1024}
    assert differences(old, Settings()).fixed == fixed
    taken = merged(old, Settings())
    expected = {**table, **live}
    assert {name: getattr(taken.of_room("b"), name) for name in expected} == expected


def test_a_room_of_live_settings_only_goes_with_its_table_and_comes_with_an_empty_one():
    old = with_rooms({}, b={"max_peers": 5})
    assert differences(old, Settings()) == (["max-peers"], [])
    assert merged(old, Settings()) == Settings()
    assert merged(Settings(), with_rooms({}, c={})).rooms == {"c"}


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


def test_a_room_that_is_added_is_there_at_once_with_its_forwards(relay):
    port = free_port()
    reload(relay, f'[room.lab]\nforward = ["tcp::{port}:web:80"]')
    assert is_open(port)
    reload(relay, "")
    assert not is_open(port)


def test_a_forward_that_moves_from_room_to_room_is_open_all_the_same(relay):
    port = free_port()
    for table in ("[room.lab]", "", "[room.attic]", ""):
        reload(relay, f'{table}\nforward = ["tcp::{port}:web:80"]')
        assert is_open(port), table
    assert "cannot forward" not in relay.output


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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_certificate_and_keys_that_cannot_be_used_are_errors_and_those_of_before_stay(tmp_path, workers):
    made, keys = generate(["localhost"], datetime.now(UTC)), tmp_path / "keys.json"
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(made.chain_pem())
    key.write_bytes(made.private_key_pem())
    keys.write_text(json.dumps({"keys": [make_key("HS256")]}))
    relay: Any = Relay(
        *("--cert-pem", chain, "--key-pem", key, "--auth", "optional", "--auth-keys", keys),
        *("--admin", tmp_path / "admin.sock", "--workers", workers),
    )
    relay.file, relay.admin = tmp_path / "relay.toml", tmp_path / "admin.sock"
    try:
        assert reload(relay, "")["errors"] == []
        key.write_bytes(generate(["localhost"], datetime.now(UTC)).private_key_pem())
        keys.write_text("[")
        of_certificate, of_keys = reload(relay, "", status=1)["errors"]
        assert "the certificate stays as it was: " in of_certificate
        assert "the keys and revoked tokens stay as they were: " in of_keys
    finally:
        relay.stop()

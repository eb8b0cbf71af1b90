from __future__ import annotations

import json
import os
import sys
import tomllib

import pytest
from processes import run

from relay.settings import OPTIONS, Settings, explain
from relay.tokens import make_key, public_half


def vmrelay(*words, status=0, **environment):
    done = run(
        *(sys.executable, "-m", "relay.main", "config", *words), check=False, env=os.environ | environment
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def test_each_value_is_told_with_its_origin(tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text("max-peers = 5\nport = 1\n")
    told = vmrelay("print", "--config", file, "--dns", "9.9.9.9", VMRELAY_PORT="2")
    assert f"max-peers = 5  # file {file}" in told
    assert "port = 2  # environment VMRELAY_PORT" in told
    assert 'dns = "9.9.9.9"  # flag --dns' in told
    assert '#bind = "::"\n' in told
    as_json = json.loads(vmrelay("print", "--json", "--config", file))
    assert as_json["port"] == {"value": 1, "from": f"file {file}"}
    assert as_json["web"] == {"value": "auto", "from": "default"}


def test_what_is_printed_is_a_file_that_means_the_same(tmp_path):
    flags = ("--forward", "tcp::80:web:80", "--allow-cidr", "192.0.2.0/24,2001:db8::/32", "--bit-rate", "5M")
    others = ("--packet-rate", "off", "--static-lease", "52:54:00:00:00:01=10.0.2.50=web", "--no-ipv6")
    told = vmrelay("print", *flags, *others)
    again = tmp_path / "again.toml"
    again.write_text(told)
    assert vmrelay("print", "--config", again).replace(f"file {again}", "X").splitlines() == [
        line.partition("  # flag")[0] + "  # X" if "  # flag" in line else line for line in told.splitlines()
    ]
    own = {"forward", "allow-cidr", "bit-rate", "packet-rate", "static-lease", "ipv6"}
    assert set(tomllib.loads(told)) - {"state"} == own  # tests keep no state


def test_each_default_that_is_printed_may_be_uncommented(tmp_path):
    lines = [line.removeprefix("#") for line in vmrelay("print").splitlines() if not line.endswith("=")]
    file = tmp_path / "relay.toml"
    file.write_text("\n".join(lines))
    assert len(lines) > len(OPTIONS) / 2
    assert explain({"config": str(file)}, {"VMRELAY_STATE": "auto"})[0] == Settings()


ROOMS = """
bit-rate = "5M"
forward = ["tcp::8080:web:80"]
auth-keys = "{keys}"

[rooms]
auth = "required"
isolated = true
bit-rate = 1000000
allow-cidr = ["192.0.2.0/24", "2001:db8::/32"]

[room.red]
lease-time = "5m"
isolated = false
static-lease = ["52:54:00:00:00:01=10.0.2.50=db"]
dhcp-wpad = "http://a.example/\\"quoted\\""

[room.blue-2]

[room.island]
internet = false
allow-cidr = []
tcp-timeout = 7440.5
"""


def test_the_rooms_tables_are_printed_too_and_mean_the_same_again(tmp_path):
    keys, file, again = (tmp_path / name for name in ("keys.json", "rooms.toml", "again.toml"))
    keys.write_text(json.dumps({"keys": [public_half(make_key("EdDSA"))]}))
    file.write_text(ROOMS.format(keys=keys))
    again.write_text(vmrelay("print", "--config", file))
    meant, found = (explain({"config": str(path)}, os.environ)[0] for path in (file, again))
    assert found.rooms == meant.rooms == {"red", "blue-2", "island"}
    for room in ("default", "without a table", *meant.rooms):
        assert found.of_room(room) == meant.of_room(room), room
    assert found.of_room("blue-2").isolated
    as_json = json.loads(vmrelay("print", "--json", "--config", file))
    written = tomllib.loads(file.read_text())
    for name in ("rooms", "room"):
        assert as_json[name] == {"value": written[name], "from": f"file {file}"}
    as_json = json.loads(vmrelay("print", "--json"))
    assert as_json["rooms"] == as_json["room"] == {"value": {}, "from": "default"}


def test_texts_of_any_characters_are_printed_as_toml_has_them(tmp_path):
    folder = tmp_path / 'a"b\\ \xfc\U0001f600\x7f\t'
    again = tmp_path / "again.toml"
    again.write_text(vmrelay("print", "--state", folder))
    assert tomllib.loads(again.read_text())["state"] == str(folder)


def test_origins_are_told_for_all_settings():
    _, origins = explain({"port": "5"}, {"VMRELAY_DNS": "9.9.9.9"})
    assert list(origins) == list(OPTIONS)
    assert {name: str(origin) for name, origin in origins.items() if origin.kind != "default"} == {
        "port": "flag --port",
        "dns": "environment VMRELAY_DNS",
    }


def test_a_valid_configuration_is_said_to_be_so():
    assert vmrelay("check", "--port", "5").startswith("the settings are valid: ")
    assert json.loads(vmrelay("check", "--json")) == {"ok": True}


def test_a_check_of_an_audit_log_makes_none(tmp_path):
    vmrelay("check", "--audit-log", tmp_path / "audit")
    assert list(tmp_path.iterdir()) == []


def test_rooms_of_a_file_are_named_by_a_check(tmp_path):
    file = tmp_path / "rooms.toml"
    file.write_text(
        "[room.red]\nbit-rate = 1000000\n[room.blue]\ninternet = false\n[rooms]\nisolated = true\n"
    )
    assert vmrelay("check", "--config", file).endswith("; rooms with settings of their own: blue, red\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--port", "x"), "--port: must be a whole number"),
        (("--cert-pem", "/none", "--key-pem", "/none"), "--cert-pem /none: No such file or directory"),
        (("--auth", "required"), "--auth-keys"),
        (("--auth", "required", "--auth-keys", "/none"), "/none"),
        (("--admin", "127.0.0.1:1", "--admin-token", "/none"), "/none: No such file"),
        (("--audit-log", "/none/audit"), "cannot write the audit log /none/audit: No such file or directory"),
        (
            ("--cluster", "nats://127.0.0.1:4", "--cluster-key", "/none"),
            "--cluster-key /none: No such file or directory",
        ),
        (("--config", "/none"), "--config /none: No such file"),
        (("--bitrate", "5"), "unknown flag '--bitrate', perhaps '--bit-rate'"),
    ],
)
def test_what_a_relay_would_refuse_is_refused_in_one_line(words, complaint):
    said = vmrelay("check", *words, status=2)
    assert complaint in said
    assert said.count("\n") == 1

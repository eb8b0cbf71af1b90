"""Files of settings, as such; what stands in them is in test_resolution.py."""

from __future__ import annotations

from codecs import BOM_UTF8

import pytest

from relay.setting_sources import MAX_CONFIG_BYTES, checked, read_file
from relay.settings import OPTIONS, SettingsError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.toml"


def test_a_file_gives_values_rooms_and_what_was_written(path):
    path.write_text(
        'port = 5\ndeny-cidr = ["192.0.2.0/24", "198.51.100.0/24"]\n[room.lab]\nisolated = true\n'
    )
    values, tables, texts = read_file(path, OPTIONS)
    assert values["port"] == 5
    assert texts == {"port": "5", "deny_cidr": "192.0.2.0/24,198.51.100.0/24"}
    assert tables.named["lab"] == {"isolated": True}


def test_a_file_may_be_as_windows_editors_write_it(path):
    path.write_bytes(BOM_UTF8 + b"port = 5\r\nisolated = true\r\n")
    assert read_file(path, OPTIONS)[0] == {"port": 5, "isolated": True}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"port = ", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"#" * (MAX_CONFIG_BYTES + 1), f"larger than {MAX_CONFIG_BYTES} bytes"),
        (b"prot = 5", "unknown setting 'prot', perhaps 'port'"),
        (b"port = true", "port: must be a whole number"),
        (b"no-internet = true", "unknown setting 'no-internet', perhaps 'internet = false'"),
        (b"[relay]\nport = 5", "unknown setting 'relay': settings stand outside of tables, but for those of"),
        (b"[port]\nnumber = 5", "port: must be a whole number"),
    ],
)
def test_a_file_that_cannot_be_taken_is_one_line_that_names_it(path, content, complaint):
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_file(path, OPTIONS)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(SettingsError, match="No such file"):
        read_file(path, OPTIONS)


@pytest.mark.parametrize(
    "text",
    ["nats://me:hunter2@[", "nats://hunter2@x:99999", "nats://x,tls://me:hunter2@y:0", "http://me:hunter2@x"],
)
def test_no_complaint_about_a_url_tells_its_password(text):
    with pytest.raises(SettingsError, match="--cluster: must be URLs") as caught:
        checked(OPTIONS["cluster"], text, "--cluster")
    assert "hunter2" not in str(caught.value)
    assert "***@" in str(caught.value)

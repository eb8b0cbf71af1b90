from __future__ import annotations

import ipaddress
from functools import partial

import pytest
from given_settings import complaint, settings, write_file


@pytest.fixture
def file(tmp_path):
    return partial(write_file, tmp_path)


def test_flag_over_environment_over_file_over_default(file):
    config = file("port = 1\ndns = '1.1.1.1'\npeer-timeout = 11.5\n")
    found = settings("--port", "3", config=config, VMRELAY_PORT="2", VMRELAY_DNS="9.9.9.9")
    assert found.port == 3
    assert str(found.dns) == "9.9.9.9"
    assert found.peer_timeout == 11.5
    assert found.heartbeat_interval == 30
    assert settings(VMRELAY_CONFIG=config).port == 1


def test_the_flag_names_another_file_than_the_environment(file, tmp_path):
    assert settings("--config", file("port = 5"), VMRELAY_CONFIG=str(tmp_path / "none")).port == 5


def test_lists_come_from_one_source_and_flags_repeat(file):
    config = file('allow-cidr = ["192.0.2.0/24", "2001:db8::/32"]\nhost-access = true\n')
    assert settings(config=config).allow_cidr == (
        ipaddress.ip_network("192.0.2.0/24"),
        ipaddress.ip_network("2001:db8::/32"),
    )
    assert settings(config=config, VMRELAY_ALLOW_CIDR="10.0.0.1, ::1").allow_cidr == (
        ipaddress.ip_network("10.0.0.1/32"),
        ipaddress.ip_network("::1/128"),
    )
    flags = ("--allow-cidr", "10.1.0.0/16,10.2.0.0/16", "--allow-cidr", "10.3.0.0/16", "--no-host-access")
    found = settings(*flags, config=config, VMRELAY_ALLOW_CIDR="10.0.0.1", VMRELAY_HOST_ACCESS="yes")
    assert [str(network) for network in found.allow_cidr] == ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]
    assert found.host_access is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("peer_timeout = 3", "unknown setting 'peer_timeout', perhaps 'peer-timeout'"),
        ("qwxyz = 3", "unknown setting 'qwxyz'"),
        ("[relay]\nport = 3", "unknown setting 'relay'"),
        ("port = '3'", "port: must be a whole number"),
        ("port = true", "port: must be a whole number"),
        ("port = 3.0", "port: must be a whole number"),
        ("port = 70000", "port: must be a whole number from 0 to 65535, not '70000'"),
        ("host-access = 1", "host-access: must be true or false"),
        ("allow-cidr = '::/0'", "allow-cidr: must be a list of strings"),
        ("allow-cidr = [1]", "allow-cidr: must be a list of strings"),
        ("peer-timeout = nan", "peer-timeout: must be a number of seconds"),
        ("port 3", "not valid TOML"),
        ("port = " + "9" * 5000, "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
    ],
)
def test_a_bad_file_is_named(file, text, message):
    path = file(text)
    said = complaint(config=path)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in complaint(config=str(tmp_path / "none.toml"))
    assert "Is a directory" in complaint(VMRELAY_CONFIG=str(tmp_path))
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in complaint(config=str(path))
    path.write_bytes(b"#" * 1_048_577)
    assert "larger than" in complaint(config=str(path))

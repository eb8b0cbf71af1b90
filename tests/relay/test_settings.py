from __future__ import annotations

import contextlib
import dataclasses
import tomllib
from functools import partial
from pathlib import Path

import pytest
from given_settings import settings, write_file
from hypothesis import given
from hypothesis import strategies as st

from relay.settings import OPTIONS, Settings


@pytest.fixture
def file(tmp_path):
    return partial(write_file, tmp_path)


def test_defaults_are_those_of_the_existing_relay():
    found = settings()
    assert (found.port, found.bind) == (4433, "::")
    assert (found.cert_pem, found.key_pem) == (None, None)
    assert (found.heartbeat_interval, found.peer_timeout, found.cert_poll_interval) == (30, 150, 60)
    assert found.dns is None, "the gateway answers; the existing relay had 8.8.8.8"
    assert str(found.network) == "10.0.2.0/24"
    assert found.host_access is False


@pytest.mark.parametrize("name", OPTIONS)
def test_every_setting_has_a_flag_a_variable_and_a_key(name, file):
    values = {
        "cert_pem": "a",
        "key_pem": "b",
        "dns": "1.2.3.4",
        "network": "172.20.0.0/16",
        "domain": "lab.example",
        "bind": "::1",
        "host_access": True,
        "allow_smtp": True,
    }
    values |= {"web": "off", "state": "none", "admin": "none", "admin_token": "t", "audit_log": "l"}
    values |= {"log_format": "json", "log_level": "debug", "allow_cidr": ["::/0"], "deny_cidr": ["::/0"]}
    values |= {
        "create_rooms": "listed",
        "udp_filtering": "endpoint-independent",
        "forward": ["tcp::80:web:80"],
    }
    values |= {"congestion": "cubic", "auth": "required", "auth_keys": "k", "auth_revoked": "r"}
    values |= {"upstream_dns": ["::1"], "static_lease": ["52:54:00:00:00:01=10.0.2.50"], "lease_time": 60}
    values |= {"dns_allow_private": ["corp.example"], "allow_origin": ["https://app.example"]}
    values |= {
        "isolated": True,
        "internet": False,
        "source_guard": False,
        "peer_list": False,
        "ipv6": False,
        "ipv6_prefix": "fd00::/64",
    }
    values |= {"dhcp": False, "dhcp_boot": ["efi64=ipxe.efi@10.0.2.15"], "dhcp_search": ["corp.example"]}
    values |= {"dhcp_ntp": ["192.0.2.1"], "dhcp_route": ["192.168.0.0/16=10.0.2.15"]}
    values |= {"dhcp_wpad": "http://10.0.2.15/wpad.dat", "log_filter": ["switch=debug"]}
    values |= {"cluster": ["nats://nats:4222"], "cluster_key": "k", "cluster_name": "c", "cluster_node": "n"}
    values |= {"url": ["https://east.example:4433"]}
    values |= {"cluster_credentials": "c", "cluster_ca": "c"}
    values |= dict.fromkeys(("tcp_buffer", "tcp_buffer_peer", "tcp_buffer_total", "audit_log_size"), 2**20)
    value = values.get(name, 7)
    text = value[0] if isinstance(value, list) else str(value)
    keys, required = {"VMRELAY_AUTH_KEYS": "k"}, {"VMRELAY_AUTH": "required"}
    cluster, cluster_key = {"VMRELAY_CLUSTER": "nats://nats:4222"}, {"VMRELAY_CLUSTER_KEY": "k"}
    rest = {
        "cert_pem": {"RELAY_KEY_PEM": "b"},
        "key_pem": {"RELAY_CERT_PEM": "a"},
        "auth": keys,
        "auth_keys": required,
        "auth_revoked": keys | required,
        "cluster": cluster_key,
        "cluster_key": cluster,
        "cluster_node": cluster | cluster_key,
        "cluster_credentials": cluster | cluster_key,
        "cluster_ca": cluster | cluster_key,
    }.get(name, {})
    flag = "--" + name.replace("_", "-")
    variable = OPTIONS[name].own_variable or f"VMRELAY_{name.upper()}"
    key = f"{flag[2:]} = {str(value).lower() if isinstance(value, bool) else repr(value)}"

    switch = {True: (flag,), False: (f"--no-{flag[2:]}",)}
    by_flag = settings(*(switch[value] if isinstance(value, bool) else (flag, text)), **rest)
    by_variable = settings(**rest, **{variable: text})
    by_file = settings(config=file(key), **rest)
    assert by_flag == by_variable == by_file != Settings()


def test_the_table_is_complete():
    assert list(OPTIONS) == [item.name for item in dataclasses.fields(Settings)]


@given(st.sampled_from(sorted(OPTIONS)), st.text(st.characters(exclude_characters="\0")))
def test_no_text_of_any_setting_raises_anything_else(name, text):
    with contextlib.suppress(ValueError):
        OPTIONS[name].kind.parse(text)


def test_the_example_file_sets_every_setting_to_its_default(tmp_path):
    """Commented out, so that the file can be copied as it is; all but paths, and the gateway's address."""
    example = Path(__file__).parents[2] / "examples" / "vmrelay.toml"
    lines = [line.removeprefix("#") for line in example.read_text().splitlines() if line[:1] == "#"]
    table = tomllib.loads("\n".join(line for line in lines if not line.startswith(" ")))
    assert sorted(table) == sorted(name.replace("_", "-") for name in OPTIONS)
    uncommented = tmp_path / "vmrelay.toml"
    text = "\n".join(line for line in lines if not line.startswith(" "))
    uncommented.write_text(text.replace('auth = "off"', 'auth = "required"'))
    found = settings(config=str(uncommented))
    names = ("dns", "cert_pem", "key_pem", "auth_keys", "auth_revoked", "admin_token", "audit_log")
    paths = dict.fromkeys((*names, "cluster_key", "cluster_credentials", "cluster_ca"))
    assert dataclasses.replace(found, auth="off", cluster=(), **paths) == Settings()
    assert settings(config=str(example)) == Settings()

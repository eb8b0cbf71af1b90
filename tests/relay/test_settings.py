from __future__ import annotations

import argparse
import contextlib
import dataclasses
import ipaddress
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.settings import OPTIONS, Settings, SettingsError, add_arguments, resolve

CHAIN, KEY = Path("/etc/relay/chain.pem"), Path("/etc/relay/key.pem")


def settings(*flags: str, config: str | None = None, **environment: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    given_flags = vars(parser.parse_args(flags))
    if config is not None:
        given_flags["config"] = config
    return resolve(given_flags, environment)


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "relay.toml"
        path.write_text(text)
        return str(path)

    return write


def complaint(*flags: str, **kwargs: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(*flags, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- the existing relay's command line ----------------------------------------------------------------


def test_defaults_are_those_of_the_existing_relay():
    found = settings()
    assert (found.port, found.bind) == (4433, "::")
    assert (found.cert_pem, found.key_pem) == (None, None)
    assert (found.heartbeat_interval, found.peer_timeout, found.cert_poll_interval) == (30, 150, 60)
    assert found.dns is None, "the gateway answers; the existing relay had 8.8.8.8"
    assert str(found.network) == "10.0.2.0/24"
    assert found.host_access is False


def test_flags_and_environment_of_the_existing_relay():
    flags = ("--port", "9", "--bind", "127.0.0.1", "--heartbeat-interval", "3", "--peer-timeout", "15")
    found = settings(
        *flags, RELAY_CERT_PEM=str(CHAIN), RELAY_KEY_PEM=str(KEY), CERT_POLL_INTERVAL="5", PORT="1"
    )
    assert found == Settings(
        port=9,
        bind="127.0.0.1",
        heartbeat_interval=3,
        peer_timeout=15,
        cert_pem=CHAIN,
        key_pem=KEY,
        cert_poll_interval=5,
    )
    assert settings("--cert-pem", str(CHAIN), "--key-pem", str(KEY)).key_pem == KEY


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (("--cert-pem", "a"), {}, "--cert-pem needs --key-pem"),
        (("--key-pem", "a"), {}, "--key-pem needs --cert-pem"),
        ((), {"RELAY_CERT_PEM": "a"}, "or RELAY_KEY_PEM"),
        ((), {"RELAY_KEY_PEM": "a", "RELAY_CERT_PEM": ""}, "or RELAY_CERT_PEM"),
    ],
)
def test_half_a_certificate_pair_is_refused(flags, environment, message):
    assert message in complaint(*flags, **environment)


# -- precedence ---------------------------------------------------------------------------------------


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


# -- bad values: one line that says where -------------------------------------------------------------

BAD = [
    ("dhcp-boot", "pxelinux.0", "is not FILE@SERVER"),
    ("dhcp-search", "a..b", "is not a domain"),
    ("dhcp-ntp", "ntp.example", "is not an IPv4 address"),
    ("dhcp-route", "192.168.0.0/16", "is not NETWORK=ROUTER"),
    ("dhcp-wpad", "wpad.dat", "must be a URL"),
    ("domain", "local", "resolvers ask name servers about"),
    ("network", "10.0.2.1/24", "must be an IPv4 network of /16 to /29"),
    ("dns-allow-private", "a..b", "is not a domain"),
    ("port", "70000", "whole number from 0 to 65535"),
    ("port", "-1", "whole number"),
    ("port", "4e3", "whole number"),
    ("port", "٤", "whole number"),
    ("port", "9" * 5000, "whole number"),
    ("bind", "a b", "address or a host name"),
    ("cluster", "http://nats:4222", "must be URLs such as nats://HOST:4222"),
    ("cluster", "nats://host:70000", "must be URLs such as nats://HOST:4222"),
    ("cluster", ",".join(f"nats://n{n}" for n in range(17)), "must be at most 16 servers"),
    *(
        ("url", url, "must be URLs such as https://relay.example:4433, without a path")
        for url in (
            *(
                "http://a",
                "a:4433",
                "https://",
                "https://u@a",
                "https://a/room/x",
                "https://a?x",
                "https://a:0",
            ),
            *(
                "https://a:b",
                "https://a:",
                "https://\u00e4",
                "https://a b",
                f"https://{'a' * 101}",
                "https://[::1",
            ),
        )
    ),
    ("url", ",".join(f"https://a{n}" for n in range(5)), "must be at most 4 URLs"),
    ("cluster-name", "a.b", "must be 1 to 63 letters"),
    ("cluster-node", "n" * 256, "must be a name of up to 255 characters"),
    ("workers", "0", "must be auto, or a whole number from 1 to 64"),
    ("heartbeat-interval", "0", "number of seconds from 0.1 to 86400"),
    ("state", "\0", "path of a file"),
    ("peer-timeout", "nan", "number of seconds"),
    ("peer-timeout", "inf", "number of seconds"),
    ("peer-timeout", "soon", "number of seconds"),
    ("cert-poll-interval", "-5", "number of seconds"),
    ("dns", "::1", "an IPv4 address"),
    ("allow-cidr", "10.0.0.1/8", "has host bits set"),
    ("deny-cidr", "10.0.0.0/33", "is not an address or a network"),
    ("deny-cidr", "1.2.3.4,nowhere", "'nowhere' is not an address"),
    ("deny-cidr", ",".join(["10.0.0.0/8"] * 1025), "at most 1024"),
    ("host-access", "maybe", "true or false"),
    ("max-peers", "0", "whole number from 1"),
    ("max-flows", "many", "whole number from 1"),
    ("forward", "tcp:[::1:80:web:80", "closing bracket"),
    ("forward", "tcp:[::1]:80:web:80,tcp:[::1]:80:mail:80", "tcp:[::1]:80 is forwarded twice"),
    ("log-format", "xml", "one of auto, human, json"),
    ("log-level", "loud", "one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_bad_values_name_their_source(name, text, message):
    variable = OPTIONS[name.replace("-", "_")].own_variable or f"VMRELAY_{name.replace('-', '_').upper()}"
    said = complaint(**{variable: text})
    assert said.startswith(f"{variable}: ")
    assert message in said
    if name != "host-access":
        assert complaint(f"--{name}={text}").startswith(f"--{name}: ")


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


@pytest.mark.parametrize(
    "flags",
    [
        ["--auth", "required"],
        ["--auth", "optional"],
        ["--auth-keys", "k"],
        ["--auth-revoked", "r"],
        ["--auth", "off", "--auth-keys", "k"],
    ],
)
def test_a_relay_that_is_to_ask_for_tokens_does_not_start_without_asking(flags):
    with pytest.raises(SettingsError, match="--auth"):
        settings(*flags)


@pytest.mark.parametrize(
    "text", ["fd00::/48", "fd00::1/64", "ff02::/64", "fe80::/64", "::/64", "10.0.0.0/24", ""]
)
def test_the_ipv6_prefix_is_a_64(text, file):
    with pytest.raises(SettingsError, match="must be a /64 network"):
        settings(config=file(f'ipv6-prefix = "{text}"'))


def test_transparent_ipv6_forwards_need_ipv6_on_the_lan():
    forward = ("--forward", "tcp:[::]:8080:web:80,transparent")
    assert settings(*forward).forward[0].clients == "transparent"
    assert settings("--no-ipv6", "--forward", "tcp::8080:web:80,transparent").ipv6 is False
    with pytest.raises(SettingsError, match="needs IPv6"):
        settings("--no-ipv6", *forward)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--no-dhcp", "--dhcp-boot", "a@10.0.2.15"), "--dhcp-boot needs DHCP, which --no-dhcp takes away"),
        (("--no-dhcp", "--dhcp-wpad", "http://a/"), "--dhcp-wpad needs DHCP"),
        (("--dhcp-boot", "a@10.0.2.4"), "--dhcp-boot: 10.0.2.4 is this machine, which needs --host-access"),
        (("--dhcp-ntp", "10.0.2.4"), "--dhcp-ntp: 10.0.2.4 is this machine"),
    ],
)
def test_what_dhcp_cannot_tell_is_refused_at_the_start(flags, message):
    with pytest.raises(SettingsError, match=message):
        settings(*flags)
    assert settings("--host-access", *flags[-2:])


def test_origins_repeat_and_have_one_spelling():
    found = settings("--allow-origin", "HTTPS://A.example:443,null", "--allow-origin", "https://*.b.example")
    assert found.allow_origin == ("https://a.example", "null", "https://*.b.example")
    assert "--allow-origin: 'a.example' is no origin; write " in complaint("--allow-origin", "a.example")
    assert "at most 256 origins" in complaint("--allow-origin", ",".join(["*"] * 257))

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from relay import setting_kinds
from relay.setting_kinds import choice, seconds, size, whole
from relay.settings import OPTIONS


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(1, 9), "9", 9),
        (size(1, 2**20), "64k", 2**16),
        (seconds(0, 9), "1.5", 1.5),
        (choice("a", "b"), "B", "b"),
        (setting_kinds.RATE, "20k", 20_000),
        (setting_kinds.RATE, "off", 0),
        (setting_kinds.SWITCH, "Yes", True),
        (setting_kinds.HOST, "[::1]", "::1"),
        (setting_kinds.NATS_URLS, "TLS://U:P@H, Nats://h:1", ("tls://U:P@H", "nats://h:1")),
        # By one spelling it is known whether it is all of the machine, or loopback.
        *((setting_kinds.HOST, text, "::") for text in ("::0", "[0:0:0:0:0:0:0:0]", "0::", "::0.0.0.0")),
        (setting_kinds.HOST, "0:0:0:0:0:0:0:1", "::1"),
        (setting_kinds.HOST, "::FFFF:127.0.0.1", "127.0.0.1"),
        (setting_kinds.HOST, "::ffff:0:0", "0.0.0.0"),
        (setting_kinds.HOST, "FE80::1%eth0", "fe80::1%eth0"),
        (setting_kinds.HOST, "LocalHost", "localhost"),
        (setting_kinds.LAN_NETWORK, "172.20.0.0/16", IPv4Network("172.20.0.0/16")),
        (setting_kinds.LAN_NETWORK, "192.0.2.8/29", IPv4Network("192.0.2.8/29")),
    ],
)
def test_a_text_becomes_its_value(kind, text, value):
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (whole(1, 9), "10"),
        (size(1, 9), "1k"),
        (seconds(0, 9), "nan"),
        (choice("a", "b"), "c"),
        (setting_kinds.RATE, "-1"),
        (setting_kinds.SWITCH, "perhaps"),
        (setting_kinds.NETWORKS, "192.0.2.1/24"),
        (setting_kinds.PATH, ""),
        *((setting_kinds.NATS_URLS, text) for text in ("h:4222", "ws://h", "nats://", "nats://a nats://b")),
        *((setting_kinds.HOST, text) for text in ("", "*", "localhost:4433", "127.0.0.1:4433", "[::1]:4433")),
        *((setting_kinds.HOST, text) for text in ("127.0.0.1,::1", "[::1", "a b", "https://localhost")),
        *(
            (setting_kinds.LAN_NETWORK, text)
            for text in ("10.0.0.0/15", "10.0.0.0/30", "10.0.2.1/24", "127.1.0.0/16", "169.254.7.0/24")
        ),
        *((setting_kinds.LAN_NETWORK, text) for text in ("224.0.1.0/24", "255.255.255.0/24", "0.1.0.0/16")),
        *((setting_kinds.LAN_NETWORK, text) for text in ("", "10.0.2.0", "fd00::/64", "10.0.2.0/24,")),
    ],
)
def test_another_one_is_refused_with_what_is_expected(kind, text):
    with pytest.raises(ValueError, match=r"must be|write networks as"):
        kind.parse(text)


@pytest.mark.parametrize(
    "name",
    [name for name, option in OPTIONS.items() if option.metavar in {"FILE", "FOLDER", "WHERE"}],
)
def test_a_path_may_begin_with_the_home(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(OPTIONS[name].kind.parse("~/relay/x")) == "/home/me/relay/x"

from __future__ import annotations

from pathlib import Path

import pytest
from given_settings import assert_named_and_refused, complaint, settings

from relay.settings import Settings, SettingsError

CHAIN, KEY = Path("/etc/relay/chain.pem"), Path("/etc/relay/key.pem")


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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("port", "70000", "whole number from 0 to 65535"),
        ("port", "-1", "whole number"),
        ("port", "4e3", "whole number"),
        ("port", "٤", "whole number"),
        ("port", "9" * 5000, "whole number"),
        ("bind", "a b", "address or a host name"),
        ("heartbeat-interval", "0", "number of seconds from 0.1 to 86400"),
        ("state", "\0", "path of a file"),
        ("peer-timeout", "nan", "number of seconds"),
        ("peer-timeout", "inf", "number of seconds"),
        ("peer-timeout", "soon", "number of seconds"),
        ("cert-poll-interval", "-5", "number of seconds"),
        ("max-peers", "0", "whole number from 1"),
    ],
)
def test_bad_values_name_their_source(name, text, message):
    assert_named_and_refused(name, text, message)


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


def test_origins_repeat_and_have_one_spelling():
    found = settings("--allow-origin", "HTTPS://A.example:443,null", "--allow-origin", "https://*.b.example")
    assert found.allow_origin == ("https://a.example", "null", "https://*.b.example")
    assert "--allow-origin: 'a.example' is no origin; write " in complaint("--allow-origin", "a.example")
    assert "at most 256 origins" in complaint("--allow-origin", ",".join(["*"] * 257))

"""What is known of a cluster's servers, and the tags of its messages."""

import ssl

import pytest

from transport.trunk.nats_servers import TAG_LENGTH, NatsServers, Seal, shown


def test_a_message_comes_back_out_of_its_seal():
    for message in (b"", b"x", bytes(60_000)):
        sealed = Seal(b"key").close(message)
        assert len(sealed) == len(message) + TAG_LENGTH
        assert Seal(b"key").open(sealed) == message


def test_what_another_key_sealed_or_somebody_changed_is_refused():
    sealed = Seal(b"key").close(b"message")
    assert Seal(b"other").open(sealed) is None
    for at in range(len(sealed)):
        assert Seal(b"key").open(sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]) is None
    for length in range(len(sealed)):
        assert Seal(b"key").open(sealed[:length]) is None


def servers(*urls, authority=None):
    return NatsServers(urls, "vmrelay", b"key", authority=authority)


@pytest.mark.parametrize(
    ("urls", "login"),
    [
        (("nats://a:4222", "nats://b:4222"), (None, None, None)),
        (("nats://me:secret@a:4222", "nats://me:secret@b:4222"), ("me", "secret", None)),
        (("tls://token@a:4222",), (None, None, "token")),
        (("nats://m%65:%2Fp%40s%2Cs%25@a:4222",), ("me", "/p@s,s%", None)),
        (("nats://to%2Fken@a:4222",), (None, None, "to/ken")),
        (("nats://me:secret@a:4222", "nats://you:secret@b:4222"), (None, None, None)),
        (("nats://me:secret@a:4222", "nats://b:4222"), (None, None, None)),
    ],
)
def test_a_login_is_the_one_that_all_urls_have(urls, login):
    assert servers(*urls).login() == login


def test_tls_is_used_where_a_url_asks_for_it_and_checks_names():
    assert servers("nats://a:4222").tls_context() is None
    context = servers("nats://a:4222", "tls://b:4222").tls_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_file_without_certificates_is_an_error(tmp_path):
    empty = tmp_path / "ca.pem"
    with pytest.raises(OSError, match="No such file"):
        servers("tls://a:4222", authority=empty).tls_context()
    empty.write_text("nothing")
    with pytest.raises(ssl.SSLError):
        servers("tls://a:4222", authority=empty).tls_context()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nats://me:secret@nats.example:4222", "nats://nats.example:4222"),
        ("tls://nats.example", "tls://nats.example"),
        ("nats://me:secret@[2001:db8::1]:4222", "nats://[2001:db8::1]:4222"),
        ("nats://me:secret@[2001:db8::1]", "nats://[2001:db8::1]"),
    ],
)
def test_a_url_is_shown_without_its_password(url, text):
    assert shown(url) == text

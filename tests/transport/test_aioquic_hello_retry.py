"""A client that has sent no key that the relay has use for is asked for one (RFC 8446, section 4.1.4)."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.tls import Epoch, Group, State
from hypothesis import given
from hypothesis import strategies as st
from quic_parts import CERTIFICATES, Pair

from transport.quic.aioquic_hello_retry import RETRY_RANDOM, AskingContext, groups_with_keys

X25519MLKEM768 = 0x11EC


class Talk:
    """TLS between an aioquic client and the relay's server side, without QUIC."""

    def __init__(self, monkeypatch, sent=X25519MLKEM768):
        certificate = CERTIFICATES.current
        self.client = tls.Context(is_client=True, verify_mode=0, alpn_protocols=["h3"])
        self.server = tls.Context(is_client=False, alpn_protocols=["h3"])
        self.server.certificate, self.server.certificate_private_key = (
            certificate.leaf,
            certificate.private_key,
        )
        AskingContext.take_over(self.server)
        for context in (self.client, self.server):
            context.handshake_extensions = []
        self.hellos = []
        write = tls.push_client_hello

        def without_known_keys(buf, hello):
            self.hellos.append(SimpleNamespace(hello=hello, keys=hello.key_share))
            hello.key_share = [(sent, bytes(1184))]
            write(buf, hello)
            hello.key_share = self.hellos[-1].keys

        monkeypatch.setattr(tls, "push_client_hello", without_known_keys)
        self.first = say(self.client, b"")[Epoch.INITIAL]
        monkeypatch.undo()

    def second_hello(self, request):
        """What a client says that was asked, which hashes its first hello as RFC 8446, 4.4.1 has it."""
        group = int.from_bytes(request[-2:], "big")
        (first,) = self.hellos
        first.hello.key_share = [key for key in first.keys if key[0] == group]
        buf = Buffer(capacity=4096)
        tls.push_client_hello(buf, first.hello)
        hashed = hashlib.sha384 if request[39:41] == b"\x13\x02" else hashlib.sha256
        digest = hashed(self.first).digest()
        schedule = tls.KeyScheduleProxy(self.client._cipher_suites)
        schedule.extract(None)
        schedule.update_hash(b"\xfe\0\0" + bytes((len(digest),)) + digest + request + buf.data)
        self.client._key_schedule_proxy = schedule
        return buf.data


def say(context, data):
    """Hand over what the other side said; return what is said in answer, by encryption level."""
    output = {epoch: Buffer(capacity=8192) for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT)}
    context.handle_message(data, output)
    return {epoch: buf.data for epoch, buf in output.items()}


def test_a_client_is_asked_for_a_key_and_the_handshake_goes_on(monkeypatch):
    talk = Talk(monkeypatch)
    asked = say(talk.server, talk.first)
    request = asked[Epoch.INITIAL]
    assert request[6:38] == RETRY_RANDOM == hashlib.sha256(b"HelloRetryRequest").digest()
    assert (asked[Epoch.HANDSHAKE], talk.server.state) == (b"", State.SERVER_EXPECT_CLIENT_HELLO)
    answer = say(talk.server, talk.second_hello(request))
    finished = say(talk.client, answer[Epoch.INITIAL] + answer[Epoch.HANDSHAKE])
    assert talk.client.state is State.CLIENT_POST_HANDSHAKE
    say(talk.server, finished[Epoch.HANDSHAKE])
    assert talk.server.state is State.SERVER_POST_HANDSHAKE
    assert talk.server.alpn_negotiated == "h3"


def test_connections_of_the_relay_ask():
    pair = Pair(stock=True)
    pair.relay.receive(*pair.client.packets(pair.now))
    assert isinstance(pair.relay.quic.tls, AskingContext)


def test_a_client_is_asked_once(monkeypatch):
    talk = Talk(monkeypatch)
    say(talk.server, talk.first)
    with pytest.raises(tls.AlertHandshakeFailure):
        say(talk.server, talk.first)


def test_a_client_that_knows_no_group_of_ours_is_refused(monkeypatch):
    monkeypatch.setattr(AskingContext, "_supported_groups", [Group.X448], raising=False)
    talk = Talk(monkeypatch)
    vars(talk.server)["_supported_groups"] = [0x0100]
    with pytest.raises(tls.AlertHandshakeFailure):
        say(talk.server, talk.first)


def test_the_keys_in_a_hello_are_found(monkeypatch):
    talk = Talk(monkeypatch)
    assert groups_with_keys(talk.first) == [X25519MLKEM768]
    hello = tls.pull_client_hello(Buffer(data=talk.second_hello(b"\0" * 39 + b"\x13\x01" + b"\0\x1d")))
    assert [group for group, _ in hello.key_share] == [Group.X25519]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything(data):
    groups = groups_with_keys(data)
    assert groups is None or all(0 <= group <= 0xFFFF for group in groups)

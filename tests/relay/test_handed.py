from __future__ import annotations

import json
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.settings import Settings, resolve
from relay.workers import handed as handing
from relay.workers.handed import Handed, HandedCertificates
from relay.workers.place import Place
from transport.certificates import EphemeralCertificateStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TABLES = """
forward = ["tcp:127.0.0.1:8080:web:80,proxy"]
upstream-dns = ["192.0.2.53"]
static-lease = ["52:54:00:00:00:01=10.0.2.50=db"]
deny-cidr = ["2001:db8::/32"]
[room.lab]
bit-rate = "50M"
forward = ["udp:[::1]:53:10.0.2.20:53"]
[rooms]
isolated = true
"""


@pytest.mark.parametrize("text", ["", TABLES])
def test_settings_arrive_as_they_are(tmp_path, text):
    file = tmp_path / "vmrelay.toml"
    file.write_text(text)
    settings = resolve({"config": str(file), "max_flows_total": "9"}, {})
    packed = json.loads(json.dumps(handing.pack_settings(settings)))
    found = handing.unpack_settings(packed)
    assert found == settings
    assert found.of_room("lab") == settings.of_room("lab")


def test_settings_that_the_other_version_does_not_know_are_left_out(monkeypatch):
    packed = handing.pack_settings(Settings(port=7, lease_time=60))
    monkeypatch.setattr(handing, "OPTIONS", {name: None for name in handing.OPTIONS if name != "lease_time"})
    assert handing.unpack_settings(packed) == Settings(port=7)
    older = handing.pack_settings(Settings(port=7, lease_time=60))
    monkeypatch.undo()
    assert handing.unpack_settings(older) == Settings(port=7)


def test_what_bounds_the_whole_relay_is_divided(tmp_path):
    settings = Settings(max_flows_total=1000, tcp_buffer_total=2**30, max_flows=512, max_peers=7)
    own = handing.settings_of(Place(0, 4, tmp_path, b""), settings)
    assert own == replace(settings, max_flows_total=250, tcp_buffer_total=2**28)


def test_certificates_arrive_with_their_keys_and_the_one_that_follows():
    store = EphemeralCertificateStore(["relay.example"], NOW)
    handed = HandedCertificates(json.loads(json.dumps(handing.pack_certificates(store))))
    assert (handed.current.sha256, handed.next.sha256) == (store.current.sha256, store.next.sha256)
    assert handed.current.private_key.public_key() == handed.current.leaf.public_key()
    assert not handed.refresh(NOW.replace(year=2040), force=True)
    other = EphemeralCertificateStore(["relay.example"], NOW)
    handed.take(handing.pack_certificates(other))
    assert handed.current.sha256 == other.current.sha256
    handed.take(handing.pack_certificates(other)[1:])
    assert (handed.current.sha256, handed.next) == (other.next.sha256, None), "no other follows yet"


def test_sockets_keys_and_place_arrive():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("::1", 0))
        tcp.bind(("127.0.0.1", 0))
        sent = Handed(
            Place(1, 3, Path("/run/x"), b"room"),
            udp=(udp.dup(),),
            tcp=(tcp.dup(),),
            reset_key=b"reset",
            retry_key=b"retry",
            first_port=2002,
            state=None,
        )
        told = json.loads(json.dumps(handing.pack(sent)))
        found = handing.unpack(told)
        for own in (*sent.udp, *sent.tcp):
            own.detach()
        assert found.place == sent.place
        assert [opened.getsockname() for opened in (*found.udp, *found.tcp)] == [
            udp.getsockname(),
            tcp.getsockname(),
        ]
        assert found.udp[0].family == socket.AF_INET6
        assert (found.reset_key, found.retry_key, found.first_port, found.state) == (
            b"reset",
            b"retry",
            2002,
            None,
        )
        for own in (*found.udp, *found.tcp):
            own.close()

"""A relay that is told to end lets its sessions go on for a while, and takes no new ones."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import socket
import time
from typing import Any

import firefox
import pytest
from browsers import chromium
from operators import OperatedRelay
from processes import PATIENCE
from scapy.layers.l2 import ARP, Ether
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

from actors.close_codes import CloseCode
from guest.client import ConnectError
from guest.nic_changes import Detached, Draining
from guest.relay_socket import RelayPeer, RelaySocket
from relay.settings import Settings
from transport.web.websocket import websocket_code

DEFAULT = Settings().drain_timeout
GATEWAY = "10.0.2.2"
MAC = "52:54:00:00:77:21"
END = "relay is shutting down"
DOCKER_STOP = 10.0
"""Seconds after which `docker stop` kills."""


@pytest.fixture
def start(tmp_path):
    """Start a relay whose sessions have this time to leave; without one, that of the default."""
    relays = []

    def start(timeout=DEFAULT, *options):
        relay = OperatedRelay(tmp_path, "--drain-timeout", timeout, *options)
        relays.append(relay)
        return relay

    yield start
    for relay in relays:
        if relay.running:
            relay.signal(signal.SIGINT)
        relay.stop()


class WebTransportGuest:
    """A guest behind the client of this project."""

    def __init__(self, url, path=""):
        self._changes = queue.SimpleQueue()
        self._peer = RelayPeer(f"{url}{path}", insecure=True, mac=MAC, on_change=self._changes.put)

    def is_answered(self):
        with RelaySocket(self._peer) as one:
            question = ARP(hwsrc=MAC, psrc="10.0.2.77", pdst=GATEWAY)
            return one.sr1(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / question, timeout=PATIENCE, verbose=0)

    def _until(self, kind):
        while True:
            change = self._changes.get(timeout=PATIENCE)
            if isinstance(change, kind):
                return change

    def told(self):
        return self._until(Draining).seconds

    def leave(self):
        self._peer.close()

    def end(self):
        """Wait for the end, and give its reason."""
        reason = self._until(Detached).reason
        self.leave()
        return reason


class WebSocketGuest:
    """A guest that comes over TCP."""

    def __init__(self, url, mac=MAC):
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(websocket(url.replace("https", "ws"), proxy=None))
        numbers = list(bytes.fromhex(mac.replace(":", "")))
        self._say(type="Register", mac=numbers)
        self._until("Assigned")

    def _say(self, **fields):
        self._socket.send(b"\0" + json.dumps(fields).encode())

    def _until(self, kind):
        """Receive until there is such a message."""
        while True:
            datagram = self._socket.recv(PATIENCE, decode=False)
            if datagram[:1] == b"\0" and (message := json.loads(datagram[1:]))["type"] == kind:
                return message

    def is_answered(self):
        self._say(type="Heartbeat")
        return self._until("HeartbeatAck")

    def told(self):
        return self._until("Draining")["seconds"]

    def leave(self):
        self._stack.close()

    def end(self):
        with self._stack, contextlib.suppress(ConnectionClosed):
            while True:
                self._socket.recv(PATIENCE, decode=False)
        assert self._socket.close_code == websocket_code(CloseCode.SHUTDOWN)
        return self._socket.close_reason


def raw(url):
    return WebTransportGuest(url, "raw")


GUESTS = [WebTransportGuest, WebSocketGuest, raw]


def is_ready(relay):
    """Ask as probes do."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(relay.admin))
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
        status = client.makefile("rb").readline().split()[1]
    return {b"200": True, b"503": False}[status]


@pytest.mark.parametrize("make", GUESTS)
def test_a_session_goes_on_until_it_leaves_and_nobody_new_comes_in(start, make):
    relay = start(600)
    guest = make(relay.url)
    assert guest.is_answered()
    assert is_ready(relay)
    relay.signal(signal.SIGTERM)
    relay.wait_for("the relay drains: 1 sessions have 600 s")
    assert not is_ready(relay)
    with pytest.raises(ConnectError, match=r"503|takes no new sessions"):
        RelayPeer(relay.url, insecure=True)
    if make is not raw:
        assert guest.told() == 600
    assert guest.is_answered()
    guest.leave()
    assert relay.wait() == 0
    relay.wait_for("the last session has left")


@pytest.mark.parametrize("make", GUESTS)
def test_who_does_not_leave_is_closed_when_the_time_is_over(start, make):
    relay = start(1)
    guest = make(relay.url)
    assert guest.is_answered()
    relay.signal(signal.SIGTERM)
    began = time.monotonic()
    assert END in guest.end()
    assert relay.wait() == 0
    assert 1 <= time.monotonic() - began < DOCKER_STOP
    relay.wait_for("the time to drain is over: 1 sessions are closed")
    relay.wait_for(r"peer \d+ closed: relay is shutting down")


def test_as_it_comes_it_ends_before_docker_kills_it(start):
    relay = start()
    guests: list[Any] = [WebTransportGuest(relay.url), WebSocketGuest(relay.url, mac="52:54:00:00:77:22")]
    relay.signal(signal.SIGTERM)
    relay.wait_for("the relay drains: 2 sessions have 5 s")
    assert relay.wait(patience=DOCKER_STOP) == 0
    for guest in guests:
        assert END in guest.end()


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(start, numbers):
    relay = start(600)
    guest = WebTransportGuest(relay.url)
    first, second = numbers
    relay.signal(first)
    relay.wait_for("the relay drains")
    relay.signal(second)
    assert relay.wait() == 0
    assert END in guest.end()


def test_an_interrupt_ends_it_at_once(start):
    relay = start(600)
    guest = WebTransportGuest(relay.url)
    relay.signal(signal.SIGINT)
    assert relay.wait() == 0
    assert "drains" not in relay.output
    assert END in guest.end()


def test_several_workers_drain_as_one_does(start):
    relay = start(600, "--workers", 2)
    guest = WebTransportGuest(relay.url)
    relay.signal(signal.SIGTERM)
    assert guest.told() == 600
    assert not is_ready(relay)
    with pytest.raises(ConnectError):
        RelayPeer(relay.url, insecure=True)
    assert guest.is_answered()
    guest.leave()
    assert relay.wait() == 0


def test_without_sessions_it_ends_at_once(start):
    relay = start(600)
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    assert "drains" not in relay.output


def test_an_operator_may_close_the_sessions_later_and_change_his_mind(start):
    relay = start(600)
    guest = WebTransportGuest(relay.url)
    relay.vmrelay("drain", "--time", "600")
    relay.vmrelay("drain", "--end")
    assert is_ready(relay)
    assert guest.is_answered()
    assert guest.told() == 600
    relay.vmrelay("drain", "--time", "0.5")
    assert "relay is draining" in guest.end()
    relay.wait_for(r"peer \d+ closed: relay is draining")
    assert not is_ready(relay)
    assert relay.running


@contextlib.contextmanager
def page_in_chromium(home, url):
    """Give what evaluates promises in a page."""
    with chromium(home) as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(url)
        yield page.evaluate


@contextlib.contextmanager
def page_in_firefox(home, url):
    if firefox.PROGRAM is None:
        pytest.skip("there is no Firefox")
    home.mkdir()
    with firefox.firefox(home) as tab:
        tab.open(url)
        yield tab.evaluate


SESSION = """(async () => {
  const value = Uint8Array.from("%s".match(/../g), (digits) => parseInt(digits, 16));
  window.relay = new WebTransport("%s", { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
  await relay.ready;
  window.writer = relay.datagrams.writable.getWriter();
  window.reader = relay.datagrams.readable.getReader();
  window.say = (text) => writer.write(new TextEncoder().encode("\\0" + text));
  window.hear = async (kind) => {
    for (;;) {
      const { value } = await reader.read();
      if (new TextDecoder().decode(value).includes(`"type":"${kind}"`)) return kind;
    }
  };
  await say('{"type":"Register","mac":[82,84,0,0,119,34]}');
  return await hear("Assigned");
})()"""
"""A page's session, and what to say and hear in it."""


@pytest.mark.parametrize("page", [page_in_chromium, page_in_firefox])
def test_a_page_keeps_its_session_until_the_end(start, tmp_path, page):
    relay = start(600)
    with page(tmp_path / "home", f"http://127.0.0.1:{relay.port}/") as evaluate:
        assert evaluate(SESSION % (relay.hash, relay.url)) == "Assigned"
        relay.signal(signal.SIGTERM)
        assert evaluate("hear('Draining')") == "Draining"
        for _ in range(3):
            answer = evaluate("say('{\"type\":\"Heartbeat\"}').then(() => hear('HeartbeatAck'))")
            assert answer == "HeartbeatAck"
        relay.signal(signal.SIGTERM)
        closed = evaluate("relay.closed.then((info) => String(info.closeCode))")
        assert closed == str(int(CloseCode.SHUTDOWN))

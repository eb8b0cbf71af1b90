"""A relay that was killed and starts again on its port, with its state: clients are back within a second."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest
from browsers import CHATTERING_CARD, client_page
from kernel_guest import KernelGuest
from processes import Relay

SOON = 1.0
"""Seconds from when the relay listens again until its clients are back."""
GATEWAY = "10.0.2.2"


class Returning:
    """A relay with a folder for its state, which can be killed and started again."""

    def __init__(self, state, **options):
        self._options, self._state = options, state
        self.life = Relay("--state", state, **options)
        self.port = self.life.port

    def kill(self):
        self.life.signal(signal.SIGKILL)
        self.life.wait()
        self.life.stop()

    def stop(self):
        self.life.stop()
        assert "Traceback" not in self.life.output

    def start(self):
        """Start it again; give the time at which it listened."""
        # Of two flags the last one counts: the same port again.
        self.life = Relay("--state", self._state, "--port", self.port, **self._options)
        return time.monotonic()


@pytest.fixture
def relay(tmp_path):
    relay = Returning(tmp_path / "state")
    yield relay
    relay.stop()


@pytest.mark.alone
def test_a_kernel_behind_attach_is_back_within_a_second(relay_namespace, tmp_path):
    relay = Returning(tmp_path / "state", before=relay_namespace.prefix)
    with contextlib.ExitStack() as stack:
        stack.callback(relay.stop)
        guest = KernelGuest("loyal", relay.life, relay_namespace)
        stack.callback(guest.leave)
        pings = guest.start("ping", "-n", "-i", "0.05", GATEWAY)
        stack.callback(pings.stop)
        for life in range(2, 4):
            pings.wait_for("bytes from", count=25 * (life - 1))
            relay.kill()
            listened = relay.start()
            guest.wait_for_news(rf"attached to .*address {guest.address}/24", count=life)
            assert time.monotonic() - listened < SOON
            assert guest.ping(GATEWAY)[0] == 5


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with client_page(tmp_path_factory.mktemp("home")) as page:
        yield page


@pytest.mark.alone
def test_chromium_knows_at_once_that_its_session_is_gone(relay, page):
    page.evaluate(
        """async ([url, hash]) => {
             const value = Uint8Array.from(hash.match(/../g), (digits) => parseInt(digits, 16));
             const transport = new WebTransport(url, {
               serverCertificateHashes: [{ algorithm: "sha-256", value }],
             });
             await transport.ready;
             window.ended = false;
             transport.closed.catch(() => {}).finally(() => { window.ended = true; });
             window.writer = transport.datagrams.writable.getWriter();
           }""",
        [relay.life.url, relay.life.hash],
    )
    relay.kill()
    listened = relay.start()
    page.evaluate("writer.write(new Uint8Array(60)).catch(() => {})")
    page.wait_for_function("window.ended", polling=20)
    assert time.monotonic() - listened < SOON


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_the_npm_client_is_back_within_a_second_with_its_address(relay, page, transport):
    url = f"http://127.0.0.1:{relay.port}/"
    page.evaluate(CHATTERING_CARD, [url, transport])
    address = page.evaluate("nic.assigned.ip.join('.')")
    for life in range(1, 4):
        page.wait_for_function(f"nic.statistics.framesSent > {25 * life}")
        relay.kill()
        listened = relay.start()
        page.wait_for_function(f"nic.state === 'open' && nic.statistics.reconnects === {life}", polling=20)
        assert time.monotonic() - listened < SOON
        assert page.evaluate("nic.assigned.ip.join('.')") == address
    page.evaluate("clearInterval(chatter); nic.close()")

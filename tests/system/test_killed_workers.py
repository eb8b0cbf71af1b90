"""A worker of a relay that was killed: the browsers that it served are back within a second, at others."""

from __future__ import annotations

import os
import signal
import time

import pytest
from browsers import CHATTERING_CARD, client_page
from worker_relays import SOON, Workers


@pytest.fixture(scope="module")
def relay():
    relay = Workers()
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with client_page(tmp_path_factory.mktemp("home")) as page:
        yield page


def kill(relay, worker):
    """Kill a worker; give the time, and what waits until there is another in its place."""
    lives = relay.output.count(f"worker {worker} is ready")
    moment = time.monotonic()
    os.kill(relay.pid_of(worker), signal.SIGKILL)
    return moment, lambda: relay.is_again(worker, lives + 1)


@pytest.mark.alone
def test_chromium_knows_at_once_that_its_worker_is_gone(relay, page):
    for worker in (0, 1):  # the session is at one of them
        page.evaluate(
            """async ([url, hash]) => {
                 const value = Uint8Array.from(hash.match(/../g), (digits) => parseInt(digits, 16));
                 const options = { serverCertificateHashes: [{ algorithm: "sha-256", value }] };
                 window.transports = await Promise.all(Array.from({ length: 12 }, async () => {
                   const transport = new WebTransport(url, options);
                   await transport.ready;
                   const held = { transport, ended: false, writer: transport.datagrams.writable.getWriter() };
                   transport.closed.catch(() => {}).finally(() => { held.ended = true; });
                   return held;
                 }));
                 window.chatter = setInterval(() => {
                   for (const { writer } of transports) writer.write(new Uint8Array(60)).catch(() => {});
                 }, 50);
               }""",
            [relay.url, relay.hash],
        )
        moment, is_again = kill(relay, worker)
        page.wait_for_function("transports.some(({ ended }) => ended)", polling=20)
        assert time.monotonic() - moment < SOON
        assert page.evaluate("transports.some(({ ended }) => !ended)"), "those of the other worker stay"
        page.evaluate("clearInterval(chatter); for (const { transport } of transports) transport.close()")
        is_again()


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_the_npm_client_is_back_within_a_second_with_its_address(relay, page, transport):
    page.evaluate(CHATTERING_CARD, [f"http://127.0.0.1:{relay.port}/", transport])
    address = page.evaluate("nic.assigned.ip.join('.')")
    for life in range(1, 3):
        page.wait_for_function(f"nic.statistics.framesSent > {25 * life}")
        moment, is_again = kill(relay, relay.worker_of(address))
        page.wait_for_function(f"nic.state === 'open' && nic.statistics.reconnects === {life}", polling=20)
        assert time.monotonic() - moment < SOON
        assert page.evaluate("nic.assigned.ip.join('.')") == address
        is_again()
    page.evaluate("clearInterval(chatter); nic.close()")

"""Pages of other origins in browsers, towards a relay on the visitor's loopback address."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading

import firefox as firefox_parts
import pytest
from browsers import CHROMIUM_OPTIONS, Quiet
from playwright.sync_api import sync_playwright
from processes import Relay

REFUSED, LET_IN = "refused", "let in"

TRY = """
async (relay, hash, carrier) => {
  if (carrier === "cert-hash") {
    return fetch(`http://${relay}/cert-hash`).then((answer) => answer.json())
      .then((found) => found.current.hash === hash ? "let in" : "strange", () => "refused");
  }
  if (carrier === "websocket") {
    const socket = new WebSocket(`ws://${relay}/raw`);
    return new Promise((resolve) => {
      socket.onopen = () => { socket.close(); resolve("let in"); };
      socket.onerror = () => resolve("refused");
    });
  }
  const value = Uint8Array.from(hash.match(/../g), (digits) => parseInt(digits, 16));
  const transport = new WebTransport(`https://${relay}/`,
    { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
  transport.closed.catch(() => {});
  return transport.ready.then(() => { transport.close(); return "let in"; }, () => "refused");
}
"""
CARRIERS = ("websocket", "webtransport", "cert-hash")


@contextlib.contextmanager
def site(address, folder):
    """Serve ``folder`` on a loopback address; gives the port."""
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def chromium(home):
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    # Names of other people that lead to this machine: the page's own site, and by rebinding the relay.
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*CHROMIUM_OPTIONS, rules], env={**os.environ, "HOME": str(home)}
        )
        try:
            yield browser.new_page()
        finally:
            browser.close()


class Chromium:
    def __init__(self, page):
        self._page = page
        self.open = page.goto

    def evaluate(self, expression):
        return self._page.evaluate(expression)


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    if request.param == "chromium":
        with chromium(home) as page:
            yield Chromium(page)
    elif firefox_parts.PROGRAM is None:
        assert "CI" not in os.environ, "there is no Firefox"
        pytest.skip("there is no Firefox")
    else:
        with firefox_parts.firefox(home) as tab:
            yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Where a page is that is the visitor's own, and one that is not; both are secure contexts."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    with site("127.0.0.1", folder) as own, site("127.0.0.2", folder) as other:
        yield f"http://127.0.0.1:{own}", f"http://127.0.0.2:{other}"


def outcome(browser, relay, carrier, host="127.0.0.1"):
    return browser.evaluate(f'({TRY})("{host}:{relay.port}", "{relay.hash}", "{carrier}")')


def outcomes(browser, origin, relay):
    """What becomes of each carrier in a page of ``origin``."""
    browser.open(f"{origin}/")
    return [outcome(browser, relay, carrier) for carrier in CARRIERS]


@contextlib.contextmanager
def running(*options):
    relay = Relay(*options)
    try:
        yield relay
    finally:
        relay.stop()


def test_a_page_of_another_origin_is_refused_and_the_log_names_the_flag(browser, pages):
    own, other = pages
    with running() as relay:
        assert outcomes(browser, other, relay) == [REFUSED] * 3
        assert outcomes(browser, own, relay) == [LET_IN] * 3
        # Alike for all carriers, each a kind of its own to the limit on repeated lines.
        relay.wait_for(f"was refused a WebSocket at /raw: 403 Forbidden: .* --allow-origin {other} lets")
        relay.wait_for(f"was refused CONNECT /: status 403: .* --allow-origin {other} lets")
        counters = relay.counters()
        assert counters["web.status_403"] == 2
        assert counters["request.status_403"] == 1


def test_the_flag_of_the_log_lets_it_in(browser, pages):
    _, other = pages
    with running("--allow-origin", other) as relay:
        assert outcomes(browser, other, relay) == [LET_IN] * 3


def test_the_relays_own_page_is_let_in(browser):
    with running() as relay:
        assert outcomes(browser, f"http://127.0.0.1:{relay.port}", relay) == [LET_IN] * 3


def test_a_domain_that_is_led_to_the_relay_shows_nothing_and_opens_nothing(tmp_path, pages):
    own, _ = pages
    port = own.rpartition(":")[2]
    with running() as relay, chromium(tmp_path) as page:
        answer = page.goto(f"http://evil.example:{relay.port}/cert-hash")
        assert answer.status == 421
        assert relay.hash not in answer.text()
        browser = Chromium(page)
        browser.open(f"http://evil.example:{port}/")
        for host in ("evil.example", "127.0.0.1"):
            assert [outcome(browser, relay, carrier, host) for carrier in ("websocket", "cert-hash")] == [
                REFUSED,
                REFUSED,
            ]
        assert relay.counters()["web.status_421"] >= 3

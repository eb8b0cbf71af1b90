"""Chromium, and pages for it."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading

from playwright.sync_api import sync_playwright
from processes import PATIENCE, ROOT

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]

CHATTERING_CARD = """async ([url, transport]) => {
  const { connect } = await import("/client/index.js");
  window.nic = await connect(url, { transport });
  window.chatter = setInterval(() => nic.send(new Uint8Array(60).fill(2)), 50);
}"""
"""For a :func:`client_page`: a card by a carrier, of a guest that sends something now and then."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def site(folder):
    """Serve ``folder``; gives its origin on 127.0.0.1, which is a secure context."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def chromium(home):
    """A browser that keeps its files in ``home``."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=CHROMIUM_OPTIONS, env={**os.environ, "HOME": str(home)}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def client_page(home):
    """A page of Chromium beside the client as relays serve it."""
    with site(ROOT / "relay/pages") as origin, chromium(home) as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{origin}client/client.js")
        yield page


def steps(page):
    """Have the relay's page test a connection; give what it tells of each step."""
    page.fill("#name", "gateway.vm.internal")
    page.click("#test button")
    # Its policy forbids what Playwright's waiting for functions would do: compile text.
    page.locator("#steps .bad, #steps .well:nth-child(5)").first.wait_for()
    return page.locator("#steps li").all_inner_texts()

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

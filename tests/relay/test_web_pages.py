from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import pytest

from relay.web_pages import WebPages
from transport.certificates import EphemeralCertificateStore

STORE = EphemeralCertificateStore(["127.0.0.1"], datetime(2030, 1, 1, tzinfo=UTC))


def test_the_hash_of_this_and_the_next_certificate_is_told():
    kind, body, headers = WebPages(STORE)("/cert-hash")
    assert kind == "application/json"
    assert headers == {}, "the listener adds who may read it"
    said = json.loads(body)
    assert said["algorithm"] == "sha-256"
    assert said["current"] == {
        "hash": STORE.current.sha256,
        "notBefore": "2029-12-31T23:00:00+00:00",
        "notAfter": "2030-01-10T23:00:00+00:00",
        "pinned": True,
    }
    assert said["next"]["hash"] == STORE.next.sha256


def test_pages_of_all_origins_may_import_the_client_and_read_nothing_else_of_the_site():
    pages = WebPages(STORE)
    client = {f"/client/{file.name}" for file in resources.files("relay").joinpath("pages/client").iterdir()}
    others = {"/", "/page.js", "/network.js", "/page.css"}
    assert "/client/index.js" in client
    readable = {path for path in client | others if "Access-Control-Allow-Origin" in pages(path)[2]}
    assert readable == client
    assert {pages(path)[2]["Access-Control-Allow-Origin"] for path in client} == {"*"}


def test_a_next_certificate_need_not_be_known():
    class Files:
        current = STORE.current
        next = None

    files: Any = Files()
    assert json.loads(WebPages(files)("/cert-hash")[1])["next"] is None


@pytest.mark.parametrize("path", ["/", "/page.js", "/network.js", "/page.css", "/client/index.js"])
def test_pages_run_nothing_but_the_relays_own_files(path):
    _, body, headers = WebPages(STORE)(path)
    assert body
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/index.html", "/../web_pages.py", "/page.js/", "/client", "/client/", ""])
def test_nothing_else_is_there(path):
    assert WebPages(STORE)(path) is None


def test_each_room_has_the_connection_page_and_other_paths_have_none():
    pages = WebPages(STORE)
    assert pages("/room/lab-1") == pages("/room/" + 63 * "x") == pages("/")
    for path in (
        "/room",
        "/room/",
        "/room/Lab",
        "/room/lab/",
        "/room/lab/raw",
        "/room/" + 64 * "x",
        "/room/lab\n",
    ):
        assert pages(path) is None

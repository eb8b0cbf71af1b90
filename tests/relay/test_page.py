"""The dashboard's files, as the admin API serves them."""

from __future__ import annotations

import asyncio
import re
from importlib import resources

import pytest
from starlette.applications import Starlette

from relay.admin.page import page_routes

APP = Starlette(routes=page_routes())
FILES = sorted(file.name for file in (resources.files("relay") / "admin" / "dashboard").iterdir())


def get(path):
    """Give status, headers and body."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [],
        "query_string": b"",
        "root_path": "",
    }
    asyncio.run(APP(scope, receive, send))
    start, *bodies = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, b"".join(message["body"] for message in bodies).decode()


def test_the_page_is_there_with_all_that_it_names():
    status, headers, page = get("/dashboard/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert "main.js" in named
    for name in named:
        assert get(f"/dashboard/{name}")[0] == 200, name


def test_modules_import_only_each_other():
    for name in FILES:
        if name.endswith(".js"):
            for imported in re.findall(r' from "([^"]+)"', get(f"/dashboard/{name}")[2]):
                assert get(f"/dashboard/{imported.removeprefix('./')}")[0] == 200, (name, imported)


@pytest.mark.parametrize("path", ["/", "/dashboard/", "/dashboard/main.js", "/dashboard/look.css"])
def test_they_may_load_nothing_but_each_other_and_make_no_markup_of_text(path):
    headers = get(path)[1]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_the_root_leads_to_it():
    status, headers, _ = get("/")
    assert (status, headers["location"]) == (307, "/dashboard/")


@pytest.mark.parametrize(
    "path", ["/dashboard", "/dashboard/index.html", "/dashboard/../page.py", "/dashboard/x"]
)
def test_there_is_nothing_else(path):
    status, headers, _ = get(path)
    assert status == 404 or headers["location"].endswith("/dashboard/")

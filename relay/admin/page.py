"""The dashboard's files: a page that shows in a browser what the admin API tells.

They are the same for everybody and are served without the token, which the page asks for and keeps in its
tab. Its policy lets it load nothing but these files and talk to nothing but this API, and forbids it to make
markup of text (Trusted Types): what guests call themselves can only ever be shown.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from relay.admin.guard import DASHBOARD
from relay.web_pages import POLICY, read_pages

if TYPE_CHECKING:
    from starlette.requests import Request

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

SHARED = ("look.css", "icon.svg", "dom.js")
"""Files that the connection page has too."""


def page_routes() -> list[Route]:
    """Make the routes of the dashboard's files, read once, and of ``/``, which leads there."""
    package = resources.files("relay")
    shared = read_pages(package / "pages")
    files = {**{name: shared[name] for name in SHARED}, **read_pages(package / "admin" / "dashboard")}
    files[""] = files.pop("index.html")
    return [
        Route("/", _to_dashboard, methods=["GET"]),
        *(_route(DASHBOARD + name, kind, body) for name, (kind, body) in files.items()),
    ]


def _route(path: str, kind: str, body: bytes) -> Route:
    async def answer(_: Request) -> Response:
        return Response(body, headers={**HEADERS, "Content-Type": kind})

    return Route(path, answer, methods=["GET"])


async def _to_dashboard(_: Request) -> Response:
    return RedirectResponse(DASHBOARD, headers=HEADERS)

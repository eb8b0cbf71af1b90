"""What the TCP port shows to browsers: the connection page, the client, and the certificate's hash.

The client is what is built from ``clients/js``, in ``/client/``: modules that pages of any origin import.

``/cert-hash`` is JSON, for pages to read whose origin may connect (``transport.origins``):
``{"algorithm": "sha-256", "current": C, "next": C or null}`` with C = ``{"hash": 64 hex digits,
"notBefore": ..., "notAfter": ..., "pinned": bool}``, times in ISO 8601. ``pinned`` says whether browsers take
the certificate by its hash, or expect an authority to stand for it.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from transport.certificates import Certificate, CertificateStore
    from transport.web.web_listener import Page

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "trusted-types 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: nothing but this relay's own files, no connection but to it, no text as markup."""

EVERYBODY = {"Access-Control-Allow-Origin": "*"}
"""Headers of what pages of all origins may read: the client, which they import."""

ROOM_PAGE = re.compile(r"/room/[a-z0-9-]{1,63}")
"""Paths at which the connection page tells how to connect to a room."""

_KINDS: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types of files of pages; those of other kinds are not shown."""


def read_pages(folder: Traversable) -> dict[str, tuple[str, bytes]]:
    """Read the files that are shown of a folder: content type and body, by name."""
    kinds = ((file, _KINDS.get(PurePath(file.name).suffix)) for file in folder.iterdir())
    return {file.name: (kind, file.read_bytes()) for file, kind in kinds if kind is not None}


class WebPages:
    """Finds what is shown under a path."""

    def __init__(self, certificates: CertificateStore) -> None:
        self._certificates = certificates
        folder = resources.files("relay") / "pages"
        self._pages: dict[str, Page] = {}
        for prefix, files, readers in (("/", folder, {}), ("/client/", folder / "client", EVERYBODY)):
            for name, (kind, body) in read_pages(files).items():
                self._pages[prefix + name] = (kind, body, {"Content-Security-Policy": POLICY, **readers})
        self._pages["/"] = self._pages.pop("/index.html")

    def __call__(self, path: str) -> Page | None:
        """Return content type, body and further headers of the page at ``path``; None when there is none."""
        if path == "/cert-hash":
            return "application/json", self._hashes(), {}
        return self._pages.get("/" if ROOM_PAGE.fullmatch(path) else path)

    def _hashes(self) -> bytes:
        following = self._certificates.next
        return json.dumps(
            {
                "algorithm": "sha-256",
                "current": _described(self._certificates.current),
                "next": None if following is None else _described(following),
            }
        ).encode()


def _described(certificate: Certificate) -> dict[str, str | bool]:
    return {
        "hash": certificate.sha256,
        "notBefore": certificate.not_before.isoformat(),
        "notAfter": certificate.not_after.isoformat(),
        "pinned": certificate.can_be_pinned,
    }

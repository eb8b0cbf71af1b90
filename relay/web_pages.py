"""What the TCP port shows to browsers: the certificate's hash.

``/cert-hash`` is JSON for any page to read: ``{"algorithm": "sha-256", "current": C, "next": C or null}``
with C = ``{"hash": 64 hex digits, "notBefore": ..., "notAfter": ..., "pinned": bool}``, times in ISO 8601.
``pinned`` says whether browsers take the certificate by its hash, or expect an authority to stand for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transport.certificates import Certificate, CertificateStore
    from transport.web_listener import Page


class WebPages:
    """Finds what is shown under a path."""

    def __init__(self, certificates: CertificateStore) -> None:
        self._certificates = certificates

    def __call__(self, path: str) -> Page | None:
        """Return content type, body and further headers of the page at ``path``; None when there is none."""
        if path == "/cert-hash":
            return "application/json", self._hashes(), {"Access-Control-Allow-Origin": "*"}
        return None

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

"""Who may come in, and to which LAN: implements ``transport.admission.Admission``.

Asked are the origin of the page, then the path: ``/`` for a framed session (or a raw one, which its first
datagram tells), ``/raw`` for a raw one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from transport.admission import Grant, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.lans import Lans
    from transport.admission import ClientRequest
    from transport.origins import OriginPolicy

SESSION_PATHS: Mapping[str, str] = {"/": "", "/raw": "encap=raw"}
"""Paths that carry a session, and what each says about the encapsulation."""


class RelayAdmission:
    """Decides by what the operator has set, and by the LANs that there are."""

    def __init__(self, origins: OriginPolicy, lans: Lans) -> None:
        self._origins = origins
        self._lans = lans

    def check(self, request: ClientRequest) -> Refusal | None:
        """Return why nothing at all is answered to this client, None when something is."""
        return self._origins.admit(request)

    def admit(self, request: ClientRequest) -> Grant | Refusal:
        """Decide about a request for a session."""
        refusal = self.check(request)
        if refusal is not None:
            return refusal
        path = session_path(request.path, request.query)
        if path is None:
            return Refusal(HTTPStatus.NOT_FOUND, "Sessions are at / (framed) and /raw.")
        return Grant(self._lans.default, path)


def session_path(path: str, query: str) -> str | None:
    """Tell the path by which a session knows its encapsulation; None where there are no sessions."""
    encapsulation = SESSION_PATHS.get(path)
    if encapsulation is None:
        return None
    # Named twice it would be refused, and a URL may well say it again.
    said = query if "encap=" in query else "&".join(filter(None, (encapsulation, query)))
    return f"/?{said}" if said else "/"

"""An admission for tests: one LAN, whose sessions a test attaches itself."""

from __future__ import annotations

from http import HTTPStatus

from relay.admission import session_path
from transport.admission import Grant, Refusal


class OpenDoor:
    """Lets all in whom ``origins`` lets, and to any path unless ``paths`` are those of the relay."""

    def __init__(self, attach, origins=None, *, paths=False, first=1):
        self.attach = attach
        self._last = first - 1
        self._origins = origins
        self._paths = paths

    def next_port(self):
        self._last += 1
        return self._last

    def check(self, request):
        return None if self._origins is None else self._origins.admit(request)

    def admit(self, request):
        refusal = self.check(request)
        if refusal is not None:
            return refusal
        path = session_path(request.path, request.query)
        if path is None:
            if self._paths:
                return Refusal(HTTPStatus.NOT_FOUND, "There is nothing here.")
            path = f"{request.path}?{request.query}" if request.query else request.path
        return Grant(self, path)

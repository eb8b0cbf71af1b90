"""An admission for tests: one LAN, whose sessions a test attaches itself."""

from __future__ import annotations

from relay.admission import read_target
from transport.admission import Grant, Refusal


class OpenDoor:
    """Lets all in whom ``origins`` lets, and to any path unless ``paths`` are those of the relay."""

    def __init__(self, attach, origins=None, *, paths=False, first=1):
        self.attach = attach
        self._last = first - 1
        self._origins = origins
        self._paths = paths
        self.asked = []
        """Paths of requests for sessions."""

    def next_port(self):
        self._last += 1
        return self._last

    def check(self, request):
        return None if self._origins is None else self._origins.admit(request)

    def explain(self, request):
        found = read_target(request.path, request.query)
        return found if isinstance(found, Refusal) else None

    def where(self, request):
        return self.explain(request) or ["https://here", f"https://{request.path.rpartition('/')[2]}"]

    def admit(self, request):
        self.asked.append(request.path)
        refusal = self.check(request)
        if refusal is not None:
            return refusal
        target = read_target(request.path, request.query)
        if isinstance(target, Refusal) and self._paths:
            return target
        asked = f"{request.path}?{request.query}" if request.query else request.path
        return Grant(self, asked if isinstance(target, Refusal) else target.path)

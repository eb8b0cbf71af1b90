"""Which lines of the log are shown: a level for all of them, and others for single parts and libraries.

A part is one that decides about frames (``PARTS``), a module or package of the relay (``transport.quic``), or
a library. What libraries say in detail is shown only where they are named: aioquic has lines for each packet.
"""

from __future__ import annotations

from functools import lru_cache

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""By their names, with loguru's numbers."""

ALL = "*"

PARTS = ("switch", "gateway", "policy", "peer", "dns", "flow")
"""Who says at level debug which frames were dropped or refused, and why (``relay.decisions``)."""

PACKAGES = ("actors", "guest", "netstack", "relay", "transport")

LIBRARIES = {
    "aioquic": ("quic", "http3"),
    "asyncio": ("asyncio",),
    "pykka": ("pykka",),
    "uvicorn": ("uvicorn",),
}
"""With the first words of their loggers' names."""

MAX_RULES = 64

_LIBRARY_OF = {word: library for library, words in LIBRARIES.items() for word in words}
_KNOWN = (ALL, *PARTS, *PACKAGES, *LIBRARIES)

Rules = tuple[tuple[str, str], ...]
"""Parts with their levels."""


def parse_log_filter(text: str) -> Rules:
    """Read ``PART=LEVEL,...``. Raises ValueError with what is expected."""
    rules: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.lower().split(","))):
        part, equals, level = map(str.strip, item.partition("="))
        if not equals or level not in LEVELS:
            raise ValueError(f"must be PART=LEVEL with the level {', '.join(LEVELS)}, as in switch=debug")
        if part not in _KNOWN and part.partition(".")[0] not in PACKAGES:
            raise ValueError(
                f"must name a part ({', '.join(_KNOWN)}) or a module, as in transport.quic=debug"
            )
        rules[part] = level
    if len(rules) > MAX_RULES:
        raise ValueError(f"must be at most {MAX_RULES} levels")
    return tuple(rules.items())


class Levels:
    """Tells the lowest level that is shown, by part."""

    def __init__(self, level: str, rules: Rules = ()) -> None:
        self._rules = {part: LEVELS[shown] for part, shown in rules}
        self._usual = self._rules.pop(ALL, LEVELS[level])
        self.lowest = min(self._usual, *self._rules.values(), LEVELS["error"])
        self.of_libraries = max(self._usual, LEVELS["info"])
        """The level of those that are not named."""
        self.of = lru_cache(maxsize=1024)(self._of)

    def _of(self, name: str) -> int:
        """Tell the level of a part, a module or a library's logger."""
        library = _LIBRARY_OF.get(name.partition(".")[0])
        if library is not None:
            return self._rules.get(library, self.of_libraries)
        prefix = name
        while prefix:
            if prefix in self._rules:
                return self._rules[prefix]
            prefix = prefix.rpartition(".")[0]
        return self._rules.get(name.rpartition(".")[2], self._usual)

"""Which of a LAN's relays a client goes to: those that it was given, and those that they name.

A relay of a cluster tells with each address where the cluster's machines are reached (``urls`` of Assigned,
its own first), as ``https://HOST[:PORT]``. Path and query, which say the room, are those of the URL in use.
It is trusted with that as with the guest's frames; what is found there has to show a certificate that is
trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.target import Target
from transport.admission import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOLD = 8
"""URLs that a relay is listened to for."""
MAX_URL = 300
"""Characters of each."""


class Places:
    """The URLs, and which of them is in use."""

    def __init__(self, given: Sequence[str]) -> None:
        """``given`` are tried in this order. Raises ValueError for what is no URL, and for none."""
        self._given = list(dict.fromkeys(map(_spelled, given)))
        if not self._given:
            raise ValueError("there must be a URL")
        self._urls = self._given
        self.url = self._given[0]
        """The one in use."""

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def shown(self) -> str:
        """The one in use, as it may be told."""
        return without_secrets(self.url)

    @property
    def has_others(self) -> bool:
        """Whether there is another one to go to."""
        return len(self._urls) > 1

    def learn(self, told: object) -> None:
        """Take what an Assigned names, in place of what the one before did; what is no URL is left out."""
        path = Target.parse(self.url).path
        named = [
            url for each in (told if isinstance(told, list) else [])[:MAX_TOLD] if (url := _with(each, path))
        ]
        if named and named[0] != self.url:
            named.append(named.pop(0))  # another name of this one: the last to go to
        self._urls = list(dict.fromkeys([*self._given, self.url, *named]))

    def go_on(self) -> None:
        """Use the next one."""
        self.url = self._urls[(self._urls.index(self.url) + 1) % len(self._urls)]


def _spelled(url: str) -> str:
    target = Target.parse(url)
    return f"https://{target.authority}{target.path}"


def _with(told: object, path: str) -> str | None:
    if not isinstance(told, str) or len(told) > MAX_URL:
        return None
    try:
        return f"https://{Target.parse(told).authority}{path}"
    except ValueError:
        return None

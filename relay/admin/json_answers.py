"""How the admin API answers: JSON of the dataclasses that describe the relay.

An answer may have tens of thousands of flows, of which each takes some 10 µs to write, and the loop that
writes them has packets to carry. So it is written in slices, an item of a long list a line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from transport.turns import sockets_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    from relay.bans import Ban

AT_A_TIME = 200
"""Pieces that are written in one turn of the event loop: 100 flows, in some 2 ms."""

MOST_IN_A_LINE = 32
"""Items of an object or list that stands in one line; a session has 21."""

_OUTER = 2
"""Objects and lists, one in the other, that have a line for each item in any case: by room, and its rows."""


class ApiResponse(Response):
    """JSON of dataclasses, readable for people too."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """``content`` is not to change until it is sent."""
        super().__init__(status_code=status_code, headers=headers)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write it, and send it."""
        self.body = await written(self._content)
        self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


async def written(content: Any) -> bytes:
    """Write something as JSON, in slices; infinity, which JSON lacks, is null."""
    pieces = []
    for number, piece in enumerate(_pieces(content)):
        if number and number % AT_A_TIME == 0:
            await sockets_first()
        pieces.append(piece)
    return "".join([*pieces, "\n"]).encode()


def _pieces(value: Any, level: int = 0) -> Iterator[str]:
    """Write a value piece by piece, of which none has more than MOST_IN_A_LINE items."""
    if dataclasses.is_dataclass(value):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    is_object = isinstance(value, dict)
    if not isinstance(value, dict | list | tuple) or not (
        len(value) > MOST_IN_A_LINE or (value and level < _OUTER)
    ):
        yield json.dumps(_plain(value), allow_nan=False)
        return
    before = f"{'{' if is_object else '['}\n"
    for item in value.items() if isinstance(value, dict) else value:
        yield before + (f"{json.dumps(str(item[0]))}: " if is_object else "")
        yield from _pieces(item[1] if is_object else item, level + 1)
        before = ",\n"
    yield f"\n{'}' if is_object else ']'}"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def told_bans(bans: Iterable[Ban]) -> list[dict[str, Any]]:
    """Tell who is kept out."""
    now = time.time()
    return [
        {
            "id": ban.id,
            "kind": ban.kind,
            "what": ban.what,
            "ends_in": ban.until - now,
            "reason": ban.reason,
        }
        for ban in bans
    ]

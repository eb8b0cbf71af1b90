"""How the admin API answers: JSON of the dataclasses that describe the relay."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.bans import Ban


class ApiResponse(JSONResponse):
    """JSON of dataclasses, readable for people too."""

    def render(self, content: Any) -> bytes:
        """Write it; infinity, which JSON lacks, is null."""
        return json.dumps(_plain(content), indent=1, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
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

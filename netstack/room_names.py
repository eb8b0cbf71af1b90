"""Names of rooms, as users call the LANs of a relay, and the paths of URLs that name them."""

from __future__ import annotations

import re

DEFAULT_ROOM = "default"
"""The room of all who name none."""
ROOM_NAME = re.compile(r"[a-z0-9-]{1,63}")
NAME_RULE = "a room's name is 1 to 63 of a-z, 0-9 and -"
SESSION_PATH = re.compile(r"(?:/room/([^/]*))?(/raw|/?)", re.DOTALL)
"""A session's path, without the query: what it names as the room, if anything, and ``/raw`` for raw ones."""

"""The user's home in paths that no shell has seen: those of files, of variables, and behind ``--flag=``."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "~/"


def at_home(text: str) -> Path:
    """Make a path of ``text``, with a leading ``~/`` written out as shells do. Raises ValueError.

    Else a folder of the name ``~`` would be looked for, or made, wherever the relay was started.
    """
    if not text.startswith(HOME):
        return Path(text)
    path = os.path.expanduser(text)  # noqa: PTH111 - Path's raises RuntimeError
    if path == text:
        raise ValueError("must be a path without ~: this user has no home")
    return Path(path)

"""What goes wrong with a command, as all of them tell it."""

from __future__ import annotations

import sys


def complain(error: object, status: int = 1) -> int:
    """Tell on standard error what went wrong; return the exit status."""
    print(f"vmrelay: error: {error}", file=sys.stderr)  # noqa: T201
    return status

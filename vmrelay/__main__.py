"""The command ``vmrelay``, whose commands are in :mod:`relay.main`."""

from __future__ import annotations

import signal
import sys

from vmrelay import HiddenPackageError, load

_WAITING = ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Signals that wait until the command has said what it wants with them (``transport.host.early_signals``)."""


def main() -> int:
    """Run the command line of this process; return the exit status."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _WAITING})
    try:
        command = load("relay.main")
    except HiddenPackageError as error:
        print(f"vmrelay: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    status: int = command.main()
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The command ``vmrelay``, whose commands are in :mod:`relay.main`."""

from __future__ import annotations

import sys

from vmrelay import HiddenPackageError, load


def main() -> int:
    """Run the command line of this process; return the exit status."""
    try:
        load("transport.host.early_signals").wait()
        command = load("relay.main")
    except HiddenPackageError as error:
        print(f"vmrelay: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    status: int = command.main()
    return status


if __name__ == "__main__":
    sys.exit(main())

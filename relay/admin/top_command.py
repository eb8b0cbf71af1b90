"""The command ``vmrelay top``; what draws it is loaded when it runs, and need not be installed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from relay.admin.client import AskError
from relay.admin.live import Live
from relay.setting_kinds import parse_duration

if TYPE_CHECKING:
    from relay.admin.client import AdminClient

INTERVAL = 1.0
"""Seconds between looks."""

LEAST_INTERVAL = 0.1


def top_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay top``."""
    parser.add_argument(
        *("-n", "--interval"),
        type=_interval,
        default=INTERVAL,
        metavar="TIME",
        help=f"between two looks (default: {INTERVAL:g}s)",
    )


def _interval(text: str) -> float:
    try:
        interval = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if interval < LEAST_INTERVAL:
        raise argparse.ArgumentTypeError(f"must be {LEAST_INTERVAL:g} s or more")
    return interval


def top(relay: AdminClient, args: argparse.Namespace) -> str:
    """Show the relay until the user leaves. Raises AskError."""
    if args.json or not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise AskError("this is for a terminal; vmrelay status --json is for programs")
    if importlib.util.find_spec("textual") is None:
        raise AskError("this needs textual (pip install 'vmrelay[top]'); vmrelay status does without")
    relay.ask("/v1/status")  # what cannot be asked is said in a line, and not on a screen
    importlib.import_module("relay.admin.top").Top(Live(relay), args.interval).run()
    return ""

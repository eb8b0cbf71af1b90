"""Arguments that several of the commands take which ask a running relay."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from relay.setting_kinds import parse_duration, parse_size, whole

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FILE_SIZE = 2**40
"""Bytes."""


def duration_of(text: str) -> float:
    """Read a time (``5m``) in seconds. Raises ArgumentTypeError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size_of(text: str) -> int:
    """Read a file's size (``10M``) in bytes. Raises ArgumentTypeError."""
    try:
        return parse_size(text, 1, MAX_FILE_SIZE)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def number_of(low: int, high: int) -> Callable[[str], int]:
    """Make what reads a whole number, and raises ArgumentTypeError."""
    parse = whole(low, high).parse

    def read(text: str) -> int:
        try:
            return int(parse(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def room_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a room."""
    parser.add_argument("--room", metavar="NAME", help="of this room only")

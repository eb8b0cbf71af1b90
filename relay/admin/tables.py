"""Tables and figures as people read them in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KILO = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write rows under their heads, in columns as wide as they need; numbers stand to the right."""
    cells = [[("-" if cell is None else printable(str(cell))) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [
        bool(cells) and all(row[n][:1].isdigit() or row[n] == "-" for row in cells) for n in range(len(heads))
    ]
    lines = []
    for row in [list(heads), *cells]:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def amount(number: float, unit: str = "") -> str:
    """Write a large number short: ``12.3 M``."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < _KILO or prefix == "T":
            break
        number /= _KILO
    text = f"{number:.0f}" if prefix == "" or number >= 100 else f"{number:.1f}"  # noqa: PLR2004 - three digits
    return f"{text} {prefix}{unit}".rstrip()


def duration(seconds: float | None) -> str | None:
    """Write a time as its two largest parts: ``3h05m``."""
    if seconds is None:
        return None
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{seconds:.0f}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def milliseconds(seconds: float | None) -> str | None:
    """Write a short time."""
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def percent(part: int | None, whole: int | None) -> str | None:
    """Write a share; None where nothing is known."""
    return None if part is None or not whole else f"{100 * part / whole:.1f} %"

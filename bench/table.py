"""What a load is, what its figure is meant to reach, and how both become a line of the benchmark's table."""

from __future__ import annotations

import statistics
from typing import NamedTuple

HEADER = "| load | figure | relay | beside | ratio | reach |\n|---|---|---|---|---|---|"
YARDSTICK = "yardstick"
BESIDE = "beside"


class Reach(NamedTuple):
    """What a figure is meant to reach."""

    bound: float
    of: str = ""
    """Divide by this first: ``beside``, what runs beside the relay; or the figure of another load of this
    run, as ``relay: l2 lone frames`` and ``beside: l2 1 pair``."""
    at_least: bool = False
    """Whether more is better."""


class Load(NamedTuple):
    """One line of the table."""

    name: str
    arguments: str
    figure: str
    unit: str
    reach: Reach | None = None
    beside: str = ""
    """What runs the same load in turn with the relay: the yardstick, which only switches, or a peer."""


class Rounds(NamedTuple):
    """Figures of a load's rounds."""

    relay: list[float]
    beside: list[float]


def row(load: Load, rounds: Rounds, medians: dict[str, float]) -> str:
    """Write a line of the table, medians and the median of the ratios; add the medians to ``medians``."""
    cells = [load.name, f"`{load.figure}`", f"{statistics.median(rounds.relay):.3g} {load.unit}", "", "", ""]
    value = medians[f"relay: {load.name}"] = statistics.median(rounds.relay)
    ratio = None
    if rounds.beside:
        medians[f"beside: {load.name}"] = statistics.median(rounds.beside)
        peer = "" if load.beside == YARDSTICK else f" ({load.beside})"
        cells[3] = f"{statistics.median(rounds.beside):.3g} {load.unit}{peer}"
        pairs = zip(rounds.relay, rounds.beside, strict=True)
        ratio = statistics.median(relay / beside if beside else float("inf") for relay, beside in pairs)
        cells[4] = f"{ratio:.2f}"
    if load.reach is not None:
        bound, of, at_least = load.reach
        reached: float | None = value
        unit = f" {load.unit}"
        if of == BESIDE:
            reached, unit = ratio, " x"
        elif of:
            reached, unit = (value / medians[of], f" of {of}") if of in medians else (None, f" of {of}")
            cells[4] = "" if reached is None else f"{reached:.2f}{unit}"
        missed = reached is not None and (reached < bound if at_least else reached > bound)
        cells[5] = f"{'>=' if at_least else '<='} {bound:g}{unit}{' (missed)' if missed else ''}"
    return f"| {' | '.join(cells)} |"


def skipped(load: Load, reason: str) -> str:
    """Write the line of a load that did not run."""
    return f"| {load.name} | `{load.figure}` | skipped: {reason} | | | |"

"""What documents show that commands say, and whether they do."""

from __future__ import annotations

import re

_VARIES = re.compile(
    r"""(?P<left_out>…)
    | (?P<time>\b\d\d:\d\d:\d\d(?=\ ))
    | (?P<number>(?<=\ )\d+(?=\ \(switch|\ \(peer)|(?<=peer\ )\d+|\d+(?=\ times\)))
    | (?P<space>\ {2,})""",
    re.VERBOSE,
)
_BECOMES = {"left_out": r".*", "time": r"\d\d:\d\d:\d\d", "number": r"\d+", "space": r" +"}


def sections_of(text):
    """Give the sections of a document, by their headings."""
    return dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", text, re.MULTILINE))


def blocks_in(section, kind):
    """Give the blocks of a kind that are in a section."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def expression_of(lines):
    """Make an expression of lines that a document shows.

    ``…`` is anything, on a line of its own any number of lines; times of day and how often something was
    are others each time, and columns are as wide as they have to be.
    """
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
            continue
        at, text = 0, ""
        for found in _VARIES.finditer(line):
            text += re.escape(line[at : found.start()]) + _BECOMES[found.lastgroup]
            at = found.end()
        parts.append(f" *{text}{re.escape(line[at:])}\n")
    return re.compile("".join(parts))


def says(output, lines):
    """Whether what was said is what the lines show, and nothing else."""
    text = output.rstrip("\n")
    return expression_of(lines).fullmatch(f"{text}\n" if text else "") is not None

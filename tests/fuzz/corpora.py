"""Inputs that are kept: ``corpus/TARGET.txt`` has one on each line, in hexadecimal."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def kept(name):
    """The inputs that are kept for a target."""
    file = FOLDER / f"{name}.txt"
    return [bytes.fromhex(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(name, inputs):
    """Keep further inputs of a target."""
    if further := dict.fromkeys(data.hex() for data in inputs if data and data not in kept(name)):
        with (FOLDER / f"{name}.txt").open("a") as file:
            file.writelines(f"{line}\n" for line in further)

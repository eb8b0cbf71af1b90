"""Copies of this tree without anything prepared, as a clone would have it."""

from __future__ import annotations

import shutil

from processes import ROOT

_NOT_IN_A_CLONE = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".cache",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    "build",
    "dist",
    "node_modules",
)


def copy_of_the_tree(target):
    """Copy it; give ``target``."""
    return shutil.copytree(ROOT, target, ignore=_NOT_IN_A_CLONE)

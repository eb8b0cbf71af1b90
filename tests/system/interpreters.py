"""The Pythons of this machine that vmrelay is for: where installing it is tried."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13")
RUNNING = "{}.{}".format(*sys.version_info)

_PROBE = "import sys, venv, ensurepip; print('{}.{}'.format(*sys.version_info))"
"""Debian's Python is there without the means to make environments, unless asked for."""


def _candidates(version):
    """Where a Python may be: on the path, or in pyenv's folders, which its own commands hide."""
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    for root in (os.environ.get("PYENV_ROOT"), "~/.pyenv", "/opt/pyenv"):
        if root:
            yield from sorted(Path(root).expanduser().glob(f"versions/{version}.*/bin/python{version}"))


def _works(path, version):
    try:
        done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


@functools.cache
def found():
    """Paths by version: the one that runs the tests, and any other that works."""
    paths = {RUNNING: sys.executable}
    for version in SUPPORTED:
        if version not in paths:
            path = next((path for path in _candidates(version) if _works(path, version)), None)
            if path is not None:
                paths[version] = str(path)
    return dict(sorted(paths.items(), key=lambda item: [*map(int, item[0].split("."))]))


def report():
    """One line that says which will be tried, and which cannot be."""
    missing = [version for version in SUPPORTED if version not in found()]
    without = f" (not on this machine: {', '.join(missing)})" if missing else ""
    return f"packaging is tried on Python {', '.join(found())}{without}"

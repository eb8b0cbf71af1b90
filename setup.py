"""Builds the accelerator: the modules of the datagram path, compiled by mypyc.

Everything works without. VMRELAY_COMPILE=1 demands it, =0 leaves it out; otherwise a wheel has it when mypy
and a C compiler are there. An editable install never has: its sources are meant to be changed.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

from setuptools import setup

COMPILED = [
    "netstack/chunks.py",
    "netstack/encapsulation.py",
    "transport/connection.py",
    "transport/datagram_path.py",
    "transport/endpoint.py",
    "transport/frames.py",
    "transport/ledger.py",
    "transport/packet_keys.py",
    "transport/path_mtu.py",
    "transport/udp.py",
]
"""Hot modules that import nothing but typed code; the tests run on both forms."""


def compiles() -> bool:
    """Whether to build the accelerator now."""
    wish = os.environ.get("VMRELAY_COMPILE", "")
    if wish:
        return wish != "0"
    possible = find_spec("mypyc") is not None and shutil.which(os.environ.get("CC", "cc")) is not None
    return possible and "bdist_wheel" in sys.argv


extensions = []
if compiles():
    from mypyc.build import mypycify

    options = ["--ignore-missing-imports", "--follow-imports=silent"]
    extensions = mypycify([*options, *COMPILED], opt_level="3", group_name="vmrelay")

setup(ext_modules=extensions)

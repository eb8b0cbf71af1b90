"""Attacks on a running relay, with the parts of the system tests and the forgers of packets."""

from __future__ import annotations

import sys
from pathlib import Path

for parts in ("system", "transport"):
    sys.path.insert(0, str(Path(__file__).parent.parent / parts))

"""The units of systemd that are shipped, as systemd itself judges them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
UNITS = sorted(EXAMPLES.glob("*.service"))
MOST_EXPOSURE = 2.0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_services_are_sandboxed(unit):
    threshold = f"--threshold={MOST_EXPOSURE * 10:.0f}"
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", threshold, unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    found = re.search(rf"Overall exposure level for {unit.name}: ([0-9.]+)", told.stdout)
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_line(unit):
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    ).stderr
    complaints = [line for line in told.splitlines() if "is not executable" not in line]
    assert [line for line in complaints if unit.name in line] == []

"""The units of systemd that are shipped, as systemd itself judges them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
MOST_EXPOSURE = 2.0


def test_the_relays_service_is_sandboxed():
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", EXAMPLES / "vmrelay.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for vmrelay.service: ([0-9.]+)", told.stdout)
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("unit", sorted(EXAMPLES.glob("*.service")), ids=lambda path: path.name)
def test_systemd_understands_every_line(unit):
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    ).stderr
    complaints = [line for line in told.splitlines() if "is not executable" not in line]
    assert [line for line in complaints if unit.name in line] == []

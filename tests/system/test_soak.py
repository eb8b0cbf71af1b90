"""The soak: that each kind of load gets through, and that growth is seen, is tried for some seconds."""

from __future__ import annotations

import os
import re
import sys

import pytest
from processes import ROOT, free_port, run

pytestmark = pytest.mark.alone

SECONDS = 18

sys.path.insert(0, str(ROOT / "bench/soak"))
from soak import MEGABYTE, Sample, growth, settled  # noqa: E402 - where the harness lies is said above


@pytest.mark.parametrize("per_minute", [0, 1, -0.5])
def test_growth_is_that_of_the_last_two_thirds(per_minute):
    samples = [
        Sample(60.0 * minute, int((50 + 10 * min(minute, 10) + per_minute * minute) * MEGABYTE), 9, 3, 0.0)
        for minute in range(31)
    ]
    assert growth(settled(samples), "rss") / MEGABYTE == pytest.approx(60 * per_minute)


def test_every_kind_of_load_gets_through(relaybench, tmp_path):
    report = tmp_path / "report.md"
    port = next(port for port in iter(free_port, None) if port % 4 == 0)
    done = run(
        *(sys.executable, ROOT / "bench/soak/soak.py", "--minutes", SECONDS / 60, "--bound", 1e6),
        *("--servers-port", port, "--report", report),
        env=os.environ | {"PYTHONPATH": str(ROOT), "RELAYBENCH": str(relaybench)},
        patience=180,
    )
    assert "Traceback" not in done.stderr
    said = report.read_text()
    assert said.strip() == done.stdout.strip()
    rounds = dict(re.findall(r"^\| ([^|]+) \| (\d+) \| 0 \|", said, re.MULTILINE))
    assert len(rounds) == 19
    assert "0" not in rounds.values()
    assert re.search(r"Resident memory over the last two thirds: [+-]\d", said)

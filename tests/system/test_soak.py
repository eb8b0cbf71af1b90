"""The soak: that each kind of load gets through, and that growth is seen, is tried for some seconds."""

from __future__ import annotations

import asyncio
import os
import re
import sys

import pytest
from processes import ROOT, free_port, run

pytestmark = pytest.mark.alone

SECONDS = 18
SECONDS_OF_FAULTS = 44
"""Two faults, and some 15 s between them."""

sys.path.insert(0, str(ROOT / "bench/soak"))
from faults import SILENCE_WITHIN, FaultError, Faults, Residents  # noqa: E402 - where the harness lies is said above
from soak import MEGABYTE, Sample, growth, settled  # noqa: E402 - as above


@pytest.mark.parametrize("per_minute", [0, 1, -0.5])
def test_growth_is_that_of_the_last_two_thirds(per_minute):
    samples = [
        Sample(60.0 * minute, int((50 + 10 * min(minute, 10) + per_minute * minute) * MEGABYTE), 9, 3, 0.0)
        for minute in range(31)
    ]
    assert growth(settled(samples), "rss") / MEGABYTE == pytest.approx(60 * per_minute)


@pytest.mark.parametrize(("part", "first"), [(1 / 3, 10), (1 / 2, 15)])
def test_samples_count_that_were_taken_after_a_part_of_the_time(part, first):
    samples = [Sample(60.0 * minute, 0, 9, 3, 0.0) for minute in range(31)]
    assert [sample.at for sample in settled(samples, part)] == [60.0 * minute for minute in range(first, 31)]


def soak(relaybench, report, seconds, *options):
    """Run it; give what was reported, which it also said."""
    port = next(port for port in iter(free_port, None) if port % 4 == 0)
    done = run(
        *(sys.executable, ROOT / "bench/soak/soak.py", "--minutes", seconds / 60, "--bound", 1e6),
        *("--servers-port", port, "--report", report, *options),
        env=os.environ | {"PYTHONPATH": str(ROOT), "RELAYBENCH": str(relaybench)},
        patience=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    said = report.read_text()
    assert said.strip() == done.stdout.strip()
    return said


def test_every_kind_of_load_gets_through(relaybench, tmp_path):
    said = soak(relaybench, tmp_path / "report.md", SECONDS)
    rounds = dict(re.findall(r"^\| ([^|]+) \| (\d+) \| 0 \|", said, re.MULTILINE))
    assert len(rounds) == 19
    assert "0" not in rounds.values()
    assert re.search(r"Resident memory over the last two thirds: [+-]\d", said)


def test_guests_who_stay_get_over_faults_of_workers(relaybench, tmp_path):
    options = ("--workers", 2, "--faults", "--between", 10)
    said = soak(relaybench, tmp_path / "report.md", SECONDS_OF_FAULTS, *options)
    assert re.search(r"got over with their addresses: \d times killed, \d times frozen", said), said
    assert not re.search(r"^- fault \d", said, re.MULTILINE), said
    assert re.search(r"Resident memory over the second half: [+-]\d", said)


def test_a_resident_that_hears_nothing_for_long_is_a_fault_not_got_over(tmp_path):
    class Silent(Residents):
        """Have heard nothing for so long."""

        def __init__(self, silence):
            self.silence = silence

        async def ask(self, command, *said):
            return self.silence

    faults = Faults(tmp_path / "admin.sock", 2, os.getpid())
    asyncio.run(faults._judge_silence([Silent(0.1), Silent(SILENCE_WITHIN - 1)]))
    with pytest.raises(FaultError, match=r"heard nothing of another for 11\.0 s"):
        asyncio.run(faults._judge_silence([Silent(0.1), Silent(SILENCE_WITHIN + 1)]))


def test_a_fault_that_was_not_got_over_is_told(tmp_path):
    faults = Faults(
        tmp_path / "admin.sock",
        2,
        os.getpid(),
        done={"killed": 3},
        problems=["fault 4, frozen: an address is gone"],
    )
    assert faults.report()[:2] == [
        "Faults that all guests who stayed got over with their addresses: 3 times killed.",
        "- fault 4, frozen: an address is gone",
    ]

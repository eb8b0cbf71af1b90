"""What ``make attack`` prints."""

from __future__ import annotations

import os
import re
import sys

import pytest
from processes import ROOT, run

pytestmark = pytest.mark.alone


def test_each_attack_has_a_row_with_what_the_neighbour_noticed():
    done = run(
        *(sys.executable, ROOT / "tests/security/attacks.py", "test_log_readers.py"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        patience=120,
    )
    (row,) = re.findall(r"^\| log readers: a pipe that nobody reads \| (.*) \|$", done.stdout, re.MULTILINE)
    runs, failed, lost, p99, cores = row.split(" | ")
    assert (runs, failed, lost) == ("1", "0", "0")
    assert 0 < float(p99.removesuffix(" ms")) < 1000
    assert 0 < float(cores) < 2

"""What ``make cluster-test`` does, for a few cycles: one of each kind of fault."""

from __future__ import annotations

import re

import cluster_faults
import pytest


@pytest.mark.alone
def test_a_cluster_heals_after_each_kind_of_fault(capsys):
    cluster_faults.run_cycles(3, seed=1)
    told = re.findall(r"^cycle \d: m\d (\w+); ", capsys.readouterr().out, re.MULTILINE)
    assert told == ["killed", "frozen", "parted"]


@pytest.mark.parametrize(("each_cycle", "told"), [(0, 0), (4096, 4096)])
def test_growth_is_that_of_the_cycles_after_the_first_ones(each_cycle, told):
    sizes = [50_000_000 + 1_000_000 * min(number, 3) + each_cycle * number for number in range(20)]
    assert cluster_faults.growth(sizes) == pytest.approx(told)

"""The benchmark's real paths: that both columns are measured, and that the path is what it says."""

from __future__ import annotations

import sys

import pytest
from processes import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import machines
import paths
import table

pytestmark = pytest.mark.alone

SECONDS = 1.5
NARROW = "--delay-ms 10 --rate-mbit 8 --buffer-ms 100"


def figures(monkeypatch, relaybench, figure, *, beside):
    monkeypatch.setattr(paths, "RELAYBENCH", str(relaybench))
    load = table.Load("narrow", NARROW, figure, "", beside=table.YARDSTICK)
    return paths.run(load, ROOT, beside=beside, seconds=SECONDS, seed=1)


@pytest.mark.parametrize("beside", [False, True], ids=["relay", "yardstick"])
@pytest.mark.parametrize("figure", [paths.DOWN, paths.UP])
def test_a_stream_gets_through_a_narrow_path_at_no_more_than_its_rate(
    monkeypatch, relaybench, figure, beside
):
    rate = figures(monkeypatch, relaybench, figure, beside=beside)[figure]
    assert 0.1 < rate <= 8  # a busy machine may be late, but no earlier than the path


def test_a_ping_beside_a_download_takes_the_path_and_waits_in_its_queue(monkeypatch, relaybench):
    found = figures(monkeypatch, relaybench, paths.PING, beside=True)
    assert found["ping_base_ms"] >= 20
    assert 0 < found[paths.PING] < machines.LOST_PING
    assert 0.1 < found["down_mbit_s"] <= 8


def test_a_relays_download_and_a_kernels_share_one_path():
    load = table.Load("narrow", NARROW, paths.SHARES, "x")
    found = paths.run(load, ROOT, beside=False, seconds=SECONDS, seed=1)
    assert found[paths.DOWN] > 0.1
    assert found["kernel_mbit_s"] > 0.1
    # Together no more than the path, and what its queue held.
    assert found[paths.DOWN] + found["kernel_mbit_s"] < 9
    apart = found[paths.DOWN] / found["kernel_mbit_s"]
    assert found[paths.SHARES] == max(apart, 1 / apart)


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(paths.peers, "_found", lambda *names: None)
    load = next(load for load in paths.LOADS if load.beside == "gvproxy")
    reason = paths.skip_reason(load)
    assert reason == "gvproxy and gvforwarder not installed"
    assert reason in table.skipped(load, reason)


def test_a_missed_reach_is_marked_in_the_row():
    load = table.Load("x", "", "mbit_s", "Mbit/s", table.Reach(0.95, table.BESIDE, at_least=True), "gvproxy")
    reached = table.row(load, table.Rounds([96, 97, 98], [100, 100, 100]), {})
    assert reached == "| x | `mbit_s` | 97 Mbit/s | 100 Mbit/s (gvproxy) | 0.97 | >= 0.95 x |"
    assert "0.50 | >= 0.95 x (missed)" in table.row(load, table.Rounds([50], [100]), {})

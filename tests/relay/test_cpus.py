"""How many CPUs there are for the relay, in groups that are folders of the test."""

from __future__ import annotations

import os
import sys

import pytest

from relay.cpus import usable_cpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")

MANY = 16


@pytest.fixture(autouse=True)
def _many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)))


class Machine:
    def __init__(self, folder):
        self._groups, self._top = folder / "cgroup", folder / "hierarchies"

    def has(self, group, **files):
        folder = self._top / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")

    def usable(self, *lines):
        self._groups.write_text("".join(f"{line}\n" for line in lines))
        return usable_cpus(self._groups, self._top)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", MANY),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 1000000", 1),
        ("9900000 100000", MANY),
        ("nonsense", MANY),
        ("1 0 3", MANY),
    ],
)
def test_a_quota_of_a_containers_group_counts(machine, quota, cpus):
    machine.has("", cpu_max=quota)
    assert machine.usable("0::/") == cpus


def test_the_least_of_all_groups_around_it_counts(machine):
    machine.has("system.slice", cpu_max="300000 100000")
    machine.has("system.slice/vmrelay.service", cpu_max="max 100000")
    assert machine.usable("0::/system.slice/vmrelay.service") == 3
    machine.has("system.slice/vmrelay.service", cpu_max="200000 100000")
    assert machine.usable("0::/system.slice/vmrelay.service") == 2


def test_a_container_that_sees_the_machines_paths_has_its_own_group_at_the_top(machine):
    machine.has("", cpu_max="400000 100000")
    assert machine.usable("0::/kubepods/pod1/container") == 4
    assert machine.usable("0::/../../elsewhere") == 4


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_groups_of_the_first_version_count_by_their_cpu_hierarchy(machine, controllers):
    machine.has("cpu/docker/one", cpu_cfs_quota_us=250_000, cpu_cfs_period_us=100_000)
    machine.has("memory/docker/one", cpu_max="1000 1000")
    lines = ("3:memory:/docker/one", f"2:{controllers}:/docker/one", "1:cpuset:/", "0::/")
    assert machine.usable(*lines) == 3
    machine.has("cpu/docker/one", cpu_cfs_quota_us=-1)
    assert machine.usable(*lines) == MANY


def test_where_nothing_is_told_the_affinity_alone_counts(machine, tmp_path):
    assert machine.usable() == machine.usable("what is this") == MANY
    assert usable_cpus(tmp_path / "no file", tmp_path) == MANY

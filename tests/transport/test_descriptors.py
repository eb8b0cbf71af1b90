from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from transport.host.descriptors import OWN, SOCKETS_PER_QUESTION, TABLE, UNLIMITED, budget, own_budget


@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 65_536, 1 << 20])
def test_the_parts_are_no_more_than_the_whole(limit):
    connections, flows, questions = budget(limit)
    assert connections + flows + questions * SOCKETS_PER_QUESTION + min(OWN, limit // 4) <= limit
    assert min(connections, flows, questions) >= 1
    assert connections <= limit // 2


def test_with_few_descriptors_both_sides_have_some():
    connections, flows, questions = budget(256)
    assert connections == 96
    assert flows == 64
    assert questions == 8


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, 1 << 40])
def test_no_limit_is_a_large_one(limit):
    assert budget(limit) == budget(UNLIMITED)


def test_the_limit_is_the_process_s():
    assert own_budget() == budget(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


GROWN = """
import resource, sys
from transport.host.descriptors import grow_table

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
most = min(hard, int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
grow_table()
[size] = [line for line in open("/proc/self/status") if line.startswith("FDSize:")]
print(most, size.split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
@pytest.mark.parametrize("limit", [100, 1024, 1 << 20])
def test_the_kernel_makes_room_for_descriptors_before_they_are_needed(limit):
    command = [sys.executable, "-c", GROWN, str(limit)]
    root = Path(__file__).parent.parent.parent
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    most, room = map(int, found.split())
    assert room >= min(most, TABLE)

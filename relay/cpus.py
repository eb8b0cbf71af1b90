"""How many CPUs this process may use: by its affinity, and by the quotas of its cgroups (Linux).

Containers are given so much of a CPU's time rather than CPUs of their own (``docker run --cpus``, Kubernetes'
``limits.cpu``, systemd's ``CPUQuota=``), and so are groups in which they are.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = Path("/proc/self/cgroup")
"""A line for each hierarchy: its number, its controllers, and the path there (cgroups(7))."""
HIERARCHIES = Path("/sys/fs/cgroup")


def usable_cpus(groups: Path = GROUPS, hierarchies: Path = HIERARCHIES) -> int:
    """Tell how many CPUs there are for this process, a part of one being one; 1 where nothing is known."""
    if sys.platform != "linux":
        return 1
    quotas = [math.ceil(quota) for folder in _folders(groups, hierarchies) if (quota := _quota(folder))]
    return min([len(os.sched_getaffinity(0)), *quotas])


def _folders(groups: Path, hierarchies: Path) -> Iterator[Path]:
    """Yield those of the group of this process that has CPUs, and of all in which that is."""
    with contextlib.suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, text = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # One hierarchy with all controllers has no name, and is mounted there itself (version 2).
            base = hierarchies / ("cpu" if controllers else "")
            path = PurePosixPath(text.lstrip("/"))
            # A container may see a path that is the machine's: then its own group is at the top.
            yield from (base / each for each in (path, *path.parents) if ".." not in each.parts)


def _quota(folder: Path) -> float | None:
    """Read how many CPUs' time a group may take; None where it may take all."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(quota) < 0 else int(quota) / int(period)
    return None

"""The processor time that a client's work takes, without what the garbage collector takes meanwhile.

That runs when some thousand objects have been made, whoever made them, and takes up to 30 ms: charged to the
one whose turn it was, it would make a client that sends a ping now and then look like one that sends floods.
"""

from __future__ import annotations

import gc
from time import thread_time


class _Collector:
    """Notes what the collector takes; a callback of ``gc.callbacks``."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._started = thread_time()
        else:
            self.seconds += thread_time() - self._started


_collector = _Collector()


def leave_out_garbage_collector() -> None:
    """Have ``work_time`` stand still while garbage is collected, from now on."""
    if _collector not in gc.callbacks:
        gc.callbacks.append(_collector)


def work_time() -> float:
    """Seconds of processor time that this thread has worked, from an arbitrary beginning."""
    return thread_time() - _collector.seconds

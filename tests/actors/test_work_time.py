"""What is charged for work leaves out the garbage collector."""

from __future__ import annotations

import gc
from time import thread_time

import pytest

from actors import work_time as module
from actors.work_time import leave_out_garbage_collector, work_time

SECONDS = 0.05


def work_for(seconds):
    end = thread_time() + seconds
    while thread_time() < end:
        pass


@pytest.fixture
def busy_collector():
    """A collector that takes SECONDS each time."""
    before = [*gc.callbacks]
    gc.disable()
    leave_out_garbage_collector()

    def take(phase, _info):
        if phase == "stop":
            work_for(SECONDS)

    gc.callbacks.insert(gc.callbacks.index(module._collector), take)
    yield
    gc.enable()
    gc.callbacks[:] = before


@pytest.mark.usefixtures("busy_collector")
def test_it_stands_still_while_garbage_is_collected():
    started, began = work_time(), thread_time()
    gc.collect()
    worked, took = work_time() - started, thread_time() - began
    assert took >= SECONDS
    assert worked < took - SECONDS


@pytest.mark.usefixtures("busy_collector")
def test_work_is_told():
    began, started = thread_time(), work_time()
    work_for(0.01)
    assert 0.01 <= work_time() - started <= thread_time() - began


@pytest.mark.usefixtures("busy_collector")
def test_it_is_left_out_once():
    leave_out_garbage_collector()
    assert gc.callbacks.count(module._collector) == 1

from __future__ import annotations

import gc
import resource

import pytest

from relay.settings import Settings
from relay.starting import calm_garbage_collector, cannot_listen, prepared

NOWHERE = Settings(port=0, bind="127.0.0.1", state="none")


def test_all_files_that_the_system_allows_are_taken(monkeypatch):
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    with prepared(NOWHERE):
        assert asked == [(hard, hard)]


def test_what_is_said_has_been_written_at_the_end(capfd):
    with prepared(NOWHERE) as (_, state, say):
        assert state.folder is None
        for number in range(100):
            say(f"line {number}")
    assert capfd.readouterr().out == "".join(f"line {number}\n" for number in range(100))


def test_the_garbage_collector_looks_less_often_and_not_at_what_was_there():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(700, 10, 10)
    try:
        calm_garbage_collector()
        assert gc.get_threshold() > (700, 10, 10)
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(98, "Address already in use"), "Address already in use"),
        (OSError("a name of no address"), "a name of no address"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
def test_why_a_port_cannot_be_had_is_one_line(error, why):
    assert cannot_listen("here port 1", error) == f"cannot listen on here port 1: {why}"

from __future__ import annotations

import pytest
from loguru import logger

from actors.handler_errors import LOG_WINDOW, HandlerErrors
from netstack.counters import Counters


@pytest.fixture
def lines():
    lines = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(sink)


def error(kind=ValueError):
    def provoke():
        raise kind("broken")

    with pytest.raises(kind) as caught:
        provoke()
    return caught.value


def test_every_error_is_counted_and_each_kind_logged_once_per_window(lines):
    counters = Counters()
    handler_errors = HandlerErrors("switch", counters)
    for n in range(100):
        handler_errors.note(error(), 1000.0 + n / 10)
    handler_errors.note(error(KeyError), 1001.0)
    assert counters == {"switch.drop.internal_error": 101}
    assert [("ValueError" in line, "KeyError" in line) for line in lines] == [(True, False), (False, True)]
    handler_errors.note(error(), 1000.0 + LOG_WINDOW)
    assert len(lines) == 3


def test_an_error_without_a_traceback_is_logged_too(lines):
    HandlerErrors("gateway", Counters()).note(ValueError("made by hand"), 1000.0)
    assert "made by hand" in lines[0]


def test_errors_at_one_line_of_two_modules_are_both_logged(lines):
    handler_errors = HandlerErrors("switch", Counters())
    for module in ("one.py", "other.py"):
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("1 / 0", module, "exec"))
        handler_errors.note(caught.value, 1000.0)
    assert len(lines) == 2

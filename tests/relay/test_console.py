from __future__ import annotations

import pytest

from relay.console import run_program


@pytest.mark.parametrize("program", ["x = 5", "import asyncio\nx = await asyncio.sleep(0, 5)"])
def test_programs_see_and_set_the_names(program):
    names = {"__name__": "__console__"}
    assert run_program(names, program) == 0
    assert names["x"] == 5


@pytest.mark.parametrize("program", ["1/0", "def", "await nothing"])
def test_errors_are_shown_without_this_modules_frames(program, capsys):
    assert run_program({"__name__": "__console__"}, program, "mine.py") == 1
    said = capsys.readouterr().err
    assert "mine.py" in said
    assert "console.py" not in said

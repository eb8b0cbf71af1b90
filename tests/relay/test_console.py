from __future__ import annotations

import codecs
import pwd

import pytest

from relay import console
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


@pytest.mark.parametrize(
    "program",
    [
        codecs.BOM_UTF8 + "x = 'Käse'".encode(),
        "# -*- coding: latin-1 -*-\nx = 'Käse'".encode("latin-1"),
    ],
)
def test_files_are_read_in_the_encoding_that_they_name(program):
    names = {"__name__": "__console__"}
    assert run_program(names, program) == 0
    assert names["x"] == "Käse"


def test_a_file_in_another_encoding_is_shown_as_python_does(capsys):
    assert run_program({"__name__": "__console__"}, "x = 'Käse'".encode("latin-1"), "mine.py") == 1
    assert "SyntaxError" in capsys.readouterr().err


def test_a_user_without_a_home_has_a_prompt_without_history(monkeypatch):
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with console._line_editing({}):
        pass

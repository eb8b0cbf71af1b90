from __future__ import annotations

import pytest

from relay.printable import printable


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("größe ✓", "größe ✓"),
        ("\x1b[2J\r\n", r"\x1b[2J\r\n"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202etxt.exe\u2028", r"\u202etxt.exe\u2028"),
    ],
)
def test_what_steers_a_terminal_or_ends_a_line_is_escaped(said, written):
    assert printable(said) == written

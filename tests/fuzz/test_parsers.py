"""Every parser of what others send, on inputs that are nearly right, and on what was found before.

Here with some hundred inputs each, in continuous integration (CI=true) with 10,000; ``make fuzz`` goes on for
as long as it is told.
"""

from __future__ import annotations

import os

import pytest
from corpora import kept
from edits import BYTES_PER_EDIT, edited
from hypothesis import given, note, settings
from hypothesis import strategies as st
from targets import TARGETS

INPUTS = 10_000 if os.environ.get("CI", "").lower() in {"1", "true"} else 200
INPUTS_PER_EXAMPLE = 40
"""What Hypothesis itself does for an example takes longer than a parser: it chooses the edits of several."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_whatever_comes(name):
    target = TARGETS[name]
    seeds = target.seeds + kept(name)
    size = INPUTS_PER_EXAMPLE * BYTES_PER_EDIT

    @settings(max_examples=INPUTS // INPUTS_PER_EXAMPLE)
    @given(st.binary(min_size=size, max_size=size))
    def fuzz(script):
        for data in edited(seeds, script):
            try:
                target.run(data)
            except Exception:
                note(f"input: {data.hex()}")
                raise

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before(name):
    for data in TARGETS[name].seeds + kept(name):
        TARGETS[name].run(data)

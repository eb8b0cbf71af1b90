"""The hot modules exist in two forms, of Python and compiled; the tests run on both, and know on which."""

import os
from importlib import import_module

import pytest
from setup_parts import compiled_modules

ACCELERATED = os.environ.get("VMRELAY_ACCELERATED") == "1"


@pytest.mark.parametrize("name", compiled_modules())
def test_the_tests_run_on_the_form_that_they_claim(name):
    path = import_module(name).__file__
    assert path.endswith(".so" if ACCELERATED else ".py")

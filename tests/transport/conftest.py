from __future__ import annotations

import importlib.util
import sys

import pytest
from aioquic import tls


@pytest.fixture(scope="module")
def original():
    """Another copy of aioquic.tls, as it is without this project."""
    spec = importlib.util.spec_from_file_location("aioquic.original_tls", tls.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]

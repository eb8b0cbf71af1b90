from __future__ import annotations

import json
import sys

import aioquic
from processes import run

from relay.version import LIBRARIES, version


def test_the_version_is_told_with_what_it_runs_on():
    told = json.loads(run(sys.executable, "-m", "relay.main", "version", "--json").stdout)
    assert told["vmrelay"] == version()
    assert told["aioquic"] == aioquic.__version__
    assert set(LIBRARIES) < set(told)
    lines = run(sys.executable, "-m", "relay.main", "version").stdout
    assert f"python       {'.'.join(map(str, sys.version_info[:3]))}" in lines
    assert run(sys.executable, "-m", "relay.main", "--version").stdout == f"vmrelay {version()}\n"

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile

import pytest

from relay.admin_place import PlaceError
from relay.supervisor import run_directory


@pytest.fixture
def environment():
    with tempfile.TemporaryDirectory() as folder:
        yield {"RUNTIME_DIRECTORY": f"{folder}/run"}


def test_it_is_private_and_a_new_one_each_time(environment):
    first, second = (run_directory.make(4433, environment) for _ in range(2))
    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    (first / "packets-0").touch()
    run_directory.remove(first)
    assert not first.exists()
    assert second.exists()
    run_directory.remove(second)


def test_those_of_killed_relays_are_removed_and_no_others(environment):
    own = run_directory.make(4433, environment)
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale = own.parent / f"workers-{ended.pid}-abc"
    stale.mkdir()
    (stale / "admin-0").touch()
    unknown = own.parent / "workers-of-somebody"
    unknown.mkdir()
    elsewhere = own.parent / f"workers-{ended.pid}-def"  # of another container, where this is another process
    elsewhere.mkdir()
    with socket.socket(socket.AF_UNIX) as its:
        its.bind(str(elsewhere / "admin-0"))
        another = run_directory.make(4434, environment)
    names = {found.name for found in own.parent.iterdir()}
    assert names == {own.name, another.name, unknown.name, elsewhere.name}
    assert own.name.startswith(f"workers-{os.getpid()}-")


def test_a_path_that_no_socket_fits_is_told(tmp_path):
    with pytest.raises(PlaceError, match="too long for sockets"):
        run_directory.make(4433, {"RUNTIME_DIRECTORY": str(tmp_path / ("x" * 80))})

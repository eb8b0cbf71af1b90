"""The folder of what outlives a relay: which one, who may have it, and what happens when it is unusable."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from relay import state as state_module
from relay.app import Relay, serve
from relay.settings import Settings
from relay.state import SECRET_LENGTH, Folder, Place, State, StateError, find_place, open_state

NAME = "stateless-reset"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "deep" / "state"


# -- which folder -------------------------------------------------------------------------------------

HOME = {"HOME": "/home/u"}


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("none", HOME | {"STATE_DIRECTORY": "/var/lib/vmrelay"}, None),
        ("/srv/state", HOME | {"STATE_DIRECTORY": "/var/lib/vmrelay"}, ("/srv/state", True)),
        ("./auto", HOME, ("auto", True)),
        ("auto", HOME | {"STATE_DIRECTORY": "/var/lib/vmrelay:/var/lib/b"}, ("/var/lib/vmrelay", False)),
        ("auto", HOME, ("/home/u/.local/state/vmrelay/4433", False)),
        ("auto", HOME | {"XDG_STATE_HOME": "/x", "STATE_DIRECTORY": ""}, ("/x/vmrelay/4433", False)),
        ("auto", HOME | {"XDG_STATE_HOME": "relative"}, ("/home/u/.local/state/vmrelay/4433", False)),
        ("auto", {}, None),
    ],
)
def test_the_folder_is_the_operators_then_systemds_then_the_users(setting, environment, expected):
    found = find_place(setting, 4433, environment)
    assert found == (None if expected is None else Place(Path(expected[0]), expected[1]))


def test_relays_on_two_ports_keep_apart_by_default(tmp_path, lines):
    home = {"HOME": str(tmp_path)}
    states = [open_state("auto", port, home) for port in (4433, 4434)]
    assert len({state.secret(NAME) for state in states}) == 2
    assert len({str(state.folder) for state in states}) == 2
    assert lines == []


# -- secrets ------------------------------------------------------------------------------------------


def test_a_secret_outlives_the_relay_and_only_its_user_can_read_it(place):
    first = State(Folder(place))
    secret = first.secret(NAME)
    assert len(secret) == SECRET_LENGTH == 32
    assert first.secret("another") != secret
    first.close()
    assert mode(place) == 0o700
    assert {mode(file) for file in place.iterdir()} == {0o600}
    assert State(Folder(place)).secret(NAME) == secret


def test_without_a_folder_a_secret_lives_as_long_as_the_process():
    state = State()
    assert state.secret(NAME) == state.secret(NAME)
    assert State().secret(NAME) != state.secret(NAME)
    state.close()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33, b"x" * (state_module.MAX_FILE + 1)])
def test_a_damaged_secret_is_replaced_with_one_line(place, lines, content):
    state = State(Folder(place))
    (place / f"{NAME}.key").write_bytes(content)
    secret = state.secret(NAME)
    assert len(secret) == SECRET_LENGTH
    assert len(lines) == 1
    assert f"{NAME}" in lines[0]
    state.close()
    assert State(Folder(place)).secret(NAME) == secret


def test_files_that_others_could_read_are_closed_to_them(place):
    folder = Folder(place)
    folder.write("a", b"secret")
    (place / "a").chmod(0o644)
    assert folder.read("a") == b"secret"
    assert mode(place / "a") == 0o600


def test_a_file_is_replaced_whole_or_not_at_all(place, monkeypatch, lines):
    folder = Folder(place)
    file = State(folder).file("a")
    file.write(b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file.write(b"new")
    assert file.read() == b"old"
    assert lines == [f"WARNING not kept: {place / 'a'}: No space left on device"]
    assert sorted(path.name for path in place.iterdir()) == ["a", "lock"]


def test_what_a_full_disk_has_not_taken_is_written_once_there_is_room(place, monkeypatch, lines):
    state = State(Folder(place))
    files = {name: state.file(name) for name in ("one", "two", "three")}
    with monkeypatch.context() as patched:

        def full(_descriptor):
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", full)
        for name, file in files.items():
            file.write(f"{name} of before".encode())
            file.write(name.encode())
        state.write_again()
        assert [file.read() for file in files.values()] == [None] * 3
        assert len(lines) == 6, "it is said when it happens, and not each time that it is tried again"
    files["three"].write(b"newer")
    state.write_again()
    state.write_again()
    assert [file.read() for file in files.values()] == [b"one", b"two", b"newer"]
    assert lines[6:] == [f"INFO kept by now: {place / name}" for name in ("one", "two")]


def test_it_is_tried_for_the_last_time_when_the_relay_ends(place, lines):
    state = State(Folder(place))
    (place / "one.new").mkdir()
    state.file("one").write(b"one")
    (place / "one.new").rmdir()
    state.close()
    assert (place / "one").read_bytes() == b"one"


def test_links_pipes_and_other_users_files_are_not_followed(place, tmp_path):
    folder = Folder(place)
    (tmp_path / "target").write_bytes(b"x")
    (place / "link").symlink_to(tmp_path / "target")
    os.mkfifo(place / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(StateError, match=f"{name}: "):
            folder.read(name)
    with pytest.raises(StateError, match="link"):
        folder.private_path("link")


# -- the certificate ----------------------------------------------------------------------------------


def test_the_certificate_outlives_the_relay(place, monkeypatch, capsys):
    hashes = []

    async def look(relay, _limiter):
        hashes.append(relay._certificates.current.sha256)
        return 0

    monkeypatch.setattr(Relay, "run", look)
    for kept in (place, place, place.parent / "other", "none", "none"):
        assert serve(Settings(port=0, bind="127.0.0.1", state=str(kept))) == 0
    assert hashes[0] == hashes[1]
    assert len(set(hashes[1:])) == 4
    assert mode(place / "certificates.pem") == 0o600


# -- a folder that cannot be used ---------------------------------------------------------------------


def test_one_relay_has_a_folder_at_a_time(place, lines):
    first = open_state(str(place), 0, {})
    second = open_state(str(place), 0, {})
    assert second.folder is None
    assert second.secret(NAME) != first.secret(NAME)
    assert len(lines) == 1
    assert lines[0].startswith("WARNING ")
    assert lines[0].endswith(f"{place}: another relay is using this folder")
    first.close()
    assert open_state(str(place), 0, {}).folder is not None


def test_a_killed_relay_leaves_no_lock(place):
    code = "import sys, os; from relay.state import *; Folder(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert done.returncode == -9
    Folder(place).close()


def _file(place):
    place.parent.mkdir()
    place.write_text("")


def _world_writable(place):
    place.mkdir(parents=True)
    place.chmod(0o777)


def _lock_is_a_link(place):
    place.mkdir(parents=True)
    (place / "lock").symlink_to("/dev/null")


@pytest.mark.parametrize("spoil", [_file, _world_writable, _lock_is_a_link])
def test_a_folder_that_cannot_be_used_is_one_line_and_the_relay_goes_on(place, lines, spoil):
    spoil(place)
    state = open_state(str(place), 0, {})
    assert state.secret(NAME) == state.secret(NAME)
    assert len(lines) == 1
    assert lines[0].startswith("WARNING certificate, addresses and keys are forgotten when this relay ends: ")
    assert str(place) in lines[0]


def test_it_is_no_warning_where_nobody_asked_for_state(place, lines):
    _file(place)
    assert open_state("auto", 0, {"STATE_DIRECTORY": str(place)}).folder is None
    assert [line.partition(" ")[0] for line in lines] == ["INFO"]


def test_a_read_only_file_system_is_one_line(place, lines, monkeypatch):
    def refuse(path, *_args, **_kwargs):
        raise OSError(30, "Read-only file system", path)

    place.mkdir(parents=True)
    monkeypatch.setattr(os, "open", refuse)
    assert open_state("auto", 0, {"STATE_DIRECTORY": str(place)}).folder is None
    assert [line.rpartition(": ")[2] for line in lines] == ["Read-only file system"]

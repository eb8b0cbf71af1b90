from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from relay.admin_place import (
    AUTO,
    NONE,
    Address,
    PlaceError,
    default_path,
    find,
    is_live,
    listen,
    parse_place,
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("auto", AUTO),
        ("none", NONE),
        ("/run/x.sock", Path("/run/x.sock")),
        ("./x", Path("x")),
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:9000", Address("localhost", 9000)),
    ],
)
def test_places_are_read(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "here", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a b:1", "::1:80"]
)
def test_other_texts_are_no_places(text):
    with pytest.raises(ValueError, match="must be auto, none"):
        parse_place(text)


def test_a_service_has_its_socket_in_its_own_folder(tmp_path):
    folder = tmp_path / "service"
    path = default_path(4433, {"RUNTIME_DIRECTORY": f"{folder}:/elsewhere"})
    assert path == folder / "4433.sock"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = default_path(4433, {"RUNTIME_DIRECTORY": str(shared)})
    assert found.parent != shared


def test_where_no_folder_will_do_all_are_named(tmp_path, monkeypatch):
    for name in ("one", f"vmrelay-{os.geteuid()}"):
        (tmp_path / name).write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    (tmp_path / "vmrelay-12345").symlink_to(tmp_path)
    with pytest.raises(PlaceError) as caught:
        default_path(1, {"XDG_RUNTIME_DIR": str(tmp_path / "one")})
    assert str(tmp_path / "vmrelay-12345") in str(caught.value)


def test_the_socket_is_for_its_user_alone(tmp_path):
    path = tmp_path / "admin.sock"
    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert is_live(path)
        with pytest.raises(PlaceError, match="another relay listens there"):
            listen(path)
    assert not is_live(path)


def test_a_socket_left_behind_is_replaced_and_a_file_is_not(tmp_path):
    path = tmp_path / "admin.sock"
    listen(path).close()
    assert path.exists()
    listen(path).close()
    other = tmp_path / "file"
    other.write_text("precious")
    with pytest.raises(PlaceError, match="in use"):
        listen(other)
    assert other.read_text() == "precious"


def test_a_path_that_is_too_long_is_an_error_in_one_line(tmp_path):
    with pytest.raises(PlaceError):
        listen(tmp_path / ("x" * 120))


def test_only_relays_that_run_are_found(tmp_path):
    environment = {"RUNTIME_DIRECTORY": str(tmp_path)}
    listen(tmp_path / "1.sock").close()
    with listen(tmp_path / "2.sock"), listen(tmp_path / "3.sock"):
        found = [path for path in find(environment) if path.parent == tmp_path]
        assert [path.name for path in found] == ["2.sock", "3.sock"]
        assert find(environment, 3)[0].name == "3.sock"


def test_any_error_of_the_system_is_told_with_the_path(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PlaceError, match=r"a.sock: Permission denied"):
        listen(tmp_path / "a.sock")

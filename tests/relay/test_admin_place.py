from __future__ import annotations

import errno
import fcntl
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
    sweep,
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
        ("http://127.0.0.1:9000", Address("127.0.0.1", 9000)),
        ("http://[::1]:9000/", Address("::1", 9000)),
    ],
)
def test_places_are_read(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        *("", "here", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a b:1", "::1:80"),
        *("http://127.0.0.1", "http://127.0.0.1:9000/v1", "unix:///run/x.sock", "tcp://127.0.0.1:9000"),
    ],
)
def test_other_texts_are_no_places(text):
    with pytest.raises(ValueError, match="must be auto, none"):
        parse_place(text)


def test_tls_is_not_left_out_without_a_word():
    with pytest.raises(ValueError, match="there is no TLS"):
        parse_place("https://127.0.0.1:9000")


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


def test_who_asks_whether_a_relay_is_there_is_no_client_of_it(tmp_path):
    with listen(tmp_path / "1.sock") as listener:
        assert is_live(tmp_path / "1.sock")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_sockets_of_killed_relays_are_swept_and_nothing_else(tmp_path):
    """One that is bound and does not listen yet belongs to a relay that is starting."""
    (tmp_path / "5.sock").write_text("precious")
    (tmp_path / "6.sock").symlink_to(tmp_path / "4433.sock")
    for name in ("4433.sock", "4433-77.sock", "mine.sock", "4433.sock.old"):
        listen(tmp_path / name).close()
    with listen(tmp_path / "2.sock"), socket.socket(socket.AF_UNIX) as starting:
        starting.bind(str(tmp_path / "3.sock"))
        sweep(tmp_path)
        kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"2.sock", "3.sock", "5.sock", "6.sock", "mine.sock", "4433.sock.old"}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_socket_of_another_user_stays(tmp_path):
    listen(tmp_path / "1.sock").close()
    os.chown(tmp_path / "1.sock", 12345, -1)
    sweep(tmp_path)
    assert (tmp_path / "1.sock").exists()


@pytest.mark.parametrize("opens", [sweep, lambda folder: listen(folder / "1.sock").close()])
def test_one_relay_at_a_time_opens_and_removes_sockets(tmp_path, monkeypatch, opens):
    """Else the place of a socket that was found dead could be a live relay's by the time it is removed."""
    listen(tmp_path / "1.sock").close()
    folder = os.open(tmp_path, os.O_RDONLY)
    is_locked = []

    def probe(_path):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_locked.append(True)
        return errno.ECONNREFUSED

    monkeypatch.setattr("relay.admin_place._probe", probe)
    opens(tmp_path)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(folder)
    assert is_locked == [True]


def test_a_folder_that_somebody_keeps_locked_is_used_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("relay.admin_place.LOCKED_FOR", 0.02)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    listen(tmp_path / "1.sock").close()
    os.close(folder)
    assert (tmp_path / "1.sock").is_socket()


def test_a_folder_that_is_not_there_is_swept_of_nothing(tmp_path):
    sweep(tmp_path / "none")

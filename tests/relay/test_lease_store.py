"""What a relay that is started again knows of its guests."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest
from waiting import wait_until

from relay import lease_store
from relay.lease_store import FILE, FRESH_FOR, KEPT_FOR, LeaseStore
from relay.state import Folder

NOW = 1_800_000_000


def mac(number):
    return b"\x52\x54" + number.to_bytes(4)


def ip(number):
    return bytes((10, 0, *divmod(number, 256)))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "state")


class Clock:
    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reopen(folder, clock):
    """Start over with what was written; the store before it is closed."""
    stores = []

    def start():
        if stores:
            stores.pop().close()
        stores.append(LeaseStore(folder, clock))
        return stores[0]

    yield start
    for store in stores:
        store.close()


def known(store, room="default"):
    return list(store.of_room(room).recall())


def test_leases_and_names_of_each_room_outlive_the_relay(reopen, clock):
    store = reopen()
    lab, default = store.of_room("lab"), store.of_room("default")
    default.keep(mac(1), ip(11))
    default.keep(mac(1), ip(11), "web")
    lab.keep(mac(1), ip(12), "Straße")
    clock.now += 1
    default.keep(mac(2), ip(13))
    clock.now += 1
    default.keep(mac(1), ip(14))
    expected = [(mac(2), ip(13), ""), (mac(1), ip(14), "web")]
    assert known(store) == expected
    store = reopen()
    assert known(store) == expected
    assert known(store, "lab") == [(mac(1), ip(12), "Straße")]
    assert known(store, "other") == []


def test_what_another_process_keeps_is_known_and_written_once_the_guest_comes_here(reopen):
    store = reopen()
    store.learn("lab", mac(1), ip(1), "web")
    store.learn("lab", mac(2), ip(2), "")
    store.learn("lab", mac(1), ip(3), "")
    expected = [(mac(2), ip(2), ""), (mac(1), ip(3), "web")]
    assert list(store.recall("lab")) == expected
    assert known(reopen(), "lab") == []
    store = reopen()
    for guest, address, name in expected:
        store.learn("lab", guest, address, name)
    store.keep("lab", mac(1), ip(3), "")
    assert known(reopen(), "lab") == [(mac(1), ip(3), "web")]


def test_what_another_process_keeps_it_alone_writes(reopen, monkeypatch):
    store = reopen()
    monkeypatch.setattr(store, "_write", lambda: None)  # before its end
    store.keep("lab", mac(1), ip(1), "web")
    store.keep("lab", mac(2), ip(2), "")
    store.learn("lab", mac(2), ip(3), "db")
    store.learn("lab", mac(3), ip(1), "")
    assert {known[0]: known[1] for known in store.recall("lab")}[mac(1)] == bytes(4)
    for limit in ("MAX_PER_ROOM", "MAX_LEASES"):
        monkeypatch.setattr(lease_store, limit, 3)
        store.learn("lab", mac(len(limit)), ip(len(limit)), "")
        assert len(known(store, "lab")) == 3
    monkeypatch.undo()
    assert known(reopen(), "lab") == [(mac(1), ip(1), "web")]


def test_what_was_kept_is_on_the_disk_a_moment_later(folder, monkeypatch):
    """A killed relay closes nothing."""
    code = (
        "import sys, os, time, sqlite3; from pathlib import Path; from relay.state import Folder;"
        "from relay.lease_store import *; store = LeaseStore(Folder(Path(sys.argv[1])));"
        "store.keep('default', b'abcdef', bytes(4), 'web');"
        "look = sqlite3.connect(Path(sys.argv[1]) / FILE);\n"
        "while not look.execute('SELECT 1 FROM leases').fetchone(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    folder.close()
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], check=False, timeout=30)
    assert done.returncode == -9
    store = LeaseStore(Folder(folder.path))
    assert known(store) == [(b"abcdef", bytes(4), "web")]
    store.close()


def test_an_address_is_its_last_guests_whenever_that_was(reopen, clock):
    """Within one second, or by a clock that was set back; the others keep their names."""
    first = reopen()
    first.keep("lab", mac(9), ip(1), "web")
    first.keep("lab", mac(1), ip(1), "")
    clock.now -= 7 * 86_400
    first.keep("lab", mac(5), ip(1), "db")
    first.keep("default", mac(1), ip(1), "")
    for store in (first, reopen()):
        lab = {known[0]: known[1:] for known in store.recall("lab")}
        assert lab == {mac(9): (bytes(4), "web"), mac(1): (bytes(4), ""), mac(5): (ip(1), "db")}
        assert list(store.recall("default")) == [(mac(1), ip(1), "")]
    store.keep("lab", mac(9), ip(1), "")
    assert {known[0]: known[1] for known in store.recall("lab")}[mac(9)] == ip(1), "it has it again"
    store.keep("lab", mac(9), ip(2), "")
    store.keep("lab", mac(5), ip(1), "")
    assert {known[1] for known in reopen().recall("lab")} == {bytes(4), ip(1), ip(2)}


def test_the_name_that_a_guest_said_last_is_known(reopen):
    first = reopen()
    first.keep("lab", mac(1), ip(1), "web")
    first.keep("lab", mac(1), ip(2), "")
    for store in (first, reopen()):
        lab = store.of_room("lab")
        assert [lab.name_of(mac(number)) for number in (1, 2)] == ["web", ""]
        assert store.of_room("default").name_of(mac(1)) == ""


def test_the_files_are_for_their_user_only(reopen, folder):
    reopen().keep("default", mac(1), ip(11), "")
    reopen()
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.path.iterdir()} == {0o600}


def test_a_guest_that_did_not_come_back_is_forgotten(reopen, clock):
    store = reopen()
    store.keep("default", mac(1), ip(11), "")
    clock.now += KEPT_FOR - 1
    store.keep("default", mac(2), ip(12), "")
    assert known(reopen()) == [(mac(1), ip(11), ""), (mac(2), ip(12), "")]
    clock.now += 2
    assert known(reopen()) == [(mac(2), ip(12), "")]
    assert known(reopen()) == [(mac(2), ip(12), "")]


def test_who_is_seen_again_is_kept_for_longer(reopen, clock):
    store = reopen()
    store.keep("default", mac(1), ip(11), "")
    clock.now += FRESH_FOR
    store.keep("default", mac(1), ip(11), "")
    clock.now += KEPT_FOR - 1
    assert known(reopen()) == [(mac(1), ip(11), "")]


def test_no_room_and_not_all_rooms_together_fill_the_disk(reopen, monkeypatch):
    monkeypatch.setattr(lease_store, "MAX_PER_ROOM", 3)
    monkeypatch.setattr(lease_store, "MAX_LEASES", 8)
    store = reopen()
    for room, number in itertools.product("abcd", range(5)):
        store.keep(room, mac(number), ip(number), "")
    for again in (store, reopen()):
        assert [len(known(again, room)) for room in "abcd"] == [0, 2, 3, 3]
        assert [guest[0] for guest in known(again, "d")] == [mac(2), mac(3), mac(4)]


def test_who_was_seen_again_outlives_others_of_a_full_room(reopen, monkeypatch):
    monkeypatch.setattr(lease_store, "MAX_PER_ROOM", 3)
    store = reopen()
    for number in (1, 2, 3):
        store.keep("default", mac(number), ip(number), "")
    store.keep("default", mac(1), ip(9), "")
    store.keep("default", mac(4), ip(4), "")
    assert [guest[0] for guest in known(store)] == [mac(3), mac(1), mac(4)]


def test_rows_of_other_rooms_are_not_looked_at_for_a_full_one(reopen, monkeypatch):
    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    compared = []
    monkeypatch.setattr(lease_store, "MAX_PER_ROOM", 3)
    store, full = reopen(), Name("full")
    for number in range(200):
        store.keep(f"room {number}", mac(number), ip(number % 250), "")
    for number in range(3):
        store.keep(full, mac(number), ip(number), "")
    compared.clear()
    store.keep(full, mac(3), ip(3), "")
    assert [guest[0] for guest in known(store, full)] == [mac(1), mac(2), mac(3)]
    assert len(compared) < 20


def test_a_disk_that_takes_nothing_is_one_line_and_costs_a_bounded_memory(reopen, monkeypatch, lines):
    monkeypatch.setattr(lease_store, "MAX_LEASES", 8)
    monkeypatch.setattr(lease_store, "MAX_PENDING", 16)
    store = reopen()
    store._database.execute("PRAGMA query_only = ON")
    for number in range(40):
        store.keep("default", mac(number), ip(number), "")
        store._write()
    assert len(store._pending) == 16
    assert lines == [
        "WARNING guests' addresses are not kept at present: leases.db: attempt to write a readonly database"
    ]
    assert len(known(store)) == 8
    store._database.execute("PRAGMA query_only = OFF")
    store.keep("default", mac(99), ip(99), "")
    assert known(reopen()) == [(mac(n), ip(n), "") for n in (33, 34, 35, 36, 37, 38, 39, 99)]


@contextlib.contextmanager
def full_disk():
    """Give what is written no room meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_what_a_full_disk_has_is_known_and_what_comes_is_written_once_there_is_room(
    tmp_path, clock, lines, how
):
    folder = Folder(tmp_path / "state")
    store = LeaseStore(folder, clock)
    store.keep("default", mac(1), ip(11), "web")
    if how == "killed":
        wait_until(lambda: not store._pending)
        folder = Folder(shutil.copytree(folder.path, tmp_path / "killed"))
    store.close()
    with full_disk():
        store = LeaseStore(folder, clock)
        assert known(store) == [(mac(1), ip(11), "web")]
        store.keep("default", mac(2), ip(12), "")
    [line] = lines
    assert line.startswith("WARNING guests' addresses are not kept: leases.db: ")
    store.keep("default", mac(3), ip(13), "")
    store.close()
    store = LeaseStore(folder, clock)
    assert known(store) == [(mac(1), ip(11), "web"), (mac(2), ip(12), ""), (mac(3), ip(13), "")]
    store.close()
    assert lines == [line]


def test_what_no_database_takes_is_left_out_and_what_comes_later_is_written(reopen, lines):
    store = reopen()
    for number in (1, 2):
        store.keep("default", mac(number), ip(number), "\ud800")
        wait_until(lambda: lines and not store._pending)
    assert len(known(store)) == 2
    store.keep("default", mac(9), ip(9), "web")
    assert known(reopen()) == [(mac(9), ip(9), "web")]
    [line] = lines
    assert line.startswith("WARNING 1 changes of guests' addresses are not kept: leases.db: 'utf-8' codec")


@pytest.mark.parametrize("content", [b"no database at all" * 99, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_database_is_put_aside(folder, lines, content):
    (folder.path / FILE).write_bytes(content)
    store = LeaseStore(folder)
    assert len(lines) == 1
    assert "is damaged" in lines[0]
    store.keep("default", mac(1), ip(11), "")
    store.close()
    assert (folder.path / "leases.damaged").read_bytes() == content
    store = LeaseStore(folder)
    assert known(store) == [(mac(1), ip(11), "")]
    store.close()


def test_a_page_in_the_middle_that_is_damaged_is_found(folder, lines):
    store = LeaseStore(folder)
    for number in range(500):
        store.keep("default", mac(number), ip(number), "name")
    store.close()
    path = folder.path / FILE
    whole = bytearray(path.read_bytes())
    whole[8192:12288] = b"\xff" * 4096
    path.write_bytes(whole)
    store = LeaseStore(folder)
    assert known(store) == []
    assert len(lines) == 1
    store.close()


def test_rows_and_versions_that_another_relay_wrote_are_not_believed(folder, lines, clock):
    LeaseStore(folder).close()
    database = sqlite3.connect(folder.path / FILE)
    rows = (
        ("default", b"x", bytes(4), "", NOW),
        ("default", mac(1), b"", "", NOW),
        ("default", mac(2), bytes(4), b"web", NOW),
        ("default", mac(3), bytes(4), "", "yesterday"),
        ("default", mac(4), bytes(4), "", NOW + 0.5),
        ("default", "text", bytes(4), "", NOW),
        (b"default", mac(5), bytes(4), "", NOW),
        ("default", mac(6), ip(6), "web", NOW),
        ("default", mac(7), ip(7), "", NOW),
    )
    database.executemany("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", rows)
    database.execute("UPDATE leases SET name = CAST(x'77ff' AS TEXT) WHERE mac = ?", (mac(7),))
    database.commit()
    store = LeaseStore(folder, clock)
    assert known(store) == [(mac(6), ip(6), "web"), (mac(7), ip(7), "w\N{REPLACEMENT CHARACTER}")]
    store.close()
    assert database.execute("SELECT count(*) FROM leases").fetchone() == (2,), "the others are deleted"
    database.execute("PRAGMA user_version = 9")
    database.commit()
    database.close()
    assert lines == []
    LeaseStore(folder).close()
    assert "its version is 9" in lines[0]


@pytest.mark.parametrize("version", [0, 1])
def test_a_table_of_another_form_is_put_aside(folder, lines, version):
    database = sqlite3.connect(folder.private_path(FILE))
    database.execute("CREATE TABLE leases (mac BLOB PRIMARY KEY, ip TEXT)")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    store = LeaseStore(folder)
    store.keep("default", mac(1), ip(11), "")
    store.close()
    store = LeaseStore(folder)
    assert known(store) == [(mac(1), ip(11), "")]
    store.close()
    [line] = lines
    assert "is damaged (no such column: room)" in line


def test_where_no_file_can_be_it_is_one_line(folder, lines):
    (folder.path / FILE).mkdir()
    store = LeaseStore(folder)
    store.keep("default", mac(1), ip(11), "")
    assert known(store) == [(mac(1), ip(11), "")], "a room that is made again, for as long as the relay lives"
    store.close()
    assert len(lines) == 1
    assert lines[0].startswith("WARNING guests' addresses are not kept: ")


def test_without_a_folder_rooms_that_are_made_again_know_their_guests_all_the_same():
    store = LeaseStore()
    store.of_room("lab").keep(mac(1), ip(11), "web")
    assert known(store, "lab") == [(mac(1), ip(11), "web")]
    store.close()


def test_processes_of_one_relay_write_to_one_database(tmp_path):
    """As workers do, each of which knows what the others wrote before it was started."""
    folder = Folder(tmp_path)
    stores = [LeaseStore(folder), LeaseStore(folder)]
    for number, store in enumerate(stores):
        store.of_room("lab").keep(bytes((2, 0, 0, 0, 0, number)), bytes((10, 0, 2, 10 + number)), "vm")
    for store in stores:
        store.close()
    after = LeaseStore(folder)
    assert len(list(after.of_room("lab").recall())) == 2
    after.close()

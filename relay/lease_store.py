"""Who had which address and name in which room, in a SQLite database.

Theory of operation. All rows are read at the start, there are few, and are kept in memory: a room that is
made asks there, and nobody waits for a disk. What changes is written by a thread of its own, a moment later
and much at once; a killed relay loses that moment. SQLite's write-ahead log makes a write whole or none.

A lease that nobody had for :data:`KEPT_FOR` is forgotten, and so is the one seen longest ago where a room has
more than :data:`MAX_PER_ROOM` or all together more than :data:`MAX_LEASES`. A database that cannot be read is
put aside; one that cannot be written, as on a full disk, is one line in the log, and the relay goes on with
what is in memory, and tries again with each change. Changes that no database takes, as of a text without
bytes in UTF-8, are left out of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from loguru import logger

from relay.state import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from relay.state import Folder

FILE = "leases.db"

KEPT_FOR = 30 * 86_400
"""Seconds after which a guest that did not come back is forgotten."""

MAX_PER_ROOM = 4096
MAX_LEASES = 16_384
"""Rows in all, 9 MB in memory, and 15 where each is of a room of its own."""

NO_ADDRESS = bytes(4)
"""Stands for that of a guest which another has had since: its name is kept all the same."""

MAX_PENDING = 2 * MAX_LEASES
"""Changes that wait for a disk that takes nothing; the oldest are lost."""

WRITTEN_AFTER = 0.2
"""Seconds that a change waits for others."""

FRESH_FOR = 3600
"""Seconds for which a lease that only was seen again is not written again."""

READ_WITHIN = 1.0
"""Seconds that another process may have a database locked which cannot be opened as usual."""

_MAC, _ADDRESS = 6, 4
_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    room TEXT NOT NULL, mac BLOB NOT NULL, address BLOB NOT NULL, name TEXT NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (room, mac)
) WITHOUT ROWID
"""
_WRITE = "INSERT OR REPLACE INTO leases (room, mac, address, name, seen) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM leases WHERE room = ? AND mac = ?"
_READ = "SELECT room, mac, address, name, seen FROM leases ORDER BY seen"


class Lease(NamedTuple):
    """Address (4 bytes) and name of a MAC, and when it was there last (Unix time)."""

    address: bytes
    name: str
    seen: int


class LeaseStore:
    """The leases of all rooms."""

    def __init__(self, folder: Folder | None = None, clock: Callable[[], float] = time.time) -> None:
        """Read what there is; a database that cannot be used is logged. Without a folder nothing is written.

        ``clock`` gives Unix time.
        """
        self._clock = clock
        self._leases: OrderedDict[tuple[str, bytes], Lease] = OrderedDict()
        """The one seen longest ago first."""
        self._rooms: dict[str, OrderedDict[bytes, None]] = {}
        """The MACs of each room that has any, in the same order."""
        self._had_last: dict[tuple[str, bytes], bytes] = {}
        """The MAC whose lease an address of a room was last."""
        self._pending: dict[tuple[str, bytes], Lease | None] = {}
        """What is to be written; None for what is to be deleted."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._failed = False
        self._folder = folder
        self._database: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        if folder is not None:
            self._begin(folder)
            self._thread.start()

    def _begin(self, folder: Folder) -> None:
        """Read what there is, from a database that cannot be written, too."""
        try:
            self._database = _open(folder)
            self._read(self._database)
        except (StateError, OSError, sqlite3.Error) as error:
            self._tell_failure(f"guests' addresses are not kept: {FILE}: {error}")
            with contextlib.suppress(StateError, OSError, sqlite3.Error), _as_it_is(folder) as database:
                self._read(database)

    def of_room(self, room: str) -> RoomMemory:
        """Give the part of one room."""
        return RoomMemory(self, room)

    def recall(self, room: str) -> Iterator[tuple[bytes, bytes, str]]:
        """Yield MAC, address and name of a room's guests, the one seen longest ago first.

        No two have one address; who lost its to another has NO_ADDRESS.
        """
        for mac in self._rooms.get(room, ()):
            lease = self._leases[room, mac]
            yield mac, lease.address, lease.name

    def name_of(self, room: str, mac: bytes) -> str:
        """Tell what a guest was called last; empty where that is not known."""
        lease = self._leases.get((room, mac))
        return "" if lease is None else lease.name

    def keep(self, room: str, mac: bytes, address: bytes, name: str) -> None:
        """Note that a guest is there; an empty name leaves the one that is known."""
        key, now = (room, mac), int(self._clock())
        before = self._leases.get(key)
        lease = Lease(address, name or (before.name if before else ""), now)
        if before is not None and before[:2] == lease[:2] and 0 <= now - before.seen < FRESH_FOR:
            return
        if before is None:
            self._make_room(room)
        self._place_last(key, lease)
        self._put(key, lease)

    def learn(self, room: str, mac: bytes, address: bytes, name: str) -> None:
        """Note what another process keeps of a guest of its own, for when that comes here."""
        key, before = (room, mac), self._leases.get((room, mac))
        name = name or (before.name if before else "")
        if before is not None and before[:2] == (address, name):
            return
        if before is None:
            self._make_room(room, is_ours=False)
        with self._lock:  # what is to be written of it is no longer so
            self._pending.pop(key, None)
        # It is not on the disk of this machine, perhaps: who comes here is written, as not seen for long.
        self._place_last(key, Lease(address, name, int(self._clock()) - FRESH_FOR), is_ours=False)

    def close(self) -> None:
        """Write what is left. Waits for the disk."""
        self._ended = True
        self._wake.set()
        if self._folder is not None:
            self._thread.join()
            self._write()
        if self._database is not None:
            self._database.close()

    def _place_last(self, key: tuple[str, bytes], lease: Lease, *, is_ours: bool = True) -> None:
        room, mac = key
        self._disown(key)
        if lease.address != NO_ADDRESS:
            former = self._had_last.get((room, lease.address))
            if former is not None:
                lost = self._leases[room, former] = self._leases[room, former]._replace(address=NO_ADDRESS)
                if is_ours:
                    self._put((room, former), lost)
            self._had_last[room, lease.address] = mac
        macs = self._rooms.setdefault(room, OrderedDict())
        self._leases[key] = lease
        self._leases.move_to_end(key)
        macs[mac] = None
        macs.move_to_end(mac)

    def _disown(self, key: tuple[str, bytes]) -> None:
        """Let a guest have no address, if it has one."""
        lease = self._leases.get(key)
        if lease is not None and lease.address != NO_ADDRESS:
            del self._had_last[key[0], lease.address]

    def _make_room(self, room: str, *, is_ours: bool = True) -> None:
        macs = self._rooms.get(room, ())
        if len(macs) >= MAX_PER_ROOM:
            self._forget((room, next(iter(macs))), is_ours=is_ours)
        elif len(self._leases) >= MAX_LEASES:
            self._forget(next(iter(self._leases)), is_ours=is_ours)

    def _forget(self, key: tuple[str, bytes], *, is_ours: bool = True) -> None:
        room, mac = key
        self._disown(key)
        del self._leases[key]
        del self._rooms[room][mac]
        if not self._rooms[room]:
            del self._rooms[room]
        if is_ours:
            self._put(key, None)

    def _put(self, key: tuple[str, bytes], lease: Lease | None) -> None:
        if self._folder is None:
            return
        with self._lock:
            self._pending[key] = lease
        if not self._wake.is_set():  # which costs less than to set it again
            self._wake.set()

    def _read(self, database: sqlite3.Connection) -> None:
        oldest = self._clock() - KEPT_FOR
        for row in database.execute(_READ).fetchall():
            match row:  # SQLite's columns hold values of any type
                case (str(room), bytes(mac), bytes(address), str(name), int(seen)) if (
                    len(mac) == _MAC and len(address) == _ADDRESS and seen >= oldest
                ):
                    self._place_last((room, mac), Lease(address, name, seen))
                    if len(self._leases) > MAX_LEASES:
                        self._forget(next(iter(self._leases)))
                case (room, mac, *_):
                    self._put((room, mac), None)

    # -- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait()
            if not self._ended:
                time.sleep(WRITTEN_AFTER)
            self._wake.clear()
            self._write()

    def _write(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        if self._folder is None or not pending:
            return
        written = [(*key, *lease) for key, lease in pending.items() if lease is not None]
        deleted = [key for key, lease in pending.items() if lease is None]
        try:
            if self._database is None:
                self._database = _open(self._folder)
            with self._database as database:
                database.executemany(_DELETE, deleted)
                database.executemany(_WRITE, written)
        except (StateError, OSError, sqlite3.Error) as error:
            with self._lock:
                self._pending = pending | self._pending  # with the next change it is tried again
                while len(self._pending) > MAX_PENDING:
                    del self._pending[next(iter(self._pending))]
            self._tell_failure(f"guests' addresses are not kept at present: {FILE}: {error}")
        except ValueError as error:  # so is UnicodeEncodeError; another try would end the same way
            self._tell_failure(f"{len(pending)} changes of guests' addresses are not kept: {FILE}: {error}")
        else:
            self._failed = False

    def _tell_failure(self, what: str) -> None:
        """Log the first of several failures in a row."""
        if not self._failed:
            logger.warning("{}", what)
        self._failed = True


class RoomMemory:
    """The leases of one room; implements ``actors.ports.LeaseMemory``."""

    def __init__(self, store: LeaseStore, room: str) -> None:
        self._store = store
        self._room = room

    def recall(self) -> Iterator[tuple[bytes, bytes, str]]:
        """Yield MAC, address and name of each guest, the one seen longest ago first."""
        return self._store.recall(self._room)

    def name_of(self, mac: bytes) -> str:
        """Tell what a guest was called last; empty where that is not known."""
        return self._store.name_of(self._room, mac)

    def keep(self, mac: bytes, address: bytes, name: str = "") -> None:
        """Note that a guest is there."""
        self._store.keep(self._room, mac, address, name)


def _open(folder: Folder) -> sqlite3.Connection:
    """Open the database, a new one if it is damaged. Raises StateError, OSError or sqlite3.Error."""
    path = folder.private_path(FILE)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        # Others are of the disk, or of who else uses it. This one is of what stands there: another schema.
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        aside = path.with_suffix(".damaged")
        logger.warning("{} is damaged ({}); it is put aside as {}", path, error, aside.name)
    for suffix in ("-wal", "-shm"):
        path.with_name(FILE + suffix).unlink(missing_ok=True)
    path.replace(aside)
    return _connect(folder.private_path(FILE))


@contextlib.contextmanager
def _as_it_is(folder: Folder) -> Iterator[sqlite3.Connection]:
    """Open the database for reading alone, by this process alone: that needs no room on the disk."""
    path = folder.private_path(FILE)
    with contextlib.closing(sqlite3.connect(path, timeout=READ_WITHIN)) as database:
        database.text_factory = _text
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        yield database


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    database.text_factory = _text
    with contextlib.ExitStack() as stack:
        stack.callback(database.close)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if found != "ok" or version not in (0, _VERSION):
            raise sqlite3.DatabaseError(found if found != "ok" else f"its version is {version}")
        if version != _VERSION:  # else there may be no room for what need not be written
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.commit()
        database.execute(_READ).fetchone()
        stack.pop_all()
    return database

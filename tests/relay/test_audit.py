"""The file of the audit log: private, rotated, and never waited for; tests/system has what stands in it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading

import pytest
from loguru import logger
from waiting import wait_until

from actors.messages import FlowOpened
from netstack.counters import Counters
from relay import audit
from relay.audit import AuditError, AuditFile, AuditLog, refuse_unwritable

FLOW = FlowOpened(3, bytes.fromhex("525400000001"), "udp", "10.0.2.15:4000", "192.0.2.1:53", 40_000)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path):
    opened = AuditLog(path, 0, 0)
    yield opened
    opened.close()


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_and_flows_are_lines_of_json(path):
    log = AuditLog(path, 0, 0)
    logger.bind(event="joined", unthinned=True, reason="x", room="lab", mac=None, name="a\n").info("hello")
    logger.info("no event")
    log.flow("lab", FLOW)
    log.close()
    joined, flow = entries(path)
    assert next(iter(joined)) == "time"
    del joined["time"], flow["time"]
    assert joined == {"event": "joined", "room": "lab", "mac": None, "name": "a\n"}
    assert flow == {
        "event": "flow",
        "room": "lab",
        "direction": "out",
        "peer": 3,
        "mac": "52:54:00:00:00:01",
        "protocol": "udp",
        "guest": "10.0.2.15:4000",
        "remote": "192.0.2.1:53",
        "local": 40_000,
    }


def test_of_many_refusals_some_are_written_and_the_others_counted(path, monkeypatch):
    monkeypatch.setattr(audit, "REFUSALS_PER_SECOND", 0.0)
    log, counters = AuditLog(path, 0, 0), Counters()
    for _ in range(audit.BURST_OF_REFUSALS + 5):
        logger.bind(event="refused", reason="x", room=None, remote="192.0.2.1:1", why="token").warning("no")
    logger.bind(event="joined", room="lab").info("hello")
    log.count_losses(counters)
    log.close()
    *refused, joined = entries(path)
    assert (len(refused), joined["event"]) == (audit.BURST_OF_REFUSALS, "joined")
    assert counters == {audit.LEFT_OUT: 5}
    del refused[0]["time"]
    assert refused[0] == {"event": "refused", "room": None, "remote": "192.0.2.1:1", "why": "token"}


def test_those_who_leave_without_an_address_count_as_refused(path, monkeypatch):
    monkeypatch.setattr(audit, "REFUSALS_PER_SECOND", 0.0)
    monkeypatch.setattr(audit, "BURST_OF_REFUSALS", 3)
    log, counters = AuditLog(path, 0, 0), Counters()
    for _ in range(5):
        logger.bind(event="left", room="lab", mac=None, address=None, why="away").info("no")
        logger.bind(event="left", room="lab", mac="m", address="10.0.2.15", why="away").info("bye")
    log.count_losses(counters)
    log.close()
    addresses = [entry["address"] for entry in entries(path)]
    assert (addresses.count(None), addresses.count("10.0.2.15")) == (3, 5)
    assert counters == {audit.LEFT_OUT: 2}


def test_the_file_is_private_and_goes_on(path):
    path.write_text("{}\n")
    path.chmod(0o644)
    log = AuditLog(path, 0, 0)
    log.flow("lab", FLOW)
    log.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(entries(path)) == 2


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_files_are_rotated_by_size_and_so_many_are_kept(path, kept):
    file = AuditFile(path, 100, kept)
    for number in range(50):
        file.write(f"{number:029}\n")
    file.close()
    old = [path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1)]
    assert sorted(path.parent.iterdir()) == sorted([path, *old])
    assert {each.stat().st_size for each in old} <= {90}
    numbers = [int(line) for each in (*reversed(old), path) for line in each.read_text().split()]
    assert numbers == list(range(50 - len(numbers), 50))
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in (path, *old))


def test_one_long_line_is_written_all_the_same(path):
    file = AuditFile(path, 100, 1)
    for _ in range(2):
        file.write(f"{'x' * 500}\n")
    file.close()
    assert path.stat().st_size == 501


def test_a_file_that_was_moved_away_is_begun_anew(path, log):
    log.flow("lab", FLOW)
    wait_until(path.read_text)
    path.rename(path.with_suffix(".old"))
    log.reopen()
    wait_until(path.exists)
    log.flow("lab", FLOW)
    wait_until(path.read_text)
    assert len(entries(path)) == len(entries(path.with_suffix(".old"))) == 1


def test_several_processes_may_share_it(path):
    program = (
        "import sys; from pathlib import Path; from relay.audit import AuditFile\n"
        "file = AuditFile(Path(sys.argv[1]), 2000, 200)\n"
        "for number in range(300): file.write(f'{sys.argv[2]} {number:04}\\n')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = sorted(line for file in path.parent.iterdir() for line in file.read_text().splitlines())
    assert lines == [f"{name} {number:04}" for name in "abc" for number in range(300)]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_refused_in_one_line(path, make):
    make(path)
    with pytest.raises(AuditError, match=r"cannot write the audit log .*audit\.jsonl: [^\n]+$"):
        AuditFile(path, 0, 0)
    with pytest.raises(AuditError, match=r"cannot write the audit log .*audit\.jsonl: [^\n]+$"):
        refuse_unwritable(path)


def test_whether_it_could_be_written_is_told_without_a_file_being_made_or_changed(path, monkeypatch):
    refuse_unwritable(path)
    assert not path.exists()
    path.touch()
    path.chmod(0o644)
    refuse_unwritable(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(AuditError, match=r"audit\.jsonl/log: Not a directory"):
        refuse_unwritable(path / "log")
    with pytest.raises(AuditError, match=r"nowhere/audit\.jsonl: No such file or directory"):
        refuse_unwritable(path.parent / "nowhere" / path.name)
    path.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AuditError, match=r"audit\.jsonl: Permission denied"):
        refuse_unwritable(path)


def test_a_full_disk_is_one_line_and_what_is_lost_is_counted(path, monkeypatch, lines):
    real, full = os.write, threading.Event()

    def write(descriptor, data):
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(audit.os, "write", write)
    log, counters = AuditLog(path, 0, 0), Counters()
    full.set()
    for _ in range(3):
        log.flow("lab", FLOW)

    def lost():
        log.count_losses(counters)
        return counters["audit.lost"] == 3

    wait_until(lost)
    assert lines == [f"ERROR the audit log loses lines: {path}: No space left on device"]
    full.clear()
    log.flow("lab", FLOW)
    log.close()
    assert len(entries(path)) == 1
    assert "3 lines for the audit log are lost" in lines[1]


def test_nobody_waits_for_the_disk_and_the_queue_is_bounded(path, monkeypatch):
    goes_on = threading.Event()
    real = os.write

    def write(descriptor, data):
        goes_on.wait(20)
        return real(descriptor, data)

    monkeypatch.setattr(audit.os, "write", write)
    log, counters = AuditLog(path, 0, 0), Counters()
    for _ in range(20_000):
        log.flow("lab", FLOW)
    log.count_losses(counters)
    assert 10_000 < counters["audit.lost"] < 20_000
    goes_on.set()
    log.close()


def test_where_no_other_file_can_be_begun_lines_go_on_in_this_one(path, lines):
    taken = path.with_name(f"{path.name}.1")
    (taken / "folder").mkdir(parents=True)
    file = AuditFile(path, 100, 1)
    for number in range(20):
        file.write(f"{number:029}\n")
    with path.open() as other:  # another process is not kept waiting
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [int(line) for line in path.read_text().split()] == list(range(20))
    said = "the audit log goes on in the file that it has open, for it can begin no other one"
    assert lines == [f"ERROR {said}: {path}: Is a directory"]
    (taken / "folder").rmdir()
    taken.rmdir()
    file.write("20\n")
    file.close()
    assert path.read_text() == "20\n"
    assert len(taken.read_text().split()) == 20


def test_a_torn_line_does_not_spoil_the_next(path, monkeypatch):
    real, room = os.write, [10]

    def write(descriptor, data):
        if not room:
            return real(descriptor, data)
        if room[0]:
            written, room[0] = real(descriptor, data[: room[0]]), 0
            return written
        room.clear()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(audit.os, "write", write)
    file = AuditFile(path, 0, 0)
    with pytest.raises(OSError, match="No space"):
        file.write("the first line\n")
    file.write("the second line\n")
    file.close()
    assert path.read_text() == "the first \nthe second line\n"

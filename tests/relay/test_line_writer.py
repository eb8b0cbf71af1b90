from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import threading
import time

import pytest
from loguru import logger
from waiting import wait_until

from relay import line_writer
from relay.line_writer import LineWriter

LINE = "x" * 99 + "\n"
PIPE_BYTES = 4096
PATIENCE = 20
"""Seconds after which a test gives up."""


class Pipe:
    """A pipe of 4 KB, with a stream at its end that is written to."""

    def __init__(self):
        self.reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.stream = os.fdopen(writing, "w")

    def read_until(self, text):
        """Read until ``text`` has come; return everything."""
        read = ""
        while text not in read:
            part = os.read(self.reading, 65536).decode()
            assert part, read
            read += part
        return read

    def end(self):
        for close in (lambda: os.close(self.reading), self.stream.close):
            with contextlib.suppress(OSError):
                close()


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.end()


@pytest.fixture
def warnings():
    """What is logged meanwhile, as a queue."""
    told = []
    number = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    yield told
    logger.remove(number)


def test_lines_arrive_in_order_and_the_end_waits_for_them(pipe):
    with LineWriter(pipe.stream, "the log") as writer:
        for number in range(20):
            writer.write(f"line {number}\n")
    assert os.read(pipe.reading, 65536).decode() == "".join(f"line {number}\n" for number in range(20))


def test_a_crowd_of_lines_is_written_together_and_the_end_waits_for_no_more(pipe, monkeypatch):
    monkeypatch.setattr(line_writer, "GATHER_SECONDS", 1000.0)
    writes, real = [], os.write

    def write(descriptor, data):
        writes.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with LineWriter(pipe.stream, "the log") as writer:
        writer.write("first\n")
        wait_until(lambda: writes == [b"first\n"])
        for number in range(30):
            writer.write(f"line {number}\n")
    assert writes == [b"first\n", b"".join(b"line %d\n" % number for number in range(30))]


def test_lines_that_were_gathered_leave_by_themselves(pipe):
    with LineWriter(pipe.stream, "the log") as writer:
        for round_trip in range(3):
            for line in ("one", "two"):
                writer.write(f"{line} {round_trip}\n")
            pipe.read_until(f"two {round_trip}\n")


def test_of_lines_that_are_written_together_those_are_counted_that_are_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(line_writer, "GATHER_SECONDS", 1000.0)
    room, real = [0], os.write

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        size = real(descriptor, data[: room[0]])
        room[0] -= size
        return size

    with (tmp_path / "log").open("w") as log:
        with LineWriter(log, "the log") as writer:
            room[0] = len(b"first\n")
            monkeypatch.setattr(os, "write", write)
            writer.write("first\n")
            wait_until(lambda: not writer._characters)
            room[0] = len(b"whole\nto")
            for line in ("whole", "torn", "lost", "lost too"):
                writer.write(f"{line}\n")
        monkeypatch.undo()
        assert writer.lost == 3
    assert (tmp_path / "log").read_text() == "first\nwhole\nto"


def test_a_reader_that_stops_holds_nobody_up_and_is_told_what_it_missed(pipe, warnings):
    writer = LineWriter(pipe.stream, "the log", limit=10 * len(LINE))
    held_up = threading.Thread(target=lambda: [writer.write(LINE) for _ in range(1000)], daemon=True)
    held_up.start()
    held_up.join(PATIENCE)
    assert not held_up.is_alive()
    with_room = threading.Event()

    def read():
        while not with_room.is_set():
            os.read(pipe.reading, 65536)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until(lambda: warnings)
    with_room.set()
    writer.write(LINE)
    writer.close()
    reader.join(PATIENCE)
    lost = sum(int(text.split()[0]) for text in warnings)
    taken = PIPE_BYTES // len(LINE) + 1 + 10
    assert 1000 - taken <= lost < 1000
    assert warnings[0].endswith("lines for the log are lost: nobody took them in time")


def test_the_end_does_not_wait_for_a_reader_that_never_comes(pipe):
    writer = LineWriter(pipe.stream, "the log")
    for _ in range(1000):
        writer.write(LINE)
    began = time.monotonic()
    writer.close(patience=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    os.close(pipe.reading)  # lets the thread go
    writer.close(PATIENCE)


def test_a_reader_that_is_gone_costs_its_lines_only(pipe, warnings):
    os.close(pipe.reading)
    with LineWriter(pipe.stream, "the log") as writer:
        for _ in range(100):
            writer.write(LINE)
    assert warnings == []


def test_what_a_full_disk_did_not_take_is_told_when_it_takes_lines_again(tmp_path, warnings, monkeypatch):
    path = tmp_path / "log"
    real, full = os.write, [True] * 3

    def write(descriptor, data):
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with path.open("w") as stream, LineWriter(stream, "the log") as writer:
        for number in range(5):
            writer.write(f"line {number}\n")
    assert path.read_text() == "line 3\nline 4\n"
    assert warnings == ["3 lines for the log are lost: nobody took them in time"]


def test_a_descriptor_that_others_made_non_blocking_gets_every_line(pipe):
    os.set_blocking(pipe.stream.fileno(), False)
    writer = LineWriter(pipe.stream, "the log")
    for number in range(1000):
        writer.write(f"{number:099}\n")
    last = f"{999:099}\n"
    read = pipe.read_until(last)
    writer.close()
    assert read == "".join(f"{number:099}\n" for number in range(1000))


@pytest.mark.parametrize("make", [io.StringIO, lambda: None])
def test_streams_without_a_descriptor_are_written_to_as_they_are(make):
    stream = make()
    with LineWriter(stream, "the log") as writer:
        writer.write("one\n")
        assert not writer.isatty()
    assert stream is None or stream.getvalue() == "one\n"


def test_a_closed_stream_is_nobodys_problem(warnings):
    stream = io.StringIO()
    stream.close()
    with LineWriter(stream, "the log") as writer:
        writer.write("nowhere to go\n")
    assert warnings == []


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path):
    path = tmp_path / "log"
    with path.open("w", encoding="ascii") as stream, LineWriter(stream, "the log") as writer:
        writer.write("päth\n")
    assert path.read_text() == "p\\xe4th\n"


def test_a_line_that_the_disk_had_no_room_for_tears_no_other(tmp_path, monkeypatch):
    """A full disk takes the beginning of a line, then nothing; the next line begins on its own."""
    room = [3]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        size = real_write(descriptor, data[: room[0]])
        room[0] -= size
        return size

    real_write = os.write
    with (tmp_path / "log").open("w") as log:
        with LineWriter(log, "the log") as writer:
            monkeypatch.setattr(os, "write", write)
            writer.write("first\n")
            wait_until(lambda: not writer._characters, every=0.001)
            room[0] = 1000
            writer.write("second\n")
            writer.write("third\n")
        monkeypatch.undo()
    assert (tmp_path / "log").read_text() == "fir\nsecond\nthird\n"

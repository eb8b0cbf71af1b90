from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from netstack import pcapng
from relay.admin.recording import BlockError, Limits, Recorder, blocks

HEADER = pcapng.section("test") + pcapng.interface("a", "")


def packets(count):
    return b"".join(pcapng.packet(0, float(number), b"%04d" % number, "in") for number in range(count))


def record(path, data, limits):
    recorder = Recorder(path, limits)
    with contextlib.closing(recorder):
        for kind, block in blocks(io.BytesIO(data)):
            recorder.write(kind, block)


def read(path):
    with path.open("rb") as file:
        return [data for data, _ in RawPcapNgReader(file)]


def test_what_was_sent_is_in_the_file(tmp_path):
    record(tmp_path / "x.pcapng", HEADER + packets(3), Limits())
    assert (tmp_path / "x.pcapng").read_bytes() == HEADER + packets(3)


def test_each_file_of_a_ring_has_the_interfaces_of_its_packets(tmp_path):
    late = pcapng.interface("b", "") + pcapng.packet(1, 9.0, b"late", "out")
    record(tmp_path / "x.pcapng", HEADER + packets(5) + late, Limits(file_size=len(HEADER) + 100))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"x_{number:05}.pcapng" for number in range(1, len(files) + 1)]
    assert [data for file in files for data in read(file)] == [b"%04d" % n for n in range(5)] + [b"late"]


def test_what_interfaces_there_were_long_ago_fills_no_file(tmp_path):
    count = 500
    passed = (
        pcapng.interface(f"default/peer{n}", "") + pcapng.packet(n, float(n), b"%04d" % n, "in")
        for n in range(count)
    )
    again = pcapng.packet(0, 999.0, b"again", "in")
    record(tmp_path / "x.pcapng", pcapng.section("test") + b"".join(passed) + again, Limits(file_size=2000))
    assert all(file.stat().st_size <= 2100 for file in tmp_path.iterdir())
    told = []
    for path in sorted(tmp_path.iterdir()):
        with path.open("rb") as file:
            told += [(data, about.ifname) for data, about in RawPcapNgReader(file)]
    assert told == [
        *((b"%04d" % n, b"default/peer%d" % n) for n in range(count)),
        (b"again", b"default/peer0"),
    ]


@pytest.mark.parametrize("number", [1, 1 << 31])
def test_a_packet_of_no_interface_is_refused(tmp_path, number):
    with pytest.raises(BlockError):
        record(tmp_path / "x.pcapng", HEADER + pcapng.packet(number, 0.0, b"", "in"), Limits())


def test_only_the_latest_files_are_kept(tmp_path):
    record(tmp_path / "x.pcapng", HEADER + packets(9), Limits(file_size=len(HEADER) + 100, files=2))
    found = [data for file in sorted(tmp_path.iterdir()) for data in read(file)]
    assert len(list(tmp_path.iterdir())) == 2
    assert found[-1] == b"0008"


def test_a_file_that_is_old_enough_is_followed_by_another(tmp_path):
    record(tmp_path / "x.pcapng", HEADER + packets(3), Limits(file_seconds=1e-9))
    assert len(list(tmp_path.iterdir())) >= 3


@pytest.mark.parametrize("folder", ["/", "."])
def test_a_ring_cannot_be_beside_a_folder_without_a_name(folder):
    recorder = Recorder(Path(folder), Limits(file_size=1))
    with pytest.raises(IsADirectoryError):
        recorder.write(0x0A0D0D0A, HEADER)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK", bytes(20), b"\x0a\x0d\x0d\x0a" + b"\xff" * 8])
def test_what_is_no_pcapng_is_refused(data):
    with pytest.raises(BlockError):
        list(blocks(io.BytesIO(data)))


def test_a_block_that_is_cut_is_left_out():
    assert [block for _, block in blocks(io.BytesIO((HEADER + packets(1))[:-3]))] == [
        pcapng.section("test"),
        pcapng.interface("a", ""),
    ]

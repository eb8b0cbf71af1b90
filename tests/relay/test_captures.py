from __future__ import annotations

import asyncio
import io
from typing import Any, cast

from scapy.utils import RawPcapNgReader

from netstack import pcapng
from relay.supervisor import captures
from relay.supervisor.captures import Interfaces, blocks


class Source:
    """A stream as ``relay.supervisor.asking`` has it."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    async def read_exactly(self, amount):
        data = self._data.read(amount)
        return data if len(data) == amount else b""


def read(source):
    async def all_of_it():
        return [block async for block in blocks(cast("Any", Source(source)))]

    return asyncio.run(all_of_it())


def frame(number):
    return bytes([number]) * 60


def capture(*parts):
    return b"".join((pcapng.section("vmrelay"), *parts))


def test_several_captures_become_one_that_scapy_reads():
    first = read(
        capture(
            pcapng.interface("default/peer1", "web"),
            pcapng.packet(0, 1.0, frame(1), "in", comment="one"),
            pcapng.interface("default/gateway", "gateway"),
            pcapng.packet(1, 2.0, frame(2), "out"),
        )
    )
    second = read(capture(pcapng.interface("default/peer2", "db"), pcapng.packet(0, 3.0, frame(3), "in")))
    interfaces = Interfaces()
    whole = pcapng.section("vmrelay")
    for worker, block in ((0, first[0]), (1, second[0]), (0, first[1]), (1, second[1]), (1, second[2])):
        whole += interfaces.renumber(worker, block)
    for block in first[2:]:
        whole += interfaces.renumber(0, block)
    found = [(data, told.ifname) for data, told in RawPcapNgReader(io.BytesIO(whole))]
    assert sorted(found) == [
        (frame(1), b"default/peer1"),
        (frame(2), b"default/gateway"),
        (frame(3), b"default/peer2"),
    ]


def test_a_worker_that_comes_again_has_interfaces_of_its_own():
    interfaces = Interfaces()
    whole = pcapng.section("vmrelay")
    for name, number in (("default/peer1", 1), ("default/peer9", 2)):
        interfaces.begin(0)
        life = read(capture(pcapng.interface(name, "vm"), pcapng.packet(0, 1.0, frame(number), "in")))
        whole += b"".join(interfaces.renumber(0, block) for block in life)
    found = [(data, told.ifname) for data, told in RawPcapNgReader(io.BytesIO(whole))]
    assert found == [(frame(1), b"default/peer1"), (frame(2), b"default/peer9")]


def test_interfaces_of_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(captures, "MAX_INTERFACES", 3)
    interfaces = Interfaces()
    for number in range(10):
        interfaces.renumber(0, pcapng.interface(f"default/peer{number}", ""))
    assert len(interfaces._numbers) == 3
    for number in (7, 8, 9):
        interfaces.renumber(0, pcapng.packet(number, 0.0, b"", "in"))
    interfaces.begin(0)
    assert not interfaces._numbers


def test_what_is_no_block_ends_it():
    good = capture(pcapng.interface("a", "b"))
    assert len(read(good)) == 2
    assert len(read(good + b"\6\0\0\0\xff\xff\xff\xff" + bytes(100))) == 2
    assert len(read(good + b"\6\0\0\0\4\0\0\0")) == 2
    assert len(read(good[:-5])) == 1

"""The table of ports that lead to guests, which all workers share."""

from __future__ import annotations

import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from transport.host.mapped_ports import PORTS, MappedPorts


@pytest.fixture
def start(tmp_path):
    with ExitStack() as stack:

        def start(worker):
            table = MappedPorts(tmp_path / "ports", worker)
            stack.callback(table.close)
            return table

        yield start


def test_a_port_is_known_to_all_workers_in_its_room_and_family_only(start):
    one, two = start(0), start(1)
    one.of_room("lab").add(40_000, ipv6=False)
    assert two.of_room("lab").has(40_000, ipv6=False)
    assert not two.of_room("lab").has(40_000, ipv6=True)
    assert not two.of_room("lab").has(40_001, ipv6=False)
    assert not two.of_room("other").has(40_000, ipv6=False)
    one.of_room("lab").discard(40_000, ipv6=False)
    assert not two.of_room("lab").has(40_000, ipv6=False)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has such a device")
def test_a_disk_that_has_no_room_for_the_table_is_an_error_at_once():
    with pytest.raises(OSError, match="No space left"):
        MappedPorts(Path("/dev/full"), 0)


@pytest.mark.parametrize("port", [0, PORTS - 1])
def test_every_port_has_its_place(start, port):
    table = start(0).of_room("lab")
    for ipv6 in (False, True):
        table.add(port, ipv6=ipv6)
    assert table.has(port, ipv6=False)
    assert table.has(port, ipv6=True)


def test_a_worker_takes_back_only_its_own(start):
    one, two = start(0), start(1)
    two.of_room("lab").add(40_000, ipv6=False)
    one.of_room("lab").discard(40_000, ipv6=False)
    assert one.of_room("lab").has(40_000, ipv6=False)


def test_nothing_is_left_of_a_worker_that_was_killed(start):
    one, two = start(0), start(1)
    one.of_room("lab").add(40_000, ipv6=False)
    two.of_room("lab").add(40_001, ipv6=False)
    start(0)
    assert not two.of_room("lab").has(40_000, ipv6=False)
    assert two.of_room("lab").has(40_001, ipv6=False)


def test_only_the_relays_user_has_the_table(start, tmp_path):
    start(0)
    assert stat.S_IMODE((tmp_path / "ports").stat().st_mode) == 0o600

"""What is told of TUN and TAP devices, of real ones in a network namespace."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from pathlib import Path

import pytest
from namespaces import Namespace

from guest.tun_devices import kind_of, queues_of

DEVICE = "t-kinds0"
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI = 0x0002, 0x0100, 0x1000


@pytest.fixture
def namespace():
    namespace = Namespace("kinds")
    with namespace.entered():
        yield namespace
    namespace.delete()


@pytest.mark.parametrize("options", [(), ("multi_queue",)])
@pytest.mark.parametrize("mode", ["tun", "tap"])
def test_a_device_is_of_the_kind_that_it_was_made(namespace, mode, options):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", mode, *options)
    assert kind_of(DEVICE) == mode


def test_other_devices_are_of_neither_kind(namespace):
    namespace.run("ip", "link", "add", DEVICE, "type", "bridge")
    assert [kind_of(name) for name in (DEVICE, "lo", "absent")] == ["", "", ""]


def test_the_queues_that_processes_hold_are_counted(namespace):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tap", "multi_queue")
    request = struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE)
    with contextlib.ExitStack() as stack:
        counts = [queues_of(DEVICE)]
        for _ in range(2):
            queue = stack.enter_context(Path("/dev/net/tun").open("r+b", buffering=0))
            fcntl.ioctl(queue, TUNSETIFF, request)
            counts.append(queues_of(DEVICE))
    assert [*counts, queues_of(DEVICE)] == [0, 1, 2, 0]

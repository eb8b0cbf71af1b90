"""Which of several sockets at one port the kernel gives datagrams and connections to."""

from __future__ import annotations

import contextlib
import select
import socket
import sys

import pytest

from transport.port_group import prefer_second

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux lets programs choose")


class Group:
    """Sockets that open one port after another."""

    def __init__(self, stack, kind, host):
        self.stack, self.kind, self.host = stack, kind, host
        self.address = (host, 0)
        self.sockets = []

    def open(self):
        opened = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, self.kind)
        self.stack.callback(opened.close)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(self.address)
        if self.kind == socket.SOCK_STREAM:
            opened.listen()
        prefer_second(opened)
        self.address = opened.getsockname()
        self.sockets.append(opened)
        return opened

    def close(self, opened):
        self.sockets.remove(opened)
        opened.close()

    def takers(self, clients=30):
        """Tell which sockets have got what so many clients sent."""
        found = set()
        for _ in range(clients):
            with socket.socket(self.sockets[0].family, self.kind) as client:
                client.connect(self.address)
                if self.kind == socket.SOCK_DGRAM:
                    client.send(b"hello")
                [ready], _, _ = select.select(self.sockets, [], [], 5)
                found.add(ready)
                if self.kind == socket.SOCK_DGRAM:
                    ready.recv(99)
                else:
                    ready.accept()[0].close()
        return found


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request):
    return request.param


@pytest.fixture(params=[socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
def group(request, host):
    with contextlib.ExitStack() as stack:
        yield Group(stack, request.param, host)


def test_what_is_new_goes_to_who_came_last_and_when_one_leaves_to_the_other(group):
    first = group.open()
    assert group.takers() == {first}
    second = group.open()
    assert group.takers() == {second}
    group.close(first)
    assert group.takers() == {second}
    third = group.open()
    assert group.takers() == {third}
    group.close(third)
    assert group.takers() == {second}

"""Host sockets under test: a network of the test's own, what is opened there, and whoever is told."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import subprocess
import threading
from pathlib import Path
from typing import ClassVar

from waiting import wait_until

from actors.messages import ErrorsFromNet
from actors.runtime import current_scheduler
from netstack.egress import EgressPolicy
from transport.host.outside import HostNetwork

CLONE_NEWNET = 0x4000_0000
LOOPBACK = EgressPolicy(allow=["127.0.0.0/8"])


def in_namespace(main, *, ping_sockets=True):
    """Run ``await main()`` in a thread whose network is a new one: loopback, no routes, nobody else."""
    failures = []

    def run():
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(CLONE_NEWNET) == 0, "a network namespace needs root"
            ip("link set lo up")
            sysctl("ping_group_range", "0 2147483647" if ping_sockets else "1 0")
            sysctl("ip_default_ttl", "77")
            asyncio.run(closing_all(main))
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def ip(command):
    return subprocess.run(["ip", *command.split()], check=True, stdout=subprocess.PIPE).stdout


def add_ipv6(address, device):
    """Give a device an IPv6 address, and wait until the kernel, which does so later, delivers to it."""
    ip(f"address add {address}/64 dev {device} nodad")
    wait_until(
        lambda: f"local {address} dev {device} ".encode() in ip("-6 route show table local"),
        lambda: f"{address} never came up",
    )


def narrow_link():
    """Lead 198.18.0.2 by a link with an MTU of 1400 to the device ``two``, where a test sees what comes."""
    ip("link add one mtu 1400 type veth peer name two")
    ip("addr add 198.18.0.1/24 dev one")
    ip("link set one up")
    ip("link set two up")
    ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:01 dev one")


def wired(version=4):
    """Lead 198.18.0.2 and fd18::2 by a link to a socket that hears and says frames of one IP version."""
    ip("link add one type veth peer name two")
    ip("addr add 198.18.0.1/24 dev one")
    ip("link set one up")
    ip("link set two up")
    ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:01 dev one")
    if version == 6:
        add_ipv6("fd18::1", "one")
        ip("neigh add fd18::2 lladdr 02:00:00:00:00:01 dev one")
    ethertype = {4: 0x800, 6: 0x86DD}[version]
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
    wire.bind(("two", ethertype))
    wire.settimeout(5)
    return wire


def sysctl(name, value):
    Path("/proc/sys/net/ipv4", name).write_text(value)


def forward_ipv6():
    """Be a router, which has the anycast address of each of its networks."""
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


class Network(HostNetwork):
    """The real one; notes what it opened, so that every test can leave nothing open."""

    opened: ClassVar[list] = []

    def __init__(self, policy, counters, **settings):
        super().__init__(policy, counters, current_scheduler(), **settings)

    def open_udp(self, flow, version=4):
        self.opened.append(super().open_udp(flow, version))
        return self.opened[-1]

    def open_echo(self, flow, version=4):
        self.opened.append(super().open_echo(flow, version))
        return self.opened[-1]


async def closing_all(main):
    Network.opened.clear()
    try:
        await asyncio.wait_for(main(), 30)
    finally:
        for opened in Network.opened:
            opened.close()


class Box(list):
    tell = list.append


class Flow:
    """Takes what a flow actor would be told."""

    def __init__(self):
        self.batches = []
        self.errors = []
        self.told = asyncio.Event()

    def tell(self, message):
        if isinstance(message, ErrorsFromNet):
            self.errors += message.errors
        else:
            self.batches.append(message.datagrams)
        self.told.set()

    async def complaint(self):
        """The next error."""
        while not self.errors:
            self.told.clear()
            await self.told.wait()
        return self.errors.pop(0)

    async def receive(self, count=1):
        while sum(map(len, self.batches)) < count:
            self.told.clear()
            await self.told.wait()
        return [datagram for batch in self.batches for datagram in batch]


@contextlib.contextmanager
def listening(address="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 0))
        server.settimeout(5)
        yield server


def closed_ports(count):
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(listening()).getsockname()[1] for _ in range(count)]


def has_addresses(monkeypatch, name, *addresses):
    """Let a name have these addresses."""
    ask = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments, **options):
        hosts = addresses if host == name else [host]
        return [found for each in hosts for found in ask(each, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

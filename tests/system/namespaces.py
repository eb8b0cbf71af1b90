"""Network namespaces: machines of their own as far as the network is concerned.

Names carry the process id, so that two runs on one machine do not meet, and everything is created inside
namespaces of the test: nothing of the host's own network is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import socket
import struct

from processes import PATIENCE, Program, run

_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace; its loopback is up."""

    def __init__(self, role):
        self.name = f"vmr{os.getpid()}-{next(_numbers)}-{role}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self):
        """What goes before a command to run it inside."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command, **options):
        return run(*self.prefix, *command, **options)

    def start(self, *command, **options):
        return Program(*self.prefix, *command, **options)

    def entered(self):
        """Be inside for a while, to open what then stays in the hands of the test."""
        return enter(self.name)

    def socket(self, kind=socket.SOCK_DGRAM, protocol=0, *, family=socket.AF_INET):
        """A socket of this namespace: it stays where it was made."""
        with self.entered():
            made = socket.socket(family, kind, protocol)
        made.settimeout(PATIENCE)
        return made

    def delete(self):
        run("ip", "netns", "delete", self.name)

    def device_of(self, address):
        """Name of the device that has this address."""
        return json.loads(self.run("ip", "-json", "address", "show", "to", address).stdout)[-1]["ifname"]

    def addresses(self, device):
        """Addresses of ``device``, as ``10.0.2.10/24``."""
        words = self.run("ip", "-o", "address", "show", "dev", device).stdout.split()
        return [words[at + 1] for at, word in enumerate(words) if word in {"inet", "inet6"}]


def connect(one, one_address, other, other_address):
    """A cable (veth) between two namespaces, with an address on each end: ``10.99.0.1/24``."""
    number = next(_numbers)
    ends = [f"v{os.getpid()}-{number}{letter}" for letter in "ab"]
    run("ip", "link", "add", ends[0], "netns", one.name, "type", "veth", "peer", ends[1], "netns", other.name)
    for namespace, end, address in ((one, ends[0], one_address), (other, ends[1], other_address)):
        namespace.run("ip", "address", "add", address, "dev", end)
        namespace.run("ip", "link", "set", end, "up")


def reset_at_close(opened):
    """Have the end of a TCP socket, if it is open still, be a RST: nobody says anything after it."""
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def enter(name):
    """Have this thread be inside a namespace for a while."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as here:  # noqa: PTH123
        _enter(here.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace):
    """Move this thread (setns(2), which Python knows from 3.12 on)."""
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")

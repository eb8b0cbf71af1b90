"""Linux kernels as guests for the benchmark, and what their users do: one TCP stream, a file, a ping.

All in network namespaces of the test suite's kind. Relays and switches run in one of them, ``Site``, which a
cable joins with ``outside``, where the servers are that a guest reaches through a NAT.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))
from namespaces import Namespace, connect, reset_at_close  # noqa: E402 - where they lie is said above
from processes import PATIENCE, Program  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUTSIDE = "10.99.0.2"
SITE = "10.99.0.1"
CABLE = "10.99.0.0/24"
CONTROL = b"cubic"
"""Congestion control of all kernels here, whatever this machine's default is."""
BLOCK = bytes(1 << 18)
FILE = 50e6
"""Bytes of what is fetched."""
PINGS_PER_SECOND = 20
LOST_PING = 2000.0
"""Milliseconds that a ping without an answer counts as."""

_numbers = itertools.count()


def device_name() -> str:
    """Return a name that no other device of this machine has."""
    return f"vb{os.getpid()}-{next(_numbers)}"


class Site:
    """Where relays, switches and their peers run; ``outside`` is beyond their NAT."""

    def __init__(self) -> None:
        self.namespace = Namespace("site")
        self.outside = Namespace("outside")
        connect(self.namespace, f"{SITE}/24", self.outside, f"{OUTSIDE}/24")
        # Peers that take their addresses from the machine want a default route.
        self.namespace.run("ip", "route", "add", "default", "via", OUTSIDE)

    def start(self, *command: object, core: int = 1, packages: Path | None = None) -> Program:
        """Start a program, on one core of two; ``packages`` are those of the relay, if not this tree's."""
        pin = ("taskset", "-c", str(core)) if (os.cpu_count() or 1) > 1 else ()
        environment = {"PYTHONPATH": str(packages)} if packages else None
        return Program(*pin, *self.namespace.prefix, *command, environment=environment)

    def delete(self) -> None:
        """Take it off this machine."""
        self.namespace.delete()
        self.outside.delete()


class Machine:
    """A Linux kernel with a network of its own, which somebody gives it."""

    def __init__(self, role: str) -> None:
        self.namespace = Namespace(role)

    def take(self, device: str, mac: str, address: str, gateway: str, mtu: int) -> None:
        """Set up a device that is in this namespace."""
        run = self.namespace.run
        run("ip", "link", "set", device, "address", mac, "mtu", mtu, "up")
        run("ip", "address", "replace", f"{address}/24", "dev", device)
        if gateway:
            run("ip", "route", "replace", "default", "via", gateway)

    def wait_for_route(self) -> None:
        """Wait until there is a way out, which a peer makes when it is ready."""
        deadline = time.monotonic() + PATIENCE
        while self.namespace.run("ip", "route", "get", OUTSIDE, check=False).returncode:
            if time.monotonic() > deadline:
                sys.exit(f"{self.namespace.name} never had a route")
            time.sleep(0.05)

    def ping(self, address: str, seconds: float) -> list[float]:
        """Ping for a while; give the round trips in milliseconds, lost ones as LOST_PING."""
        count = max(3, round(seconds * PINGS_PER_SECOND))
        done = self.namespace.run(
            *("ping", "-n", "-c", count, "-i", 1 / PINGS_PER_SECOND, "-W", LOST_PING / 1e3, address),
            check=False,
        )
        times = [float(found) for found in re.findall(r"time=([\d.]+) ms", done.stdout)]
        return times + [LOST_PING] * (count - len(times))

    def delete(self) -> None:
        """Take it off this machine."""
        self.namespace.delete()


def percentile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _stream_socket(namespace: Namespace) -> socket.socket:
    opened: socket.socket = namespace.socket(socket.SOCK_STREAM)
    # Those who accept have it from the socket that listens.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONTROL)
    return opened


@contextlib.contextmanager
def joined(guest: Machine, server: Namespace, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect ``guest`` with ``address``, which ``server`` has; give both ends. They are reset in the end."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_stream_socket(server))
        listening.bind((address, 0))
        listening.listen(1)
        near = stack.enter_context(_stream_socket(guest.namespace))
        near.connect(listening.getsockname())
        far = stack.enter_context(listening.accept()[0])
        for end in (near, far):
            end.settimeout(None)
            reset_at_close(end)
        yield near, far


def _feed(sender: socket.socket, size: float) -> None:
    """Send ``size`` bytes, or until the socket is shut down."""
    with contextlib.suppress(OSError):
        while size > 0:
            size -= sender.send(BLOCK[: int(min(size, len(BLOCK)))])


def transfer(sender: socket.socket, receiver: socket.socket, seconds: float, size: float = math.inf) -> float:
    """Send for ``seconds``, or ``size`` bytes if that takes less; give the Mbit/s that arrived."""
    feeding = threading.Thread(target=_feed, args=(sender, size))
    feeding.start()
    buffer, arrived = bytearray(len(BLOCK)), 0
    begin = time.monotonic()
    while arrived < size and (left := begin + seconds - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            arrived += receiver.recv_into(buffer)
        except TimeoutError:
            break
    took = time.monotonic() - begin
    with contextlib.suppress(OSError):
        sender.shutdown(socket.SHUT_RDWR)
    feeding.join()
    return arrived * 8 / took / 1e6


def download(guest: Machine, server: Namespace, address: str, seconds: float) -> dict[str, Any]:
    """One TCP stream towards the guest, from its first byte on."""
    with joined(guest, server, address) as (near, far):
        return {"down_mbit_s": transfer(far, near, seconds)}


def upload(guest: Machine, server: Namespace, address: str, seconds: float) -> dict[str, Any]:
    """One TCP stream from the guest, from its first byte on."""
    with joined(guest, server, address) as (near, far):
        return {"up_mbit_s": transfer(near, far, seconds)}


def both(
    one: Callable[[], dict[str, Any]], other: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure two things at the same time."""
    with ThreadPoolExecutor() as pool:
        running = pool.submit(one), pool.submit(other)
    return running[0].result(), running[1].result()


def fetch(guest: Machine, server: Namespace, address: str, seconds: float) -> dict[str, Any]:
    """Get 50 MB, as ``curl`` does, or what comes of them in eight times ``seconds``, by default a minute."""
    begin = time.monotonic()
    with joined(guest, server, address) as (near, far):
        return {"fetch_mbit_s": transfer(far, near, 8 * seconds, FILE), "seconds": time.monotonic() - begin}


def ping_beside(
    guest: Machine, server: Namespace, address: str, pinged: str, seconds: float
) -> dict[str, Any]:
    """How much longer pings take while a download goes on, from its third second on."""
    base = statistics.median(guest.ping(pinged, 1))
    with joined(guest, server, address) as (near, far):
        rate: list[float] = []
        loading = threading.Thread(target=lambda: rate.append(transfer(far, near, seconds + 4)))
        loading.start()
        time.sleep(2)
        times = guest.ping(pinged, seconds)
        loading.join()
    return {
        "ping_base_ms": base,
        "ping_p50_added_ms": percentile(times, 0.5) - base,
        "ping_p95_added_ms": percentile(times, 0.95) - base,
        "pings_lost": times.count(LOST_PING),
        "down_mbit_s": rate[0],
    }

"""Loads of a user behind a real path: one TCP stream of a Linux kernel over long, lossy or narrow links.

    make bench ARGS=paths                                       all of them, half an hour; needs root
    make bench ARGS='--rounds 1 --seconds 4 "paths 50 ms"'      those whose name starts so

The guest is a Linux kernel in a network namespace, which ``relaybench tap`` joins to the LAN with the MTU
that the relay announces at first; ``relaybench impair`` is the path between. In the relay's column the relay
is at the stream's other end. Beside it the same guest's stream goes over the same path and through the
yardstick, a bare switch, to another kernel (CUBIC), which is joined without a path. On loopback there is no
path. ``vmrelay attach`` joins the guest in the rows named so. In the row beside CUBIC a kernel's own download
shares the path (``bottleneck.py``). Peers, which encrypt nothing, run beside some of these, each with its own
MTU, where they are installed:

    apt-get install passt slirp4netns
    go install github.com/containers/gvisor-tap-vsock/cmd/gvproxy@latest    # and cmd/vm, its guest's half
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import peers
from machines import (
    CABLE,
    OUTSIDE,
    ROOT,
    Machine,
    Site,
    both,
    device_name,
    download,
    fetch,
    ping_beside,
    upload,
)
from processes import Program  # machines says where it lies
from table import BESIDE, YARDSTICK, Load, Reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from namespaces import Namespace

RELAYBENCH = os.environ.get("RELAYBENCH", str(ROOT / ".cache/relaybench/release/relaybench"))
GATEWAY = "10.0.2.2"
MTU = 930
RELAY = (sys.executable, "-P", "-m", "relay.main")
ATTACHED = r"attached to \S+ as (\S+), address ([\d.]+)/24"
PATH = "10.98.0.1", "10.98.0.2"
"""Addresses of a path's ends: where relays are, and where clients are."""
YARDSTICK_PORT = 27_010
IMPAIR_PORT = 27_011
DOWN, UP, FETCH, PING = "down_mbit_s", "up_mbit_s", "fetch_mbit_s", "ping_p95_added_ms"
SHARES = "shares_apart"
"""How many times as much as the other the one of two downloads gets that has more."""


def streams(name: str, path: str, down: float, up: float) -> tuple[Load, ...]:
    """Return the loads of one path, with what they are meant to reach of the kernel's figure."""
    return tuple(
        Load(f"paths {name}, {word}", path, figure, "Mbit/s", Reach(reach, BESIDE, True), YARDSTICK)
        for word, figure, reach in (("down", DOWN, down), ("up", UP, up))
    )


LOADS = (
    *streams("20 ms", "--delay-ms 10", 0.95, 0.95),
    *streams("50 ms", "--delay-ms 25", 0.95, 0.95),
    *streams("100 ms", "--delay-ms 50", 0.95, 0.95),
    *streams("50 ms, 0.1 % loss", "--delay-ms 25 --loss 0.001", 3, 1),
    *streams("50 ms, 1 % loss", "--delay-ms 25 --loss 0.01", 15, 1),
    *streams("20 ms, 2 % loss", "--delay-ms 10 --loss 0.02", 8, 1),
    Load("paths 200 ms, 50 MB", "--delay-ms 100", FETCH, "Mbit/s", Reach(40, at_least=True), YARDSTICK),
    Load(
        "paths 50 ms of 20 Mbit/s, ping beside a download",
        "--delay-ms 25 --rate-mbit 20 --buffer-ms 300",
        PING,
        "ms",
        Reach(60),
        YARDSTICK,
    ),
    *streams("50 ms of 20 Mbit/s", "--delay-ms 25 --rate-mbit 20 --buffer-ms 300", 0.95, 0.95),
    Load(
        "paths 50 ms of 20 Mbit/s, a download beside a kernel's (CUBIC)",
        "--delay-ms 25 --rate-mbit 20 --buffer-ms 100",
        SHARES,
        "x",
        Reach(2),
    ),
    Load("paths loopback, down", "", DOWN, "Mbit/s", Reach(500, at_least=True), YARDSTICK),
    Load("paths loopback, up", "", UP, "Mbit/s", Reach(500, at_least=True), YARDSTICK),
    Load("paths loopback, down beside gvproxy", "", DOWN, "Mbit/s", Reach(0.6, BESIDE, True), "gvproxy"),
    Load("paths attach, down", "attach", DOWN, "Mbit/s", Reach(350, at_least=True)),
    Load("paths attach, up", "attach", UP, "Mbit/s", Reach(300, at_least=True)),
    *(
        Load(f"paths attach, {word} beside {peer}", "attach", figure, "Mbit/s", reach, peer)
        for peer in peers.PEERS
        for word, figure, reach in (
            ("down", DOWN, Reach(0.6, BESIDE, True) if peer == "gvproxy" else None),
            ("up", UP, None),
        )
    ),
)


class End(NamedTuple):
    """A guest whose network is there, and whom it talks to."""

    guest: Machine
    server: Namespace
    address: str
    pinged: str


def skip_reason(load: Load) -> str:
    """Why a load cannot run on this machine; empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return peers.missing(load.beside) if load.beside in peers.PEERS else ""


def run(load: Load, packages: Path, *, beside: bool, seconds: float, seed: int) -> dict[str, Any]:
    """Run ``load`` once, with a relay of ``packages`` or with what runs beside it; give its figures."""
    with contextlib.ExitStack() as stack:
        site = Site()
        stack.callback(site.delete)
        if load.figure == SHARES:
            return _shares(stack, site, load.arguments, packages, seconds)
        if not beside:
            end = stack.enter_context(_behind_a_relay(site, load.arguments, packages, seed))
        elif load.beside == YARDSTICK:
            end = stack.enter_context(_behind_the_yardstick(site, load.arguments, seed))
        else:
            guest = stack.enter_context(peers.guest_of(load.beside, site))
            end = End(guest, site.outside, OUTSIDE, OUTSIDE)
        measures: dict[str, Callable[[Machine, Namespace, str, float], dict[str, Any]]] = {
            DOWN: download,
            UP: upload,
            FETCH: fetch,
            PING: partial(ping_beside, pinged=end.pinged),
        }
        # Its other core is the relay's.
        if (os.cpu_count() or 1) > 1:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, {1})
        return measures[load.figure](end.guest, end.server, end.address, seconds=seconds)


def _shares(
    stack: contextlib.ExitStack, site: Site, path: str, packages: Path, seconds: float
) -> dict[str, Any]:
    """Two downloads over one path: by a guest of a relay, and by the kernel at the path's end itself."""
    end = Machine("end")
    stack.callback(end.delete)
    link = Program(
        *(sys.executable, ROOT / "bench/bottleneck.py"),
        *(site.namespace.name, f"{PATH[0]}/32", end.namespace.name, f"{PATH[1]}/32", *path.split()),
    )
    stack.callback(link.stop)
    link.wait_for("ready")
    certificate, port = _start_relay(stack, site, packages, PATH[0])
    guest = Machine("guest")
    stack.callback(guest.delete)
    client = Program(
        *end.namespace.prefix, *RELAY,
        *("attach", "--tap", "tap0", "--configure", "--netns", guest.namespace.name),
        *("--cert-hash", certificate, f"https://{PATH[0]}:{port}/"),
        environment={"PYTHONPATH": str(packages.resolve())},
    )  # fmt: skip
    stack.callback(client.stop)
    client.wait_for(ATTACHED)
    ours, kernels = both(
        partial(download, guest, site.outside, OUTSIDE, seconds=seconds),
        partial(download, end, site.namespace, PATH[0], seconds=seconds),
    )
    shares = ours[DOWN] / kernels[DOWN]
    return {
        SHARES: max(shares, 1 / shares),
        "times_as_much": shares,
        DOWN: ours[DOWN],
        "kernel_mbit_s": kernels[DOWN],
    }


def _start_relay(stack: contextlib.ExitStack, site: Site, packages: Path, bind: str) -> tuple[str, int]:
    """Start a relay in ``site``; give its certificate's hash and its port."""
    options = ("--bind", bind, "--port", "0", "--allow-cidr", CABLE)
    relay = site.start(*RELAY, *options, core=0, packages=packages.resolve())
    stack.callback(relay.stop)
    certificate = relay.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})$")[1]
    return certificate, int(relay.wait_for(r"Listening on https://.*:(\d+)")[1])


@contextlib.contextmanager
def _behind_a_relay(site: Site, path: str, packages: Path, seed: int) -> Iterator[End]:
    with contextlib.ExitStack() as stack:
        certificate, port = _start_relay(stack, site, packages, "127.0.0.1")
        guest = Machine("guest")
        stack.callback(guest.delete)
        if path == "attach":
            client = site.start(
                *RELAY, "attach", "--tap", "tap0", "--configure", "--netns", guest.namespace.name,
                *("--cert-hash", certificate, f"https://127.0.0.1:{port}/"),
                packages=packages.resolve(),
            )  # fmt: skip
            stack.callback(client.stop)
            client.wait_for(ATTACHED)
        else:
            stack.enter_context(joined_by_tap(site, guest, port, path=path, seed=seed, gateway=GATEWAY))
        yield End(guest, site.outside, OUTSIDE, GATEWAY)


@contextlib.contextmanager
def _behind_the_yardstick(site: Site, path: str, seed: int) -> Iterator[End]:
    with contextlib.ExitStack() as stack:
        switch = site.start(RELAYBENCH, "yardstick", "--port", YARDSTICK_PORT, core=0)
        stack.callback(switch.stop)
        switch.wait_for("listening")
        server, guest = Machine("server"), Machine("guest")
        stack.callback(server.delete)
        stack.callback(guest.delete)
        address = stack.enter_context(joined_by_tap(site, server, YARDSTICK_PORT))
        stack.enter_context(joined_by_tap(site, guest, YARDSTICK_PORT, path=path, seed=seed))
        yield End(guest, server.namespace, address, address)


@contextlib.contextmanager
def joined_by_tap(
    site: Site, machine: Machine, port: int, *, path: str = "", seed: int = 0, gateway: str = ""
) -> Iterator[str]:
    """Join a machine to the LAN on ``port``, over ``path``, if there is one; give its address."""
    with contextlib.ExitStack() as stack:
        if path:
            ends = ("--listen", f"127.0.0.1:{IMPAIR_PORT}", "--to", f"127.0.0.1:{port}", "--seed", seed)
            proxy = site.start(RELAYBENCH, "impair", *ends, *path.split())
            stack.callback(proxy.stop)
            proxy.wait_for("impair")
            port = IMPAIR_PORT
        device = device_name()
        client = site.start(RELAYBENCH, "--url", f"https://127.0.0.1:{port}/", "tap", "--name", device)
        stack.callback(client.stop)
        mac, address = client.wait_for(r'"mac":"(\S+)","ip":"(\S+)"').groups()
        site.namespace.run("ip", "link", "set", device, "netns", machine.namespace.name)
        machine.take(device, mac, address, gateway, MTU)
        yield address

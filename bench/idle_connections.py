"""What idle TCP connections through the NAT cost: memory of the relay for each, and its processor time.

    RELAYBENCH=... .venv/bin/python bench/idle_connections.py --count 3000 [--packages FOLDER]      needs root

A kernel behind ``relaybench tap`` opens them to a server on the relay's other side. How many there can be is
decided by the limit of open files (``ulimit -n``): this program has two for each, the relay gives one guest
half of the flows that it has files for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import time
from pathlib import Path

import paths
from machines import CABLE, OUTSIDE, ROOT, Machine, Site

FIRST = 100
"""Connections before the first look, so that what is made once is not counted."""
AT_ONCE = 50
PATIENCE = 20.0
QUIET = 5.0
"""Seconds for what is under way to settle, and of the look at the processor time."""
LIMITS = (
    "--max-flows",
    "65535",
    "--max-flows-total",
    "65535",
    "--flow-rate",
    "10000",
    "--max-half-open",
    "1000",
)


def memory(pid: int) -> int:
    """Return the resident kilobytes of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def connections(guest: Machine, listening: socket.socket, count: int) -> list[socket.socket]:
    """Open connections from ``guest``; give both ends of each."""
    ends = []
    for _ in range(0, count, AT_ONCE):
        with guest.namespace.entered():
            near = [socket.socket() for _ in range(AT_ONCE)]
        for opened in near:
            opened.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                opened.connect(listening.getsockname())
        # Accepted here, they are open at the relay and, that far, at the guest.
        ends += [*near, *(listening.accept()[0] for _ in near)]
    return ends


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--packages", type=Path, default=ROOT, help="folder with the relay's packages")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        site = Site()
        stack.callback(site.delete)
        relay = site.start(
            *(*paths.RELAY, "--bind", "127.0.0.1", "--port", "0", "--allow-cidr", CABLE, *LIMITS),
            packages=options.packages.resolve(),
        )
        stack.callback(relay.stop)
        port = int(relay.wait_for(r"Listening on https://.*:(\d+)")[1])
        pid = relay.pid
        guest = Machine("guest")
        stack.callback(guest.delete)
        stack.enter_context(paths.joined_by_tap(site, guest, port, gateway=paths.GATEWAY))
        listening = stack.enter_context(site.outside.socket(socket.SOCK_STREAM))
        listening.bind((OUTSIDE, 0))
        listening.listen(AT_ONCE)
        listening.settimeout(PATIENCE)
        ends = connections(guest, listening, FIRST)
        time.sleep(QUIET)
        before = memory(pid)
        ends += connections(guest, listening, options.count)
        time.sleep(QUIET)
        each = (memory(pid) - before) / options.count
        used = cpu_seconds(pid)
        time.sleep(QUIET)
        share = (cpu_seconds(pid) - used) / QUIET
        print(f"{options.count} idle connections: {each:.1f} kB each, {share:.1%} of a processor")
        for end in ends:
            end.close()


if __name__ == "__main__":
    main()

"""Run the loads of docs/performance.md against a relay of this tree and print a table.

    make bench                      all loads of this file
    make bench ARGS=paths           those of a kernel behind a long, lossy or narrow path: see paths.py
    make bench ARGS="l2 ping"       those whose name starts with one of the words
    make bench ARGS="--rounds 5"    more rounds; the median of each figure is shown

The relay is pinned to one core and relaybench to another, where the machine has two. ``relaybench
yardstick``, the smallest switch in Rust on the same QUIC library, runs the loads that it can in turn with the
relay (A B A B), so that the ratio of both tells more than either figure on a noisy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from table import BESIDE, HEADER, YARDSTICK, Load, Reach, Rounds, row, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
RELAYBENCH = os.environ.get("RELAYBENCH", str(ROOT / ".cache/relaybench/release/relaybench"))

SERVERS_PORT = 27_000
YARDSTICK_PORT = 27_010


def switched(name: str, arguments: str, figure: str, unit: str, reach: float | None = None) -> Load:
    """Return a load that the yardstick can run too; ``reach`` is a ratio to it."""
    return Load(name, arguments, figure, unit, reach and Reach(reach, BESIDE), YARDSTICK)


CPU_PER_FRAME = "relay_cpu_us_per_frame"
CPU_PER_ROUND_TRIP = "relay_cpu_us_per_round_trip"
ECHO = f"127.0.0.1:{SERVERS_PORT}"
SOURCE = f"127.0.0.1:{SERVERS_PORT + 1}"
SINK = f"127.0.0.1:{SERVERS_PORT + 2}"
TCP_ECHO = f"127.0.0.1:{SERVERS_PORT + 3}"

LOADS = (
    switched("l2 1 pair", "l2 --pairs 1 --window 64 --size 900 --secs 4", CPU_PER_FRAME, "µs", 1.15),
    switched("l2 8 pairs", "l2 --pairs 8 --window 16 --size 900 --secs 4", CPU_PER_FRAME, "µs", 1.4),
    switched("l2 32 pairs", "l2 --pairs 32 --window 4 --size 900 --secs 4", CPU_PER_FRAME, "µs", 2.0),
    switched("l2 latency", "l2 --pairs 1 --window 1 --size 200 --secs 4", "p50_us", "µs", 1.4),
    switched("l2 lone frames", "l2 --pairs 1 --window 1 --size 300 --secs 4", CPU_PER_FRAME, "µs"),
    # A broadcast's copies leave one by one to different clients, as lone frames do.
    Load(
        "broadcast to 20",
        "broadcast --peers 21 --rate 200 --size 300 --secs 4",
        "relay_cpu_us_per_copy",
        "µs",
        Reach(1.0, "relay: l2 lone frames"),
        beside=YARDSTICK,
    ),
    switched("setup", "setup --count 400 --concurrency 8", "relay_cpu_ms_per_session", "ms", 2.5),
    # Raw sessions, which need no address: a LAN has 245.
    Load(
        "idle sessions",
        "--raw setup --count 1000 --concurrency 8 --hold",
        "rss_kb_per_session",
        "kB",
        Reach(60),
        beside=YARDSTICK,
    ),
    Load("ping gateway", "ping --dst 10.0.2.2 --count 200 --interval-ms 5", "p50_ms", "ms"),
    Load("ping outside", "ping --dst 127.0.0.1 --count 500 --interval-ms 1", "p50_ms", "ms", Reach(0.5)),
    Load("ping outside, now and then", "ping --dst 127.0.0.1 --count 200 --interval-ms 5", "p50_ms", "ms"),
    Load(
        "udp 1 flow",
        f"udp --dst {ECHO} --flows 1 --window 16 --secs 4",
        CPU_PER_ROUND_TRIP,
        "µs",
        Reach(3.2, "beside: l2 1 pair"),
    ),
    Load("udp 50 flows", f"udp --dst {ECHO} --flows 50 --window 16 --secs 4", CPU_PER_ROUND_TRIP, "µs"),
    Load(
        "tcp download",
        f"tcp --dst {SOURCE} --direction download --mtu 1100 --bytes 100000000",
        "mbit_s",
        "Mbit/s",
        Reach(250, at_least=True),
    ),
    Load(
        "tcp upload",
        f"tcp --dst {SINK} --direction upload --mtu 1100 --bytes 100000000",
        "mbit_s",
        "Mbit/s",
        Reach(200, at_least=True),
    ),
    Load(
        "tcp first byte",
        f"tcp-connect --dst {SOURCE} --count 100 --first-byte",
        "p50_ms",
        "ms",
        Reach(1.5),
    ),
    Load("tcp connect", f"tcp-connect --dst {TCP_ECHO} --count 100", "p50_ms", "ms"),
)


HELD = (
    Load("held 1,000 sessions, idle", "", "idle_cpu_percent", "%", Reach(2)),
    Load("held 1,000 sessions, all leave", "", "stall_ms", "ms", Reach(100)),
)
"""Figures of bench/departure.py, which brings clients of its own."""


def pinned(core: int) -> list[str]:
    """Words before a command that keep it on one core; none where there is one core only."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


@contextlib.contextmanager
def server(command: list[str], ready: str, folder: Path) -> Iterator[tuple[int, re.Match[str]]]:
    """Run a server in ``folder`` until the block ends; gives its pid and what of its output matched.

    It keeps state, as by default, in a place of its own: neither another relay's nor its user's.
    """
    with (
        tempfile.TemporaryDirectory() as own,
        subprocess.Popen(
            [*pinned(0), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=os.environ | {"STATE_DIRECTORY": own, "RUNTIME_DIRECTORY": own},
        ) as process,
    ):
        assert process.stdout is not None
        found = next((match for line in process.stdout if (match := re.search(ready, line))), None)
        if found is None:
            sys.exit(f"{' '.join(command)} ended before it was ready")
        try:
            yield process.pid, found
        finally:
            process.terminate()


def measure(load: Load, port: int, pid: int) -> dict[str, Any]:
    """Run ``load`` once and give relaybench's figures."""
    target = [RELAYBENCH, "--url", f"https://127.0.0.1:{port}/", "--pid", str(pid)]
    done = subprocess.run(
        [*pinned(1), *target, *load.arguments.split()], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run(load: Load, packages: Path, *, on_yardstick: bool) -> dict[str, Any]:
    """Run ``load`` on a fresh server, a relay of ``packages`` or the yardstick; give relaybench's figures."""
    if on_yardstick:
        command, ready = [RELAYBENCH, "yardstick", "--port", str(YARDSTICK_PORT)], r":(\d+)/"
    else:
        relay = [sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", "--port", "0"]
        command, ready = [*relay, "--allow-cidr", "127.0.0.0/8"], r"Listening on https://.*:(\d+)"
    with server(command, ready, packages) as (pid, port):
        return measure(load, int(port[1]), pid)


def run_departure(packages: Path) -> dict[str, Any]:
    """Hold 1,000 sessions, then let them go at once; give the figures."""
    command = [sys.executable, str(ROOT / "bench/departure.py"), "--packages", str(packages.resolve())]
    figures: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    return figures


def run_rounds(
    load: Load, medians: dict[str, float], count: int, run_once: Callable[[int, bool], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the relay and what is beside it in turn, print the line, and give all figures.

    ``run_once`` takes the round's number, from 1, and whether it is the turn of what runs beside the relay.
    """
    rounds, everything = Rounds([], []), []
    for number in range(1, count + 1):
        figures = run_once(number, False)
        rounds.relay.append(figures[load.figure])
        beside = run_once(number, True) if load.beside else None
        if beside is not None:
            rounds.beside.append(beside[load.figure])
        everything.append({"name": load.name, "relay": figures, "beside": beside})
    print(row(load, rounds, medians), flush=True)
    return everything


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of the loads' names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="length of a stream of paths")
    parser.add_argument(
        "--packages",
        type=Path,
        default=ROOT,
        help="folder with the relay's packages; default: this tree's own",
    )
    parser.add_argument("--json", type=Path, help="write all figures here as well")
    options = parser.parse_args()
    chosen, held = (
        [load for load in loads if not options.names or load.name.startswith(tuple(options.names))]
        for loads in (LOADS, HELD)
    )

    everything: list[dict[str, Any]] = []
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    print(f"Linux {platform.release()}; median of {options.rounds}\n")
    print(HEADER)
    echo = [RELAYBENCH, "servers", "--bind", ECHO]
    medians: dict[str, float] = {}
    with server(echo, "udp_echo", ROOT):
        for load in chosen:
            everything += run_rounds(
                load,
                medians,
                options.rounds,
                lambda _, beside, load=load: run(load, options.packages, on_yardstick=beside),
            )
    for load in paths.LOADS:
        # They take long: only those that were asked for.
        if options.names and load.name.startswith(tuple(options.names)):
            if reason := paths.skip_reason(load):
                print(skipped(load, reason), flush=True)
                continue
            everything += run_rounds(
                load,
                medians,
                options.rounds,
                lambda number, beside, load=load: paths.run(
                    load, options.packages, beside=beside, seconds=options.seconds, seed=number
                ),
            )
    if held:
        departures = [run_departure(options.packages) for _ in range(options.rounds)]
        everything += [{"name": "held 1,000 sessions", "relay": figures} for figures in departures]
        for load in held:
            print(
                row(load, Rounds([figures[load.figure] for figures in departures], []), medians), flush=True
            )
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()

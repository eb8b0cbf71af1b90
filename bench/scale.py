"""What workers bring and cost: the figures of docs/scale.md, by the processor time of the relay's processes.

    RELAYBENCH=... .venv/bin/python bench/scale.py [--packages $(scripts/accelerate.sh)] [frames] [rooms]

Load and relay share the cores, so what one worker could do with a core of its own is reckoned: what was done,
divided by the processor time of the busiest worker. One and two workers take turns (A B A B).

    frames   frames and openings of one and of two workers, and a frame that crosses against one that stays
    rooms    2,000 sessions in 200 rooms held at two workers, with others that come and go; what a session
             and a room cost is the slope between 400 sessions and these, and 10,000 are extrapolated
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loads import RELAYBENCH, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMES = "l2 --pairs 32 --window 16 --size 900 --secs 4"
ONE_PAIR = "l2 --pairs 1 --window 16 --size 900 --secs 2"
OPENINGS = "setup --count 200 --concurrency 8"
"""In one room, which has 245 addresses."""
CHURN = "setup --count 200 --concurrency 2"
WARMING = "setup --count 100 --concurrency 8"
"""For what is made once."""
MOST_TRIES = 24
"""Pairs, of each of which chance decides whether it is at two workers."""
ROOMS = 200
AT_ONCE, PAUSE = 10, 0.3
"""Rooms that are filled at a time, and seconds between: a relay makes so many in a second."""
FEW, MANY = 1, 4
"""Pairs of guests that are added to each room in the first step and in the second."""
LIMITS = ("--client-share", "0", "--max-rooms", "1024", "--rooms-per-client", "1024")
SETTLING, LOOKING = 5.0, 10.0
"""Seconds before and of a look at the processor time."""
TICKS = os.sysconf("SC_CLK_TCK")


class Relay:
    """A relay and what its workers have used."""

    def __init__(self, workers: int, packages: Path) -> None:
        command = [sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--state", "none", "--workers", str(workers), "--log-format", "json", *LIMITS],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=packages,
        )
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        self._counters: list[dict[str, int]] = []
        self._counted = threading.Event()
        self.joined = 0
        """Sessions that have registered."""
        self.workers = [self._process.pid] if workers == 1 else []
        said = []
        for line in self._lines:
            said.append(line)
            if found := re.search(r"worker \d+ is ready \(pid (\d+)\)", line):
                self.workers.append(int(found[1]))
            if found := re.search(r"Listening on (https://\S+:\d+)$", line.strip()):
                self.url = found[1]
                break
        if len(self.workers) != workers:
            sys.exit(f"the relay ended before it was ready: {''.join(said)}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._lines:
            if '"counters:"' in line:
                self._counters.append(json.loads(line)["fields"])
                self._counted.set()
            elif '"event": "joined"' in line:
                self.joined += 1

    def counters(self) -> dict[str, int]:
        """Ask for the counters of all workers together."""
        self._counted.clear()
        self._process.send_signal(signal.SIGUSR1)
        if not self._counted.wait(20):
            sys.exit("the relay does not tell its counters")
        return self._counters[-1]

    def cpu(self) -> list[float]:
        """Tell the seconds of processor time that each worker has used."""
        return [
            sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / TICKS
            for pid in self.workers
        ]

    def memory(self) -> int:
        """Tell the resident bytes of all workers."""
        status = [Path(f"/proc/{pid}/status").read_text() for pid in self.workers]
        return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) * 1024 for text in status)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        self._lines.close()


@contextlib.contextmanager
def relay_of(workers: int, packages: Path) -> Iterator[Relay]:
    relay = Relay(workers, packages)
    try:
        yield relay
    finally:
        relay.stop()


class Work(NamedTuple):
    """What a load did, and the processor seconds of each worker for it."""

    done: int
    cpu: list[float]

    @property
    def cost(self) -> float:
        """Microseconds of all workers for each."""
        return sum(self.cpu) * 1e6 / self.done

    @property
    def rate(self) -> float:
        """How many each second the busiest worker would allow on a core of its own."""
        return self.done / max(self.cpu)


def load(relay: Relay, words: str, room: str, done: str) -> Work:
    """Run a load in a room of its own; ``done`` names the figure that tells how much it was."""
    before = relay.cpu()
    command = [RELAYBENCH, "--url", f"{relay.url}/room/{room}", *words.split()]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures: dict[str, Any] = json.loads(told)
    return Work(figures[done], [now - then for now, then in zip(relay.cpu(), before, strict=True)])


def of_one_and_two(packages: Path, rounds: int) -> None:
    """Print what one and two workers move and open."""
    rates: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for workers in (1, 2):
            with relay_of(workers, packages) as relay:
                load(relay, WARMING, "first", "ok")
                for words, done in ((FRAMES, "delivered"), (OPENINGS, "ok")):
                    work = load(relay, words, f"r{number}", done)
                    rates.setdefault((words, workers), []).append(work.rate)
                    split = "/".join(f"{each:.2f}" for each in work.cpu)
                    print(f"  {workers}: {work.done} {words}: {work.cost:.1f} µs, {split} s", flush=True)
    for words in (FRAMES, OPENINGS):
        one, two = (rates[words, workers] for workers in (1, 2))
        ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
        figures = ", ".join(f"{statistics.median(each):,.0f}/s" for each in (one, two))
        print(f"`{words}`: one and two workers {figures}, ratio {ratio:.2f}", flush=True)


def of_crossing(packages: Path, rounds: int) -> None:
    """Print what a frame costs that crosses workers, and one that stays."""
    costs: dict[bool, list[float]] = {False: [], True: []}
    with relay_of(2, packages) as relay:
        for number in range(MOST_TRIES):
            before = relay.counters().get("trunk.frames_sent", 0)
            work = load(relay, ONE_PAIR, f"x{number}", "delivered")
            crossed = relay.counters().get("trunk.frames_sent", 0) - before > work.done / 2
            costs[crossed].append(work.cost)
            if min(map(len, costs.values())) >= rounds:
                break
    stays, crosses = (statistics.median(costs[crossed]) for crossed in (False, True))
    print(f"`{ONE_PAIR}`: {stays:.1f} µs within a worker, {crosses:.1f} across: {crosses / stays:.2f} times")


class Held:
    """Pairs of guests in many rooms, each of which sends a frame a second."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._running: list[subprocess.Popen[str]] = []

    def add(self, pairs: int, seconds: int) -> None:
        """Add pairs to each room, and wait until all are there."""
        words = ["l2", "--pairs", str(pairs), "--rate", "1", "--size", "200", "--secs", str(seconds)]
        for first in range(0, ROOMS, AT_ONCE):
            wanted = self._relay.joined + AT_ONCE * pairs * 2
            for room in range(first, first + AT_ONCE):
                command = [RELAYBENCH, "--url", f"{self._relay.url}/room/r{room}", *words]
                self._running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            while self._relay.joined < wanted:
                time.sleep(0.1)
            time.sleep(PAUSE)

    @property
    def are_there(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self._running)

    def kill(self) -> None:
        """End those that are left."""
        for process in self._running:
            process.kill()
            process.wait()


def look(relay: Relay) -> tuple[int, float]:
    """Tell memory, and the part of a core that all workers use."""
    time.sleep(SETTLING)
    before, at = sum(relay.cpu()), time.monotonic()
    time.sleep(LOOKING)
    return relay.memory(), (sum(relay.cpu()) - before) / (time.monotonic() - at)


def of_rooms(packages: Path, seconds: int) -> None:
    """Print what sessions and rooms cost, held, and what 10,000 would."""
    with relay_of(2, packages) as relay, contextlib.ExitStack() as stack:
        load(relay, WARMING, "first", "ok")
        held = Held(relay)
        stack.callback(held.kill)
        empty, _ = look(relay)
        held.add(FEW, seconds)
        some, some_cpu = look(relay)
        held.add(MANY, seconds)
        full, full_cpu = look(relay)
        churn = load(relay, CHURN, "churn", "ok")
        if not held.are_there:
            sys.exit("some have ended before all was measured: hold them for longer, with --seconds")
    few, more = 2 * FEW * ROOMS, 2 * MANY * ROOMS
    session, session_cpu = (full - some) / more, (full_cpu - some_cpu) / more
    room, room_cpu = (some - empty - few * session) / ROOMS, (some_cpu - few * session_cpu) / ROOMS
    print(f"{few + more} sessions in {ROOMS} rooms held: {full / 1e6:.0f} MB, {full_cpu:.1%} of a core;")
    print(f"{churn.done} others came and went meanwhile;")
    print(f"a session: {session / 1e3:.1f} kB, {session_cpu:.4%} of a core;", end=" ")
    print(f"a room: {room / 1e3:.1f} kB, {room_cpu:.4%};")
    memory = empty + 10_000 * session + 1000 * room
    print(f"10,000 in 1,000: {memory / 1e6:.0f} MB, {10_000 * session_cpu + 1000 * room_cpu:.1%} of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=("frames", "rooms", []), help="which; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=300, help="how long sessions are held at most")
    parser.add_argument("--packages", type=Path, default=ROOT, help="folder with the relay's packages")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    print(f"Linux {platform.release()}, load {os.getloadavg()[0]:.1f}", flush=True)
    if not options.names or "frames" in options.names:
        of_one_and_two(options.packages, options.rounds)
        of_crossing(options.packages, options.rounds)
    if not options.names or "rooms" in options.names:
        of_rooms(options.packages, options.seconds)


if __name__ == "__main__":
    main()

"""Load a relay with all that guests do for a long time, and see whether anything grows.

    make soak                                   an hour
    make soak ARGS="--minutes 20 --trace"       20 minutes; tell which lines of code hold more than before
    make soak ARGS="--workers 2 --faults"       an hour of workers that are killed, frozen and replaced

Prints a table and writes it to a report (``--report``). What counts is the slope of the resident memory,
fitted (least squares) over the last two thirds: the first one is for caches, tables and the allocator to
fill. With ``--faults`` (see ``faults.py``) it is that of the supervisor and worker 0, over the second half.
Ends with status 1 if it is above ``--bound``, or if a kind of load did not get through, or a guest did not
get over a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from faults import BETWEEN, RESIDENTS, Faults, residents
from load import Kind, Place, kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence

ROOT = Path(__file__).parent.parent.parent
RELAYBENCH = os.environ.get("RELAYBENCH", str(ROOT / ".cache/relaybench/release/relaybench"))
SAMPLES = 180
"""In a run, but no more than one per five seconds."""
TOLD = 12
"""Rows of each table of what grew."""
MEGABYTE = 1 << 20
HOUR = 3600.0


class Sample(NamedTuple):
    """What is seen of the relay at a moment."""

    at: float
    """Seconds since the load began."""
    rss: int
    """Resident bytes."""
    descriptors: int
    threads: int
    cpu: float
    """Seconds used."""


def look_at(pids: Collection[int], since: float) -> Sample:
    """Take a sample of some processes together."""
    each = [look_at_one(pid, since) for pid in pids]
    return Sample(each[0].at, *map(sum, zip(*(sample[1:] for sample in each), strict=True)))


def look_at_one(pid: int, since: float) -> Sample:
    """Take a sample of a process."""
    folder = Path(f"/proc/{pid}")
    status = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", (folder / "status").read_text(), re.MULTILINE))
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Sample(
        time.monotonic() - since,
        int(status["VmRSS"]) * 1024,
        sum(1 for _ in (folder / "fd").iterdir()),
        int(status["Threads"]),
        (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )


def settled(samples: Sequence[Sample], after: float = 1 / 3) -> list[Sample]:
    """Return those after a part of the time."""
    return [sample for sample in samples if sample.at >= samples[-1].at * after]


def growth(samples: Sequence[Sample], figure: str) -> float:
    """Return the slope of a figure per hour."""
    ats = [sample.at for sample in samples]
    return statistics.linear_regression(ats, [getattr(sample, figure) for sample in samples]).slope * HOUR


class NameServer(asyncio.DatagramProtocol):
    """Gives every name the same public address; the relay's upstream."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Begin."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question."""
        end = data.index(b"\0", 12) + 5
        answer = b"\xc0\x0c\0\1\0\1" + (60).to_bytes(4, "big") + b"\0\4" + socket.inet_aton("93.184.216.34")
        self.transport.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] + answer, addr)


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[int]:
    """Answer questions until the block ends; gives the port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@contextlib.contextmanager
def program(command: Sequence[str | Path], out: Path, folder: Path = ROOT) -> Iterator[int]:
    """Run a program until the block ends; gives its pid."""
    with out.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


async def said(log: Path, pattern: str, count: int = 1) -> re.Match[str]:
    """Wait for the ``count``th match in a log, and give it."""
    for _ in range(200):
        text = await asyncio.to_thread(log.read_text)
        if len(matches := list(re.finditer(pattern, text, re.MULTILINE))) >= count:
            return matches[count - 1]
        await asyncio.sleep(0.1)
    sys.exit(f"{log} does not say {pattern}:\n{text[-2000:]}")


class Relay:
    """The relay under load."""

    def __init__(self, pid: int, log: Path, census: Path) -> None:
        self.pid = pid
        self._log = log
        self._census = census
        self._asked = self._taken = 0

    async def counters(self) -> dict[str, int]:
        """Return its totals."""
        self._asked += 1
        os.kill(self.pid, signal.SIGUSR1)
        line = await said(self._log, r'^.*"message": "counters:".*$', self._asked)
        totals: dict[str, int] = json.loads(line[0])["fields"]
        return totals

    async def census(self) -> dict[str, dict[str, int]]:
        """Return what it consists of."""
        self._taken += 1
        os.kill(self.pid, signal.SIGRTMIN)
        found: dict[str, dict[str, int]] = json.loads((await said(self._census, r"^\{.*\}$", self._taken))[0])
        return found


class Run(NamedTuple):
    """All that was seen."""

    samples: list[Sample]
    after: Sample
    """Half a minute after the load had ended."""
    kinds: list[Kind]
    faults: Faults | None
    counters: dict[str, int]
    censuses: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]


async def watch(options: argparse.Namespace, folder: Path) -> Run:
    """Start everything, load the relay for the time, stop."""
    log, census = folder / "relay.log", folder / "census"
    census.touch()
    packages = options.packages.resolve()
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(name_server())
        servers = [RELAYBENCH, "servers", "--bind", f"127.0.0.1:{options.servers_port}"]
        stack.enter_context(program(servers, folder / "servers.log"))
        await said(folder / "servers.log", "udp_echo")
        command = ["env", f"PYTHONPATH={packages}", sys.executable, ROOT / "bench/soak/census.py", census]
        command += ["--trace"] * options.trace
        admin = folder / "admin.sock"
        command += ["--workers", str(options.workers), "--state", "none", "--admin", admin]
        command += ["--bind", "127.0.0.1", "--port", "0", "--allow-cidr", "127.0.0.0/8"]
        command += ["--upstream-dns", f"127.0.0.1:{upstream}", "--log-format", "json"]
        relay = Relay(stack.enter_context(program(command, log, packages)), log, census)
        port = int((await said(log, r"Listening on https://.*:(\d+)"))[1])

        faults = None
        if options.faults:
            faults = Faults(admin, options.workers, relay.pid, options.between)
            shown = (await said(log, r"Certificate SHA-256 Hash: ([0-9a-f]{64})"))[1]
            doors = (residents(f"https://127.0.0.1:{port}/", shown, n * RESIDENTS) for n in range(2))
            stay = [await stack.enter_async_context(door) for door in doors]

        async def pids() -> list[int]:
            """Those that live for all of the time, but for restarts."""
            return [relay.pid] if faults is None else [relay.pid, await faults.aging()]

        load = kinds()
        began = time.monotonic()
        seconds = 60 * options.minutes
        samples = [look_at(await pids(), began)]
        place = Place(port, options.servers_port, RELAYBENCH)
        tasks = [asyncio.create_task(kind.repeat(place)) for kind in load]
        if faults is not None:
            tasks.append(asyncio.create_task(faults.repeat(stay, restarts_for=seconds / 3)))
        first = None
        while samples[-1].at < seconds:
            await asyncio.sleep(min(max(5.0, seconds / SAMPLES), seconds / 6))
            if first is None and time.monotonic() - began >= seconds / 3:
                first = await relay.census()
            samples.append(look_at(await pids(), began))
        while pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            # In place of that a round may end by an error of its session, which ends too.
            await asyncio.wait(pending, timeout=1.0)
        for task in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(task, asyncio.CancelledError):
                raise task
        assert first is not None
        censuses = (first, await relay.census())
        await asyncio.sleep(min(30.0, seconds / 6))
        return Run(samples, look_at(await pids(), began), load, faults, await relay.counters(), censuses)


def table(heads: str, rows: Sequence[Sequence[object]]) -> list[str]:
    """Write a table."""
    columns = heads.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines] + [""]


def grown(before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int, int]]:
    """Return what there is more of, the most first: name, before, after."""
    more = [(name, before.get(name, 0), count) for name, count in after.items()]
    more = [entry for entry in more if entry[2] > entry[1]]
    return sorted(more, key=lambda entry: entry[1] - entry[2])[:TOLD]


def report(run: Run, options: argparse.Namespace) -> tuple[str, bool]:
    """Write the report; tell too whether all is well."""
    part, part_name = (1 / 3, "the last two thirds") if run.faults is None else (1 / 2, "the second half")
    slope = growth(settled(run.samples, part), "rss") / MEGABYTE
    # A fault may cost what is under way.
    excused = 0 if run.faults is None else sum(run.faults.done.values())
    stuck = [kind.name for kind in run.kinds if not kind.done or kind.failed > excused + kind.done / 10]
    traces = run.counters.get("actors.failed", 0)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    traced = ", with tracemalloc" if options.trace else ""
    workers = f" --workers {options.workers}" if options.workers > 1 else ""
    lines = [
        "# Soak",
        "",
        f"{machine}, Python {platform.python_version()}; {options.minutes:g} minutes{traced}:",
        f'`make soak ARGS="--minutes {options.minutes:g}{workers}{" --faults" * options.faults}"`',
        "",
        f"**Resident memory over {part_name}: {slope:+.2f} MB/h** (bound {options.bound:g}).",
        "",
    ]
    if run.faults is not None:
        lines += run.faults.report()
    every = max(1, len(run.samples) // 20)
    lines += table(
        "minute|resident MB|descriptors|threads|CPU s",
        [
            (f"{s.at / 60:.1f}", f"{s.rss / MEGABYTE:.2f}", s.descriptors, s.threads, f"{s.cpu:.0f}")
            for s in [*run.samples[::every], run.after]
        ],
    )
    lines += ["The last row is from after the load; who vanished without a word is still held.", ""]
    lines += table(
        "load|rounds|failed|last problem",
        [(kind.name, kind.done, kind.failed, kind.problem.replace("|", "/")[:100]) for kind in run.kinds],
    )
    before, after = run.censuses
    lines += ["Objects, by type, of which there were more at the end than after a third of the time:", ""]
    lines += table("type|then|at the end", grown(before["types"], after["types"]))
    if options.trace:
        lines += ["Bytes, by the line that allocated them, likewise:", ""]
        lines += table("line|then|at the end", grown(before["lines"], after["lines"]))
    told = {name: count for name, count in run.counters.items() if count >= options.minutes}
    lines += ["Totals of the relay (SIGUSR1), but small ones:", ""]
    lines += ["".join(f"`{name}` {count}, " for name, count in sorted(told.items())).rstrip(", ") + ".", ""]
    if stuck:
        lines += [f"Did not get through: {', '.join(stuck)}.", ""]
    healed = run.faults is None or not run.faults.problems
    return "\n".join(lines), healed and not stuck and not traces and slope <= options.bound


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--bound", type=float, default=1, help="MB per hour; default: 1")
    parser.add_argument("--report", type=Path, default=ROOT / ".cache/soak.md", help="file to write it to")
    parser.add_argument(
        "--servers-port", type=int, default=27_020, help="first of four, UDP and TCP, that are free"
    )
    parser.add_argument("--trace", action="store_true", help="tell which lines of code hold more memory")
    parser.add_argument("--workers", type=int, default=1, help="as of vmrelay")
    parser.add_argument("--faults", action="store_true", help="kill, freeze and replace workers; wants two")
    parser.add_argument("--between", type=float, default=BETWEEN, help="seconds from one fault to the next")
    parser.add_argument(
        "--packages",
        type=Path,
        default=ROOT,
        help="folder with the relay's packages; default: this tree's own",
    )
    options = parser.parse_args()
    if options.faults and options.workers < 2:
        parser.error("--faults wants --workers 2 or more")
    with tempfile.TemporaryDirectory(prefix="vmrelay-soak-") as folder:
        text, good = report(asyncio.run(watch(options, Path(folder))), options)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text)
    print(text)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""Have three machines of a cluster killed, frozen and parted again and again, and see that they heal.

    make cluster-test                               20 cycles
    make cluster-test ARGS="--cycles 100 --seed 7"

Each machine is a network namespace with a relay and its guests; cables join them with a fourth one, which
has the bridge and Debian's nats-server. A cycle is one fault, which lasts for longer than the others take
to notice it, and its end. Guests of machines that live ping each other all through it, and those that are
joined reach each other; when it has ended all reach all, with the addresses that they had, no relay holds
another table than the others announce, and memory does not grow. Prints a line for each cycle; the status is
1 when one failed. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from namespaces import Namespace  # noqa: E402 - where the suite's helpers lie is said above
from neighbour import Waits  # noqa: E402
from processes import Program, Relay  # noqa: E402
from test_clusters import NatsServer  # noqa: E402
from waiting import wait_until  # noqa: E402

MACHINES, GUESTS = 3, 3
NATS = ("10.98.0.1", 4222)
LASTS = 4.0
"""Seconds of a fault; workers that are silent for 3 s are forgotten."""
SILENT_AT_MOST = 2.0
"""Seconds that a ping within a machine that lives may take, without the time in which its relay and its
guests wait for a processor: others may have these."""
HEALED_WITHIN = 15.0
"""Seconds after a fault until all reach all."""
QUIET = 1.2
"""Seconds, in which each worker says Hello with its table's digest twice."""
SETTLED = 3
"""Cycles after which the tables and the allocator are filled."""
GROWTH = 256 * 1024
"""Bytes of resident memory that a cycle may leave behind, in the mean of those after the first ones."""


class Guests(Program):
    """Those of one machine; see shared_guests.py."""

    def __init__(self, machine, first):
        self._numbers = itertools.count(1)
        words = (sys.executable, HERE / "shared_guests.py", machine.relay.url, machine.relay.hash)
        super().__init__(
            *machine.namespace.prefix, *words, GUESTS, first,
            environment={"PYTHONPATH": str(HERE.parent.parent)}, stdin=subprocess.PIPE,
        )  # fmt: skip

    def tell(self, command, *said):
        """Give a command; what is given back waits for its answer."""
        number = next(self._numbers)
        self._process.stdin.write(" ".join([str(number), command, *map(json.dumps, said)]) + "\n")
        self._process.stdin.flush()
        return lambda: json.loads(self.wait_for(rf"^{number} (.+)$")[1])

    def stop(self):
        super().stop()
        self._process.stdin.close()


class Machine:
    """A namespace with a cable to the hub, a relay, and guests."""

    def __init__(self, hub, number, folder):
        self.name = f"m{number}"
        self._hub = hub
        self._folder = folder
        self._plug = f"{self.name}-plug"
        self.namespace = Namespace(self.name)
        hub.run("ip", "link", "add", self._plug, "type", "veth", "peer", "eth0", "netns", self.namespace.name)
        hub.run("ip", "link", "set", self._plug, "master", "bridge", "up")
        self.namespace.run("ip", "address", "add", f"10.98.0.{number + 2}/24", "dev", "eth0")
        self.namespace.run("ip", "link", "set", "eth0", "up")
        self.memory = []
        self.start()
        self.guests = Guests(self, number * GUESTS)

    def start(self):
        """Start the relay, for the first time or again: with the same certificate, and what it remembered."""
        own = self._folder / self.name
        self.memory = []
        self.relay = Relay(
            *("--port", 4433, "--state", own, "--admin", self._folder / f"{self.name}.sock"),
            *("--cluster", "nats://{}:{}".format(*NATS), "--cluster-key", self._folder / "cluster.key"),
            *("--cluster-node", self.name),
            before=self.namespace.prefix,
        )

    def plug(self, state):
        self._hub.run("ip", "link", "set", self._plug, state)

    def stop(self):
        self.guests.stop()
        self.relay.stop()
        self.namespace.delete()


class Cluster:
    def __init__(self, folder):
        self._stack = contextlib.ExitStack()
        (folder / "cluster.key").write_text("11" * 32)
        hub = Namespace("hub")
        self._stack.callback(hub.delete)
        hub.run("ip", "link", "add", "bridge", "type", "bridge")
        hub.run("ip", "address", "add", f"{NATS[0]}/24", "dev", "bridge")
        hub.run("ip", "link", "set", "bridge", "up")
        nats = NatsServer(NATS[1], address=NATS[0], before=hub.prefix)
        self._stack.callback(nats.stop)
        with ThreadPoolExecutor() as threads:
            self.machines = list(threads.map(lambda number: Machine(hub, number, folder), range(MACHINES)))
        for machine in self.machines:
            self._stack.callback(machine.stop)
        self.addresses = self.reach_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    @staticmethod
    def reach(machines):
        """Wait until all guests of some machines have reached each other; give their addresses."""
        asked = [machine.guests.tell("addresses") for machine in machines]
        found = {mac: address for answer in asked for mac, address in answer().items()}
        for answer in [machine.guests.tell("ping", found) for machine in machines]:
            answer()
        return found

    def reach_all(self):
        return self.reach(self.machines)

    @contextlib.contextmanager
    def listening(self, machines):
        """Check the pings within these machines in the block; the list given gets the longest of each."""
        longest = []
        waits = [Waits(each.relay.pid, each.guests.pid) for each in machines]
        before = [sum(each.read()) for each in waits]
        for answer in [each.guests.tell("silence") for each in machines]:
            answer()
        yield longest
        answers = [each.guests.tell("silence") for each in machines]
        for machine, answer, each, then in zip(machines, answers, waits, before, strict=True):
            silence, waited = answer(), sum(each.read()) - then
            longest.append(silence)
            told = f"a ping within {machine.name} took {silence:.1f} s, of which it waited {waited:.1f} s"
            assert silence - waited < SILENT_AT_MOST, told

    def tables_are_equal(self):
        """Whether no relay finds that it holds something else than what another one announces."""
        before = [machine.relay.counters() for machine in self.machines]
        time.sleep(QUIET)
        after = [machine.relay.counters() for machine in self.machines]
        return all(
            then["rooms.snapshots_wanted"] == now["rooms.snapshots_wanted"]
            and now["rooms.workers_found"] - now["rooms.workers_lost"] == MACHINES - 1
            and now["trunk.received"] - then["trunk.received"] >= MACHINES - 1
            for then, now in zip(before, after, strict=True)
        )


@contextlib.contextmanager
def killed(machine):
    machine.relay.signal(signal.SIGKILL)
    yield
    machine.relay.stop()
    machine.start()


@contextlib.contextmanager
def frozen(machine):
    machine.relay.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        machine.relay.signal(signal.SIGCONT)


@contextlib.contextmanager
def parted(machine):
    machine.plug("down")
    yield
    machine.plug("up")


def cycle(cluster, fault, machine):
    """Have one fault come and go; give what was measured. Raises AssertionError."""
    others = [each for each in cluster.machines if each is not machine]
    alive = cluster.machines if fault is parted else others
    with fault(machine), cluster.listening(alive) as silences:
        time.sleep(LASTS)
        cluster.reach(others)
    healing = time.monotonic()
    found = cluster.reach_all()
    healed = time.monotonic() - healing
    assert healed < HEALED_WITHIN, f"all reached all after {healed:.1f} s only"
    assert len(set(found.values())) == len(found), f"one address for two: {found}"
    assert found == cluster.addresses, f"{found} instead of {cluster.addresses}"
    wait_until(cluster.tables_are_equal, lambda: "the tables are not equal")
    for each in cluster.machines:
        each.memory.append(each.relay.memory)
    return max(silences), healed


def growth(memory):
    """Tell by how much memory has grown with each cycle since things had settled."""
    settled = memory[SETTLED:]
    return (settled[-1] - settled[0]) / (len(settled) - 1) if len(settled) > 1 else 0.0


def run_cycles(cycles, seed):
    """Run them; each kind of fault has its turn, and the first machine is never killed: it ages."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        for number, fault in zip(range(1, cycles + 1), itertools.cycle((killed, frozen, parted))):
            machine = chance.choice(cluster.machines[fault is killed :])
            silence, healed = cycle(cluster, fault, machine)
            sizes = ", ".join(f"{each.memory[-1] / 1e6:.1f}" for each in cluster.machines)
            print(
                f"cycle {number}: {machine.name} {fault.__name__}; longest ping within the others "
                f"{silence:.2f} s, healed after {healed:.1f} s, memory {sizes} MB",
                flush=True,
            )
        for machine in cluster.machines:
            grown = growth(machine.memory)
            assert grown < GROWTH, f"{machine.name} grows by {grown / 1024:.0f} kB with each cycle"


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        run_cycles(options.cycles, options.seed)
    except AssertionError as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()

"""Measure what a thousand idle sessions cost a relay, and how long others wait when they all leave at once.

    .venv/bin/python bench/departure.py
    .venv/bin/python bench/departure.py --packages $(scripts/accelerate.sh)    with the accelerator

Prints one JSON object. ``idle_cpu_percent`` is the relay's share of its core while the sessions are held and
nothing but QUIC's own packets is sent. Then the closing packets of all sessions are sent in one loop
(``closing_ms``), while one more guest pings the gateway every 2 ms. ``stall_ms`` is by how much the longest
round trip from then on exceeded the median of the second before; that ping left ``departure_longest_at_ms``
after the first. ``draining_longest_ms`` is the longest after the relay had read the last closing packet,
when QUIC lets go of the connections.

The relay has one core, this command the other. The kernel times replies as they arrive, so being late with
reading them does not count; ``own_lag_ms`` is how late a ping left at most.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import multiprocessing
import os
import re
import resource
import select
import selectors
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, ProtocolNegotiated
from loads import ROOT, pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

HANDSHAKES = 16
"""Sessions that are being opened at a time."""
PATIENCE = 10.0
"""Seconds for a session to open, or for a ping to be answered."""
SETTLING = 3.0
"""Seconds after the last session was opened in which acknowledgements and path probes come to their end."""
IDLE = 20.0
"""Seconds over which the relay's CPU share is measured; it sends each session a PING every 15 s."""
CALM = 1.0
"""Seconds of pings before the departure."""
DRAINING = 2.0
"""Seconds of pings after the relay has read the last closing packet: QUIC drains for three probe timeouts."""
INTERVAL = 0.002
"""Seconds between two pings."""
SO_TIMESTAMPNS = 35
"""Linux, level SOL_SOCKET: tell with each packet when it arrived, by the clock of ``time.time``."""
GUEST_MAC, GATEWAY_MAC = "52:54:00:00:be:ef", "52:54:00:12:34:56"
PREFIX = b"\0"
"""Quarter stream ID of a connection's first request (RFC 9297, section 2.1)."""

clock = time.time


class Client:
    """A raw session with a socket of its own, or the beginnings of one."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.connect(self._address)
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
        )
        self._quic = QuicConnection(configuration=configuration)
        self._h3: H3Connection | None = None
        self.since = clock()
        self.is_open = False
        self.problem: str | None = None
        self.arrived: list[bytes] = []
        self._quic.connect(self._address, now=self.since)
        self._flush()

    def receive(self) -> float:
        """Take one packet, which is there; return when it arrived."""
        packet, ((_, _, stamp), *_), _, _ = self.socket.recvmsg(2048, 64)
        self._quic.receive_datagram(packet, self._address, clock())
        self._pump()
        seconds, nanoseconds = struct.unpack("qq", stamp)
        return float(seconds + nanoseconds * 1e-9)

    def handle_timer(self) -> None:
        """Do what is due, if anything is."""
        if self.due <= clock():
            self._quic.handle_timer(clock())
            self._pump()

    def send(self, frame: bytes) -> None:
        """Send a frame at once."""
        self._quic.send_datagram_frame(PREFIX + frame)
        self._flush()

    def closing_packets(self) -> list[bytes]:
        """Return what ends the session when it is sent."""
        self._quic.close(error_code=ErrorCode.H3_NO_ERROR)
        return [packet for packet, _ in self._quic.datagrams_to_send(clock())]

    def _flush(self) -> None:
        for packet, _ in self._quic.datagrams_to_send(clock()):
            self.socket.send(packet)
        self.due = self._quic.get_timer() or math.inf

    def _pump(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                self.problem = event.reason_phrase or f"closed with code 0x{event.error_code:x}"
            elif isinstance(event, DatagramFrameReceived):
                self.arrived.append(event.data[len(PREFIX) :])
            elif isinstance(event, ProtocolNegotiated):
                self._h3 = H3Connection(self._quic, enable_webtransport=True)
                request = (
                    ":method CONNECT :protocol webtransport :scheme https :authority relay :path /?encap=raw"
                )
                words = request.encode().split()
                self._h3.send_headers(0, list(zip(words[::2], words[1::2], strict=True)))
            elif self._h3 is not None:
                for answer in self._h3.handle_event(event):
                    if isinstance(answer, HeadersReceived):
                        self.is_open = (b":status", b"200") in answer.headers
                    if isinstance(answer, HeadersReceived | DataReceived) and answer.stream_ended:
                        self.problem = "the relay has refused or closed it"
        self._flush()


def run_crowd(port: int, size: int, orders: Connection) -> None:
    """Open sessions, prepare to leave at the first order, leave at the second; a process of its own.

    Reports each step: the first with what went wrong or None, the last with the seconds that it took.
    """
    clients: list[Client] = []
    opening: list[Client] = []
    selector = selectors.DefaultSelector()

    def exchange() -> None:
        for key, _ in selector.select(0.02):
            if key.data is not None:
                key.data.receive()
        for client in clients:
            client.handle_timer()

    while opening or len(clients) < size:
        while len(clients) < size and len(opening) < HANDSHAKES:
            opening.append(Client(port))
            clients.append(opening[-1])
            selector.register(clients[-1].socket, selectors.EVENT_READ, clients[-1])
        exchange()
        for number, client in enumerate(clients, 1):
            if client.problem or (not client.is_open and clock() - client.since > PATIENCE):
                orders.send(f"session {number} cannot be opened: {client.problem or 'no answer'}")
                return
        opening = [client for client in opening if not client.is_open]
    orders.send(None)

    selector.register(orders, selectors.EVENT_READ, None)
    while not orders.poll():
        exchange()
    leave = [(client.socket.send, packet) for client in clients for packet in client.closing_packets()]
    orders.send(orders.recv())
    orders.recv()
    begun = clock()
    for send, packet in leave:
        send(packet)
    orders.send(clock() - begun)
    with contextlib.suppress(EOFError):
        orders.recv()  # the kernel would refuse packets for sockets that are closed


class Probe:
    """A guest that pings the gateway and takes the time."""

    def __init__(self, port: int) -> None:
        # Imported here, for it takes a second.
        from scapy.layers.inet import ICMP, IP
        from scapy.layers.l2 import Ether

        # A ping's number and its complement add up to nothing, so one checksum is right for all.
        ping = Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / IP(src="10.0.2.200", dst="10.0.2.2") / ICMP(id=1)
        self._ping = bytes(ping / b"\0\0\xff\xff")[:-4]
        self._client = Client(port)
        self._due = clock()
        self.sent: list[float] = []
        self.trips: dict[int, float] = {}
        """Round trips in milliseconds, by the ping's number."""
        self.lag = 0.0
        self.run_until(lambda: self._client.is_open, sending=False)

    def run_until(self, is_over: Callable[[], bool], *, sending: bool = True) -> None:
        """Take replies until it is over, and send a ping whenever one is due."""
        give_up = clock() + PATIENCE
        self._due = max(self._due, clock())
        while not is_over():
            if sending and clock() >= self._due:
                number = len(self.sent)
                self.sent.append(clock())
                self._client.send(self._ping + struct.pack("!HH", number, number ^ 0xFFFF))
                self.lag = max(self.lag, clock() - self._due)
                self._due = max(self._due + INTERVAL, clock())
            next_step = min(self._due if sending else math.inf, self._client.due, give_up)
            if select.select([self._client.socket], [], [], max(0.0, min(next_step - clock(), INTERVAL)))[0]:
                arrived_at = self._client.receive()
                for frame in self._client.arrived:
                    if frame[34] == 0:  # ICMP echo reply
                        number = int.from_bytes(frame[-4:-2], "big")
                        self.trips[number] = 1e3 * (arrived_at - self.sent[number])
                self._client.arrived.clear()
            self._client.handle_timer()
            if clock() > give_up or self._client.problem:
                sys.exit(f"the gateway does not answer: {self._client.problem or 'timeout'}")

    def run_for(self, seconds: float) -> None:
        """Send pings for a while."""
        end = clock() + seconds
        self.run_until(lambda: clock() >= end)

    def run_until_answered(self) -> None:
        """Send pings until one of these is answered: what was sent to the relay before has been read."""
        first = len(self.sent)
        self.run_until(lambda: next(reversed(self.trips), -1) >= first)

    def trips_since(self, first: int) -> list[float]:
        """Return the round trips of the pings from number ``first`` on."""
        return [trip for number, trip in self.trips.items() if number >= first]


@contextlib.contextmanager
def server(packages: Path, log: TextIO) -> Iterator[tuple[int, int]]:
    """Run a relay of ``packages`` until the block ends; gives its pid and port."""
    command = [*pinned(0), sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", "--port", "0"]
    command += ["--allow-cidr", "127.0.0.0/8"]
    if not packages.is_dir():
        sys.exit(f"the relay does not start: there is no folder {packages}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=packages) as process:
        assert process.stdout is not None
        matches = (re.search(r"Listening on https://.*:(\d+)", line) for line in process.stdout)
        found = next(filter(None, matches), None)
        if found is None:
            log.seek(0)
            sys.exit(f"the relay does not start: {(log.read().splitlines() or ['it does not say why'])[-1]}")
        try:
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of the CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_departures(log: TextIO) -> int:
    """Count the sessions that have left; the relay sums up what it would have said too often."""
    log.seek(0)
    lines = re.findall(r"peer \d+ left: .*?(?:\(and (\d+) more like it\))?$", log.read(), re.MULTILINE)
    return sum(int(more) if more else 1 for more in lines)


def measure(pid: int, port: int, crowd: Connection) -> dict[str, float]:
    """Wait for the crowd, measure it at rest, have it leave; give the figures."""
    if problem := crowd.recv():
        sys.exit(problem)
    time.sleep(SETTLING)
    used = cpu_seconds(pid)
    time.sleep(IDLE)
    used = cpu_seconds(pid) - used

    probe = Probe(port)
    probe.run_until_answered()
    crowd.send("prepare")
    crowd.recv()
    gc.disable()
    calm_from = len(probe.sent)
    probe.run_for(CALM)
    probe.run_until_answered()
    calm = probe.trips_since(calm_from)
    probe.lag = 0.0
    first = len(probe.sent)
    crowd.send("leave")
    probe.run_until(crowd.poll)
    probe.run_until_answered()
    drained_from = len(probe.sent)
    probe.run_for(DRAINING)
    end = clock() + CALM
    probe.run_until(lambda: clock() >= end, sending=False)

    longest = max(probe.trips_since(first))
    number = next(number for number, trip in probe.trips.items() if number >= first and trip == longest)
    figures = {
        "idle_cpu_percent": 100 * used / IDLE,
        "stall_ms": longest - statistics.median(calm),
        "calm_median_ms": statistics.median(calm),
        "calm_longest_ms": max(calm),
        "departure_longest_ms": longest,
        "departure_longest_at_ms": 1e3 * (probe.sent[number] - probe.sent[first]),
        "draining_longest_ms": max(probe.trips_since(drained_from)),
        "pings_lost": len(probe.sent) - len(probe.trips),
        "own_lag_ms": 1e3 * probe.lag,
        "closing_ms": 1e3 * crowd.recv(),
    }
    return {name: round(figure, 3) for name, figure in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument(
        "--packages",
        type=Path,
        default=ROOT,
        help="folder with the relay's packages; default: this tree's own",
    )
    options = parser.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    with tempfile.TemporaryFile("w+") as log:
        with server(options.packages, log) as (pid, port):
            if (os.cpu_count() or 1) > 1:
                os.sched_setaffinity(0, {1})
            crowd, orders = multiprocessing.Pipe()
            multiprocessing.Process(
                target=run_crowd, args=(port, options.sessions, orders), daemon=True
            ).start()
            figures = measure(pid, port, crowd)
        left = count_departures(log)
    if left != options.sessions:
        sys.exit(f"the relay has seen {left} of {options.sessions} sessions leave")
    print(json.dumps({"sessions": options.sessions} | figures))


if __name__ == "__main__":
    main()

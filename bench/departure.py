"""Measure what a thousand idle sessions cost a relay, and how long others wait when they all leave at once.

    .venv/bin/python bench/departure.py
    .venv/bin/python bench/departure.py --packages $(scripts/accelerate.sh)    with the accelerator

Prints one JSON object. ``idle_cpu_percent`` is the relay's share of its core while the sessions are held and
nothing but QUIC's own packets is sent. Then the closing packets of all sessions are sent in one loop, while
one more guest pings the gateway every 2 ms: ``stall_ms`` is by how much its longest round trip exceeded the
median of the second before. ``draining_longest_ms`` is the longest of the time after the relay had read the
last closing packet, when QUIC lets go of the connections.

The relay has one core, this command the other. Replies are timed by the kernel as they arrive, so being late
with reading them does not count; ``own_lag_ms`` is how late an echo request left at most, and
``closing_ms`` how long the loop took that sent the closing packets.
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
"""Seconds for a session to open, for an echo to be answered."""
SETTLING = 3.0
"""Seconds after the last session was opened in which acknowledgements and path probes come to their end."""
IDLE = 20.0
"""Seconds over which the CPU share of held sessions is measured; each is sent a PING every 15 s."""
CALM = 1.0
"""Seconds of pings before the departure."""
DRAINING = 2.0
"""Seconds of pings after the last closing packet was read: QUIC drains for three probe timeouts, and half
a second more."""
INTERVAL = 0.002
"""Seconds between two pings."""

SO_TIMESTAMPNS = 35
"""Linux, level SOL_SOCKET: tell with each packet when it arrived, by the clock of ``time.time``."""
clock = time.time

MAC = "52:54:00:00:be:ef"
GATEWAY_MAC = "52:54:00:12:34:56"
PREFIX = b"\0"
"""Quarter stream ID of a connection's first request (RFC 9297, section 2.1)."""
ECHO_REPLY = slice(34, 35), b"\0"
"""Where an ICMP message in an Ethernet frame says what it is, and what it says."""


class Client:
    """A raw session, with a socket of its own; or its beginnings."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.connect(self._address)
        self.quic = QuicConnection(
            configuration=QuicConfiguration(
                alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
            )
        )
        self._h3: H3Connection | None = None
        self.is_open = False
        self.problem: str | None = None
        self.arrived: list[bytes] = []
        self.since = clock()
        self.due = math.inf
        """When ``handle_timer`` is."""
        self.quic.connect(self._address, now=self.since)
        self.flush()

    def receive(self) -> float:
        """Take one packet, which is there; return when it arrived."""
        packet, ((_, _, stamp), *_), _, _ = self.socket.recvmsg(2048, 64)
        seconds, nanoseconds = struct.unpack("qq", stamp)
        self.quic.receive_datagram(packet, self._address, clock())
        self._pump()
        self.flush()
        return float(seconds + nanoseconds * 1e-9)

    def handle_timer(self) -> None:
        """Do what is due, if anything is."""
        if self.due <= clock():
            self.quic.handle_timer(clock())
            self._pump()
            self.flush()

    def send(self, frame: bytes) -> None:
        """Send a frame now."""
        self.quic.send_datagram_frame(PREFIX + frame)
        self.flush()

    def flush(self) -> None:
        for packet, _ in self.quic.datagrams_to_send(clock()):
            self.socket.send(packet)
        self.due = self.quic.get_timer() or math.inf

    def closing_packets(self) -> list[bytes]:
        """Return what ends the session when it is sent."""
        self.quic.close(error_code=ErrorCode.H3_NO_ERROR)
        return [packet for packet, _ in self.quic.datagrams_to_send(clock())]

    def _pump(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                self.problem = event.reason_phrase or f"closed with code 0x{event.error_code:x}"
            elif isinstance(event, DatagramFrameReceived):
                self.arrived.append(event.data[len(PREFIX) :])
            elif isinstance(event, ProtocolNegotiated):
                self._h3 = H3Connection(self.quic, enable_webtransport=True)
                self._request(self._h3)
            elif self._h3 is not None:
                for answer in self._h3.handle_event(event):
                    if isinstance(answer, HeadersReceived):
                        self.is_open = (b":status", b"200") in answer.headers
                    if isinstance(answer, HeadersReceived | DataReceived) and answer.stream_ended:
                        self.problem = "the relay refuses or closes it"

    def _request(self, h3: H3Connection) -> None:
        headers = {":method": "CONNECT", ":protocol": "webtransport", ":scheme": "https"}
        headers |= {":authority": "127.0.0.1", ":path": "/?encap=raw"}
        stream_id = self.quic.get_next_available_stream_id()
        h3.send_headers(stream_id, [(name.encode(), value.encode()) for name, value in headers.items()])


class Crowd:
    """Many sessions that say nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[Client] = []
        self._opening: list[Client] = []
        self._selector = selectors.DefaultSelector()

    def open(self, size: int) -> str | None:
        """Open sessions until there are ``size``; return what went wrong, if anything did."""
        while len(self._clients) < size or self._opening:
            while len(self._clients) < size and len(self._opening) < HANDSHAKES:
                client = Client(self._port)
                self._selector.register(client.socket, selectors.EVENT_READ, client)
                self._opening.append(client)
                self._clients.append(client)
            self._exchange()
            self._opening = [client for client in self._opening if not client.is_open]
            if self._opening and clock() - self._opening[0].since > PATIENCE:
                self._opening[0].problem = f"no answer within {PATIENCE:g} s"
            if (problem := self.problem) is not None:
                return problem
        return None

    @property
    def problem(self) -> str | None:
        """What became of a session that is not as it should be."""
        found = ((number, client.problem) for number, client in enumerate(self._clients, 1) if client.problem)
        return next((f"session {number}: {problem}" for number, problem in found), None)

    def keep_until(self, orders: Connection) -> None:
        """Answer what comes until there is an order."""
        self._selector.register(orders, selectors.EVENT_READ, None)
        while not self._exchange():
            pass

    def _exchange(self) -> bool:
        """Receive and do what is due; tell whether there is an order."""
        ready = [key.data for key, _ in self._selector.select(0.02)]
        for client in ready:
            if client is not None:
                client.receive()
        for client in self._clients:
            client.handle_timer()
        return None in ready

    def prepare_departure(self) -> list[tuple[Callable[[bytes], int], bytes]]:
        """Return what is to be called with what."""
        return [(client.socket.send, packet) for client in self._clients for packet in client.closing_packets()]


def run_crowd(port: int, size: int, orders: Connection) -> None:
    """Open sessions, hold them until the first order, end them at the second; a process of its own.

    Reports at each step what went wrong, or None, and at last how many seconds the closing took.
    """
    crowd = Crowd(port)
    orders.send(crowd.open(size))
    gc.collect()
    gc.freeze()
    crowd.keep_until(orders)
    orders.recv()
    problem = crowd.problem
    departure = crowd.prepare_departure()
    orders.send(problem)
    orders.recv()
    begun = clock()
    for send, packet in departure:
        send(packet)
    orders.send(clock() - begun)
    with contextlib.suppress(EOFError):
        orders.recv()  # sockets that are closed would have the kernel refuse packets


class Probe:
    """A guest that pings the gateway and takes the time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._due = clock()
        self.sent: list[float] = []
        self.trips: dict[int, float] = {}
        """Round trips in seconds, by number."""
        self.lag = 0.0
        """Seconds that a ping left late, at most."""
        # Imported here, for it takes a second.
        from scapy.layers.inet import ICMP, IP
        from scapy.layers.l2 import Ether

        address = IP(src="10.0.2.200", dst="10.0.2.2")
        # A number and its complement add up to nothing: the checksum holds for all of them.
        self._frame = bytes(Ether(src=MAC, dst=GATEWAY_MAC) / address / ICMP(id=1) / b"\0\0\xff\xff")[:-4]

    def run(self, is_over: Callable[[], bool], *, sending: bool = True) -> None:
        """Ping until it is over."""
        self._due = max(self._due, clock())
        give_up = clock() + PATIENCE
        while not is_over():
            if sending and clock() >= self._due:
                self._send()
            wait = min(self._due if sending else math.inf, self._client.due, clock() + 0.1) - clock()
            if select.select([self._client.socket], [], [], max(0.0, wait))[0]:
                self._receive()
            self._client.handle_timer()
            if self._client.problem is not None or clock() > give_up:
                sys.exit(f"the gateway no longer answers: {self._client.problem or 'timeout'}")

    def _send(self) -> None:
        number = len(self.sent)
        self.sent.append(clock())
        self._client.send(self._frame + struct.pack("!HH", number, number ^ 0xFFFF))
        self.lag = max(self.lag, clock() - self._due)
        self._due = max(self._due + INTERVAL, clock())

    def _receive(self) -> None:
        at = self._client.receive()
        where, reply = ECHO_REPLY
        for frame in self._client.arrived:
            if frame[where] == reply:
                number = int.from_bytes(frame[-4:-2], "big")
                self.trips[number] = at - self.sent[number]
        self._client.arrived.clear()

    def run_for(self, seconds: float) -> None:
        end = clock() + seconds
        self.run(lambda: clock() >= end)

    def run_until_answered(self) -> None:
        """Ping until a ping of this call is answered, and so all before it have been read."""
        first = len(self.sent)
        self.run(lambda: any(number >= first for number in list(self.trips)[-8:]))

    def trips_of(self, first: int, stop: int) -> list[float]:
        """Return round trips in milliseconds, by number; infinite where there was no answer."""
        return [1e3 * self.trips.get(number, math.inf) for number in range(first, stop)]


@contextlib.contextmanager
def relay(packages: Path, log: TextIO) -> Iterator[tuple[int, int]]:
    """Run a relay of ``packages`` until the block ends; gives its pid and port."""
    command = [*pinned(0), sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", "--port", "0"]
    command += ["--allow-cidr", "127.0.0.0/8"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=packages)
    except OSError as error:
        sys.exit(f"the relay does not start: {error}")
    with process:
        assert process.stdout is not None
        matches = (re.search(r"Listening on https://.*:(\d+)", line) for line in process.stdout)
        found = next(filter(None, matches), None)
        if found is None:
            log.seek(0)
            sys.exit(f"the relay does not start: {(log.read().splitlines() or ['it says nothing'])[-1]}")
        try:
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of the CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_departures(log: TextIO) -> int:
    """Count the sessions that left by themselves; the relay sums up what it has said too often."""
    log.seek(0)
    found = re.findall(r"peer \d+ left: .*?(?:\(and (\d+) more like it\))?$", log.read(), re.MULTILINE)
    # A summary repeats the last line that it stands for.
    return sum(int(more) if more else 1 for more in found)


def order(crowd: Connection, what: str | None = None) -> None:
    """Give the crowd an order, if any, and exit if it has a problem with it or the one before."""
    try:
        if what is not None:
            crowd.send(what)
        problem = crowd.recv()
    except (EOFError, OSError):
        problem = "their process ended"
    if problem is not None:
        sys.exit(f"the sessions cannot be held: {problem}")


def measure(pid: int, port: int, crowd: Connection) -> dict[str, float]:
    """Run through everything; give the figures."""
    order(crowd)
    time.sleep(SETTLING)
    used = cpu_seconds(pid)
    time.sleep(IDLE)
    used = cpu_seconds(pid) - used

    client = Client(port)
    probe = Probe(client)
    probe.run(lambda: client.is_open, sending=False)
    probe.run_until_answered()
    order(crowd, "prepare")
    gc.collect()
    gc.disable()
    probe.run_for(CALM / 10)  # what the pause has left behind
    calm_from = len(probe.sent)
    probe.run_for(CALM)
    probe.lag = 0.0
    left_from = len(probe.sent)
    crowd.send("leave")
    probe.run(crowd.poll)
    probe.run_until_answered()
    drained_from = len(probe.sent)
    probe.run_for(DRAINING)
    end = len(probe.sent)
    last_word = clock() + CALM
    probe.run(lambda: len(probe.trips) == end or clock() > last_word, sending=False)

    calm = probe.trips_of(calm_from, left_from)
    departure = probe.trips_of(left_from, end)
    answered = [trip for trip in departure if trip < math.inf]
    longest = max(answered)
    at = probe.sent[left_from + departure.index(longest)] - probe.sent[left_from]
    draining = [trip for trip in probe.trips_of(drained_from, end) if trip < math.inf]
    figures = {
        "idle_cpu_percent": 100 * used / IDLE,
        "stall_ms": longest - statistics.median(calm),
        "calm_median_ms": statistics.median(calm),
        "calm_longest_ms": max(calm),
        "departure_longest_ms": longest,
        "departure_longest_at_ms": 1e3 * at,
        "draining_longest_ms": max(draining),
        "unanswered": len(departure) - len(answered),
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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})

    with tempfile.TemporaryFile("w+") as log:
        with relay(options.packages, log) as (pid, port):
            crowd, orders = multiprocessing.Pipe()
            arguments = (port, options.sessions, orders)
            process = multiprocessing.Process(target=run_crowd, args=arguments, daemon=True)
            process.start()
            orders.close()
            figures = measure(pid, port, crowd)
            process.terminate()
        left = count_departures(log)
    if left != options.sessions:
        sys.exit(f"{left} of {options.sessions} sessions have left: the figures mean nothing")
    print(json.dumps({"sessions": options.sessions} | figures))


if __name__ == "__main__":
    main()

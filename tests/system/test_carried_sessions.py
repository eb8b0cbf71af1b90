"""Clients that come back to another worker than the one of before: what their guests have open goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import pytest
from browsers import client_page
from lost_paths import breaking_path, downloading
from processes import PATIENCE, Program
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from test_lost_connections import GATEWAY_MAC, HOST
from waiting import wait_until
from worker_relays import SOON, Workers

MOST_BREAKS = 12
"""That the kernel gives the client to the worker of before each time is as likely as 1 in 4,000."""


def test_a_download_of_a_kernel_goes_on_when_its_client_comes_back_to_another_worker(tmp_path):
    # Who knows of two URLs takes it sooner that nothing comes any more.
    with downloading(tmp_path, Workers, "4M", 240, also="?encap=framed") as download:
        copy, guest = download.copy, download.guest
        for number in range(1, MOST_BREAKS + 1):
            size = copy.stat().st_size if copy.exists() else 0
            wait_until(lambda size=size: copy.exists() and copy.stat().st_size > size + 100_000)
            assert download.curl.running
            download.path.signal(signal.SIGUSR1)
            download.path.wait_for("broken", count=number)
            guest.wait_for_news(rf"attached to .*address {guest.address}/24", count=number + 1, patience=60)
            if download.relay.counters()["switch.carried"]:
                break
        download.is_whole()
        counters = download.relay.counters()
        assert counters["switch.carried"]
        assert counters["switch.resumed"] == number


class Card:
    """The npm client in a page, by WebSocket, whose guest asks a UDP server now and then."""

    def __init__(self, page, url, echo):
        self._page, self._echo = page, echo
        page.evaluate(
            """async (url) => {
                 const { connect } = await import("/client/index.js");
                 window.heard = [];
                 const onframe = (frame) => heard.push(new TextDecoder().decode(frame.slice(42)));
                 window.nic = await connect(url, { transport: "websocket", onframe });
               }""",
            url,
        )
        self.address = page.evaluate("nic.assigned.ip.join('.')")
        mac = bytes(page.evaluate("[...nic.mac]")).hex(":")
        ends = IP(src=self.address, dst=HOST) / UDP(sport=4000, dport=echo.getsockname()[1])
        self._head = Ether(src=mac, dst=GATEWAY_MAC) / ends
        self.reconnects = 0

    def is_back(self):
        """Wait until it is, for another time; with its address."""
        self.reconnects += 1
        self._page.wait_for_function(
            f"nic.state === 'open' && nic.statistics.reconnects === {self.reconnects}", polling=20
        )
        assert self._page.evaluate("nic.assigned.ip.join('.')") == self.address

    def asks(self, payload):
        """Ask the server, and wait for its answer; give where the question came from."""
        self._page.evaluate("(frame) => nic.send(Uint8Array.from(frame))", list(bytes(self._head / payload)))
        said, sender = self._echo.recvfrom(100)
        assert said == payload
        self._echo.sendto(b"answer to " + payload, sender)
        self._page.wait_for_function(f"heard.includes('answer to {payload.decode()}')", polling=20)
        return sender


def carried_by(relay):
    """Tell the worker that began to carry a session last, once the log says that one has."""
    relay.wait_for("is carried to worker")
    return [line["worker"] for line in relay.logged() if "is carried to worker" in line["message"]][-1]


@pytest.mark.alone
@pytest.mark.parametrize("killed", ["carrier", "holder"])
def test_a_killed_worker_of_the_two_of_a_carried_session_costs_a_second(tmp_path, killed):
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        echo.bind(("127.0.0.1", 0))
        echo.settimeout(PATIENCE)
        relay = Workers("--host-access")
        stack.callback(relay.stop)
        path, port = breaking_path(Program, relay)
        stack.callback(path.stop)
        page = stack.enter_context(client_page(tmp_path))
        card = Card(page, f"http://127.0.0.1:{port}/", echo)
        mapping = card.asks(b"0")
        holder = relay.worker_of(card.address)
        for number in range(1, 4 * MOST_BREAKS):
            path.signal(signal.SIGUSR1)
            path.wait_for("broken", count=number)
            card.is_back()
            assert card.asks(b"%d" % number) == mapping
            if relay.counters()["switch.carried"]:
                break
        carrier = carried_by(relay)
        assert {carrier, holder} == {0, 1}
        moment = time.monotonic()
        os.kill(relay.pid_of(carrier if killed == "carrier" else holder), signal.SIGKILL)
        card.is_back()
        assert time.monotonic() - moment < SOON
        assert (card.asks(b"again") == mapping) is (killed == "carrier")

"""Clients that come back to another worker than the one of before: what their guests have open goes on."""

from __future__ import annotations

import contextlib
import signal
from types import SimpleNamespace

from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from test_lost_connections import FILE, OUTSIDE, breaking_path, web_server
from test_workers import Workers
from transfers import tell, told
from waiting import wait_until

MOST_BREAKS = 12
"""That the kernel gives the client to the worker of before each time is as likely as 1 in 4,000."""


def test_a_download_of_a_kernel_goes_on_when_its_client_comes_back_to_another_worker(tmp_path):
    with contextlib.ExitStack() as stack:
        here, outside = Namespace("relay"), Namespace("outside")
        stack.callback(here.delete)
        stack.callback(outside.delete)
        connect(here, "10.99.1.1/24", outside, f"{OUTSIDE}/24")
        relay = Workers("--allow-cidr", "10.99.1.0/24", before=here.prefix)
        stack.callback(relay.stop)
        path, port = breaking_path(here.start, relay)
        stack.callback(path.stop)
        behind = SimpleNamespace(hash=relay.hash, url=f"https://127.0.0.1:{port}/")
        # Who knows of two URLs takes it sooner that nothing comes any more.
        guest = KernelGuest("away", behind, here, f"{behind.url}?encap=framed")
        stack.callback(guest.leave)
        url, server = stack.enter_context(web_server(outside, tmp_path))

        copy = tmp_path / "copy"
        curl = guest.start("curl", "-sS", "--limit-rate", "4M", "--max-time", 300, "-o", copy, url)
        stack.callback(curl.stop)
        server.wait_for("GET /file")
        for number in range(1, MOST_BREAKS + 1):
            size = copy.stat().st_size if copy.exists() else 0
            wait_until(lambda size=size: copy.exists() and copy.stat().st_size > size + 100_000)
            assert curl.running
            path.signal(signal.SIGUSR1)
            path.wait_for("broken", count=number)
            guest.wait_for_news(rf"attached to .*address {guest.address}/24", count=number + 1, patience=60)
            if relay.counters()["switch.carried"]:
                break
        assert curl.wait(patience=120) == 0, curl.output
        with copy.open("rb") as file:
            assert told(iter(lambda: file.read(1 << 18), b"")) == tell(FILE)
        copy.unlink()
        assert server.output.count("GET /file") == 1
        counters = relay.counters()
        assert counters["switch.carried"]
        assert counters["switch.resumed"] == number

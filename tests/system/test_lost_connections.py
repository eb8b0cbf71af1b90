"""Clients whose connections break, and that come back: what their guests have open goes on."""

from __future__ import annotations

import contextlib
import signal

import pytest
from browsers import client_page
from lost_paths import FILE, breaking_path, downloading
from processes import Program, Relay
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

GATEWAY_MAC = "52:54:00:12:34:56"
HOST = "10.0.2.4"
"""Where guests reach the relay's own machine, if they may."""


def test_a_download_of_a_kernel_goes_on_when_the_path_of_its_session_was_lost(tmp_path):
    with downloading(tmp_path, Relay, "8M", 120) as download:
        while not download.copy.exists() or download.copy.stat().st_size < FILE // 10:
            assert download.curl.running
        download.path.signal(signal.SIGUSR1)
        download.path.wait_for("broken")
        download.guest.wait_for_news("not attached: the server has fallen silent", patience=60)
        download.guest.wait_for_news(rf"attached to .*address {download.guest.address}/24", count=2)
        download.is_whole()
        assert download.relay.counters()["switch.resumed"] == 1
        assert "Traceback" not in download.relay.output


@pytest.fixture(params=[1, 2], ids=["one-process", "two-workers"])
def relay(request):
    """At workers the client comes back to any of them."""
    relay = Relay("--host-access", "--workers", request.param)
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


def test_the_npm_client_keeps_its_mappings_from_webtransport_to_websocket_and_on(relay, udp_server, tmp_path):
    with contextlib.ExitStack() as stack:
        path, port = breaking_path(Program, relay)
        stack.callback(path.stop)
        page = stack.enter_context(client_page(tmp_path))
        page.evaluate(
            """async (url) => {
                 const { connect } = await import("/client/index.js");
                 window.heard = [];
                 const onframe = (frame) => heard.push(new TextDecoder().decode(frame.slice(42)));
                 window.nic = await connect(url, { onframe });
                 // What a guest says now and then; nobody has this address.
                 const ask = [255, 255, 255, 255, 255, 255, ...nic.mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
                              ...nic.mac, ...nic.assigned.ip, 0, 0, 0, 0, 0, 0, 10, 0, 2, 250];
                 setInterval(() => nic.send(Uint8Array.from(ask)), 100);
               }""",
            f"http://127.0.0.1:{port}/",
        )
        assert page.evaluate("nic.carrier") == "webtransport"
        mac = bytes(page.evaluate("[...nic.mac]")).hex(":")
        address = page.evaluate("nic.assigned.ip.join('.')")
        ends = IP(src=address, dst=HOST) / UDP(sport=4000, dport=udp_server.getsockname()[1])

        def ask(payload):
            """Have the guest ask; give where that came from, once the answer has arrived."""
            frame = bytes(Ether(src=mac, dst=GATEWAY_MAC) / ends / payload)
            page.evaluate("(frame) => nic.send(Uint8Array.from(frame))", list(frame))
            said, sender = udp_server.recvfrom(100)
            assert said == payload
            udp_server.sendto(b"answer to " + payload, sender)
            page.wait_for_function(f"heard.includes('answer to {payload.decode()}')", polling=20)
            return sender

        sender = ask(b"one")
        # UDP gets through no longer: by WebSocket then. The relay has not heard of any end.
        path.signal(signal.SIGUSR2)
        path.wait_for("closed")
        page.wait_for_function("nic.state === 'open' && nic.carrier === 'websocket'", polling=20)
        assert ask(b"two") == sender
        assert relay.counters()["switch.resumed"] == 1
        # Its WebSocket is lost, which the relay hears of at once.
        path.signal(signal.SIGUSR1)
        path.wait_for("broken")
        page.wait_for_function("nic.state === 'open' && nic.statistics.reconnects === 2", polling=20)
        assert ask(b"three") == sender
        assert page.evaluate("nic.assigned.ip.join('.')") == address
        counters = relay.counters()
        assert (counters["switch.resumed"], counters["peer.absences"]) == (2, 1)
        # Who leaves is not waited for.
        page.evaluate("nic.close()")
        relay.wait_for("peer .* closed: disconnected")
        assert relay.counters()["peer.absences"] == 1

"""vmrelay netcheck, against relays behind which one thing or another is missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from typing import Any

import pytest
from processes import Relay, free_port

from relay import main
from relay.netcheck import HEARTBEAT, HEARTBEATS, Step, _measure, _say


@pytest.fixture
def check(capsys):
    """Run the command; gives its status, what it said of each step, and of what went wrong."""

    def run(*arguments):
        status = main.main(["netcheck", *map(str, arguments)])
        said = capsys.readouterr()
        steps = {}
        for line in said.out.splitlines():
            name, mark, text = re.fullmatch(r"(\S+) +(ok|no)  (.+)", line).groups()
            steps[name] = mark == "ok", text
        return status, steps, said.err

    return run


@contextlib.contextmanager
def tcp_only(port):
    """Another port that leads to ``port`` by TCP, and nowhere by UDP, as behind many a firewall."""

    async def serve(ready, stop):
        async def pass_on(reader, writer):
            try:
                with contextlib.suppress(OSError):
                    while data := await reader.read(65536):
                        writer.write(data)
                        await writer.drain()
            finally:
                writer.close()

        async def lead(reader, writer):
            under_way.add(asyncio.current_task())
            onwards = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pass_on(reader, onwards[1]), pass_on(onwards[0], writer))

        async with await asyncio.start_server(lead, "127.0.0.1", 0) as server:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    found, loop, stop, under_way = [], asyncio.new_event_loop(), asyncio.Event(), set()
    there = threading.Event()
    thread = threading.Thread(
        target=loop.run_until_complete,
        args=(serve(lambda number: (found.append(number), there.set()), stop),),
    )
    thread.start()
    assert there.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_all_is_well(check, live_relay):
    status, steps, _ = check("--cert-hash", live_relay.hash, live_relay.url)
    assert status == 0
    assert [ok for ok, _ in steps.values()] == [True] * 6
    assert list(steps) == ["addresses", "UDP", "TCP", "WebTransport", "WebSocket", "verdict"]
    assert steps["addresses"][1] == "127.0.0.1"
    assert steps["UDP"][1] == f"127.0.0.1 port {live_relay.port} speaks QUIC"
    for carrier in ("WebTransport", "WebSocket"):
        assert f" 0 of {HEARTBEATS} heartbeats lost" in steps[carrier][1]
    assert re.search(r"datagrams of up to 1[0-9]{3} bytes get through$", steps["WebTransport"][1])
    assert steps["verdict"][1] == "clients get through by WebTransport and by WebSocket"


def test_a_refusal_is_told_with_its_reason_by_both_carriers(check, live_relay):
    status, steps, _ = check("--cert-hash", live_relay.hash, f"{live_relay.url.rstrip('/')}/room/LAB")
    assert status == 1
    for carrier in ("WebTransport", "WebSocket"):
        assert "the server answered HTTP status 400: 'LAB' is no room" in steps[carrier][1]


def test_it_takes_no_address(check, fresh_relay):
    assert check("--cert-hash", fresh_relay.hash, fresh_relay.url)[0] == 0
    fresh_relay.stop()
    assert "joined" not in fresh_relay.output
    assert "10.0.2.10" not in fresh_relay.output


def test_json_says_the_same(capsys, live_relay):
    assert main.main(["netcheck", "--json", "--insecure", live_relay.url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reached"] is True
    assert told["verdict"] == "clients get through by WebTransport and by WebSocket"
    assert told["steps"]["TCP"]["ok"] is True


def test_a_certificate_that_is_not_trusted_is_named(check, live_relay):
    status, steps, _ = check("--cert-hash", "00" * 32, live_relay.url)
    assert status == 1
    assert not steps["WebTransport"][0]
    assert steps["WebSocket"] == (False, f"127.0.0.1:{live_relay.port}: the certificate has another hash")
    status, steps, _ = check(live_relay.url)
    assert status == 1
    assert "self-signed certificate" in steps["WebSocket"][1]
    assert steps["verdict"] == (False, "somebody answers, but gives no session: see above")


def test_a_firewall_that_eats_udp_is_told(check, live_relay):
    with tcp_only(live_relay.port) as port:
        status, steps, _ = check("--cert-hash", live_relay.hash, f"https://127.0.0.1:{port}/")
    assert status == 0
    assert not steps["UDP"][0]
    assert not steps["WebTransport"][0]
    assert steps["WebSocket"][0]
    assert steps["verdict"] == (
        True,
        f"clients get through by WebSocket only: a firewall on the way eats UDP port {port}",
    )


def test_a_relay_without_websocket_is_told(check):
    relay = Relay("--web", "off")
    status, steps, _ = check("--cert-hash", relay.hash, relay.url)
    relay.stop()
    assert status == 0
    assert steps["TCP"] == (False, "127.0.0.1: Connection refused")
    assert "WebSocket" not in steps
    assert steps["verdict"] == (
        True,
        "clients get through by WebTransport only; some know nothing but WebSocket",
    )


def test_nobody_there_is_told(check):
    status, steps, _ = check("--insecure", f"https://127.0.0.1:{free_port()}/")
    assert status == 1
    assert steps["verdict"] == (False, "nobody answers: no relay is there, or a firewall eats UDP and TCP")


def test_a_name_without_address_is_told(check):
    status, steps, _ = check("--insecure", "https://nowhere.invalid/")
    assert status == 1
    assert list(steps) == ["addresses", "verdict"]
    assert steps["verdict"] == (False, "the name has no address")


def test_another_server_is_told(check):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            for _ in ("the probe", "the session"):
                server.accept()[0].close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        status, steps, _ = check("--insecure", f"https://127.0.0.1:{server.getsockname()[1]}/")
        hanging_up.join()
    assert status == 1
    assert steps["TCP"][0]
    assert not steps["WebSocket"][0]
    assert steps["verdict"] == (False, "somebody answers, but gives no session: see above")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--insecure", "https://127.0.0.1:9/?encap=raw"], "raw sessions have no heartbeats"),
        (["--insecure", "https://127.0.0.1:9/room/a/raw"], "raw sessions have no heartbeats"),
        (["--ca", "/nonexistent.pem", "https://127.0.0.1:9/"], "/nonexistent.pem"),
    ],
)
def test_wrong_arguments_are_one_line(check, arguments, said):
    status, _, error = check(*arguments)
    assert status == 2
    assert said in error
    assert error.count("\n") == 1


class Lossy:
    """A session that loses every other heartbeat."""

    def __init__(self):
        self.sent = 0
        self._answers = asyncio.Queue()

    async def send(self, datagram):
        assert datagram == HEARTBEAT
        self.sent += 1
        if self.sent % 2:
            self._answers.put_nowait(b'\x00{"type":"HeartbeatAck"}')

    async def receive(self):
        return [await self._answers.get()]


def test_what_is_lost_is_counted(monkeypatch):
    monkeypatch.setattr("relay.netcheck.ANSWERED_WITHIN", 0.01)
    session: Any = Lossy()
    times = asyncio.run(_measure(session))
    assert session.sent == HEARTBEATS
    assert len(times) == HEARTBEATS // 2


def test_what_a_server_says_steers_no_terminal(capsys):
    # As the reason of a WebSocket's close, or a header of an answer that is none.
    _say(Step("WebSocket", ok=False, said="received 1008 (policy violation) \x1b[2J\x1b]0;x\x07\nverdict ok"))
    assert capsys.readouterr().out == (
        "WebSocket     no  received 1008 (policy violation) \\x1b[2J\\x1b]0;x\\x07\\nverdict ok\n"
    )

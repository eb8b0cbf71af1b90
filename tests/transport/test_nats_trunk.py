"""Messages between workers of different machines, by way of a real NATS server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from itertools import count
from pathlib import Path
from urllib.parse import urlparse

import nats
import pytest
from nats.aio.client import Srv
from waiting import until

from actors.runtime import current_scheduler
from netstack.counters import Counters
from transport.trunk import nats_trunk
from transport.trunk.nats_servers import NatsServers
from transport.trunk.nats_trunk import MAX_QUEUED, MOST_LEARNT, NatsTrunk

SERVER = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
_ports = count(20_000 + os.getpid() * 8 % 10_000)


def free_port():
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            return port


class Worker:
    def __init__(
        self,
        port,
        number,
        *,
        near=(),
        key=b"key",
        more_ports=(),
        credentials=None,
        login="",
        scheme="nats",
        more_urls=(),
    ):
        self.heard = []
        self.counters = Counters()
        urls = *(f"{scheme}://{login}127.0.0.1:{each}" for each in (port, *more_ports)), *more_urls
        self.trunk = NatsTrunk(
            NatsServers(urls, "test", key, credentials),
            number,
            is_here=lambda worker: worker in near,
            on_message=self.heard.append,
            turns=current_scheduler(),
            counters=self.counters,
        )


class Scene:
    """A server, or another besides, and workers around it."""

    def __init__(self):
        self.port = free_port()
        self.servers = {}
        self._workers = []

    async def __aenter__(self):
        await self.start_server()
        return self

    async def __aexit__(self, *_):
        for worker in self._workers:
            await worker.trunk.close()
        for port in self.servers:
            await self.stop_server(port)

    async def start_server(self, port=None):
        port = port or self.port
        words = ("-a", "127.0.0.1", "-p", str(port))
        server = await asyncio.create_subprocess_exec(SERVER, *words, stderr=asyncio.subprocess.PIPE)
        self.servers[port] = server
        while b"Server is ready" not in await server.stderr.readline():
            assert server.returncode is None

    async def start_another(self):
        port = free_port()
        await self.start_server(port)
        return port

    async def stop_server(self, port=None):
        server = self.servers[port or self.port]
        if server.returncode is None:
            server.kill()
        await server.communicate()

    async def workers(self, *numbers, port=None, **more):
        made = [Worker(port or self.port, number, **more) for number in numbers]
        self._workers += made
        for worker in made:
            await until(lambda worker=worker: worker.trunk.is_connected)
        await asyncio.sleep(0.1)  # nothing tells when a server has taken a subscription up
        return made


GREETING = (
    b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true,"nonce":"abc"}\r\n'
)


class ScriptedServer:
    """A server that greets as it is told, takes any credentials, and reads only as long as it is told to."""

    def __init__(self):
        self.greeting = GREETING
        self.reads = True
        self.clients = []
        self.heard = bytearray()
        self.port = 0
        self._serving = []

    async def __aenter__(self):
        await self.starts()
        return self

    async def starts(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_):
        self.ends()
        await asyncio.gather(*self._serving)

    def ends(self):
        self._server.close()
        for client in self.clients:
            client.transport.abort()

    def names(self, other):
        """Have the greeting name another server, as those of a cluster do."""
        known = b'"connect_urls":["127.0.0.1:%d"]' % other.port
        self.greeting = GREETING.replace(b'"nonce"', known + b',"nonce"')

    async def _serve(self, reader, writer):
        self.clients.append(writer)
        self._serving.append(asyncio.current_task())
        writer.write(self.greeting)
        with contextlib.suppress(OSError):
            while heard := await reader.read(65536):
                self.heard += heard
                if pings := heard.count(b"PING\r\n"):
                    writer.write(b"PONG\r\n" * pings)
                    if not self.reads:
                        break


def play(scenario, surroundings=Scene):
    async def bounded():
        async with asyncio.timeout(60), surroundings() as scene:
            await scenario(scene)

    asyncio.run(bounded())


def test_a_message_is_for_one_or_for_all_others():
    async def scenario(scene):
        one, two, three = await scene.workers(1, 2, 3)
        one.trunk.send(2, b"for two")
        one.trunk.send(None, b"for all")
        await until(lambda: len(two.heard) == 2 and three.heard)
        assert two.heard == [b"for two", b"for all"]
        assert three.heard == [b"for all"]
        assert one.heard == []
        assert one.counters["trunk.sent"] == two.counters["trunk.received"] == 2
        assert three.counters["trunk.received"] == 1

    play(scenario)


def test_who_joins_is_counted_and_who_closes_leaves_the_server():
    async def scenario(scene):
        (one,) = await scene.workers(1)
        await until(lambda: one.counters["trunk.nats_connects"] == 1)
        assert one.counters["trunk.nats_errors"] == 0
        await one.trunk.close()
        assert not one.trunk.is_connected

    play(scenario)


def test_what_another_way_leads_to_is_not_sent():
    async def scenario(scene):
        (one,), (two,) = await scene.workers(1, near={2}), await scene.workers(2)
        one.trunk.send(2, b"near")
        one.trunk.send(None, b"for all")
        await until(lambda: two.heard)
        assert two.heard == [b"for all"]

    play(scenario)


def test_what_strangers_publish_is_dropped():
    async def scenario(scene):
        (one,), (stranger,) = await scene.workers(1), await scene.workers(2, key=b"other")
        stranger.trunk.send(1, b"hello")
        async with await nats.connect(f"nats://127.0.0.1:{scene.port}") as client:
            for message in (b"", b"short", bytes(100)):
                await client.publish("test.w.1", message)
        await until(lambda: one.counters["trunk.drop.not_of_the_cluster"] == 4)
        assert one.heard == []

    play(scenario)


def test_without_a_server_messages_are_dropped_and_with_one_they_go_again(monkeypatch):
    monkeypatch.setattr(nats_trunk, "RETRY_AFTER", 0.05)

    async def scenario(scene):
        one, two = await scene.workers(1, 2)
        await scene.stop_server()
        await until(lambda: not one.trunk.is_connected)
        one.trunk.send(2, b"lost")
        assert one.counters["trunk.drop.no_nats_server"] == 1
        await scene.start_server()

        def arrives():
            one.trunk.send(2, b"again")
            return two.heard

        await until(arrives, every=0.1)
        assert b"lost" not in two.heard

    play(scenario)


def test_a_server_that_stands_still_costs_bounded_memory():
    async def scenario(scene):
        (one,) = await scene.workers(1)
        os.kill(scene.servers[scene.port].pid, signal.SIGSTOP)
        message = bytes(60_000)
        while not one.counters["trunk.drop.queue_full"]:
            for _ in range(50):
                one.trunk.send(2, message)
            await asyncio.sleep(0)
            assert one.counters["trunk.sent"] < 4 * MAX_QUEUED / len(message)
        os.kill(scene.servers[scene.port].pid, signal.SIGCONT)

    play(scenario)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def fill(worker):
    """Send until nothing more fits anywhere on the way to the server."""
    while not worker.counters["trunk.drop.queue_full"]:
        for _ in range(50):
            worker.trunk.send(2, bytes(60_000))
        await asyncio.sleep(0)


# The client forgets connections on which the server has said nothing.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_server_that_stands_still_is_left_for_another(monkeypatch):
    monkeypatch.setattr(nats_trunk, "PING_EVERY", 0.3)
    monkeypatch.setattr(nats_trunk, "LOOK_EVERY", 0.05)

    async def scenario(scene):
        other = await scene.start_another()
        (one,) = await scene.workers(1, more_ports=(other,))
        used = one.trunk._client.connected_url.port
        os.kill(scene.servers[used].pid, signal.SIGSTOP)
        await fill(one)
        await until(lambda: one.counters["trunk.nats_connects"] == 2)
        assert one.counters["trunk.nats_disconnects"] == 1
        assert one.counters["trunk.nats_errors"]
        (two,) = await scene.workers(2, port=other if used == scene.port else scene.port)

        def arrives():
            one.trunk.send(2, b"again")
            return b"again" in two.heard

        await until(arrives, every=0.1)

    play(scenario)


@pytest.mark.parametrize("noticed", [False, True])
def test_the_end_waits_for_no_server_that_stands_still(monkeypatch, noticed):
    if noticed:
        monkeypatch.setattr(nats_trunk, "PING_EVERY", 0.3)
        monkeypatch.setattr(nats_trunk, "LOOK_EVERY", 60)

    async def scenario(scene):
        before = open_descriptors()
        (one,) = await scene.workers(1)
        os.kill(scene.servers[scene.port].pid, signal.SIGSTOP)
        await fill(one)
        if noticed:
            await until(lambda: not one.trunk.is_connected)
        async with asyncio.timeout(20):
            await one.trunk.close()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await until(lambda: open_descriptors() == before)

    play(scenario)


@pytest.mark.parametrize("ends", [False, True])
def test_messages_go_again_after_the_server_has_refused_a_client_that_waits_for_it(ends):
    async def scenario(server):
        server.reads = False
        one = Worker(server.port, 1)
        await until(lambda: one.trunk.is_connected)
        await fill(one)
        server.reads = True
        server.clients[0].write(b"-ERR 'User Authentication Expired'\r\n")
        await until(lambda: not one.trunk.is_connected)
        if ends:
            server.clients[0].transport.abort()

        def arrives():
            one.trunk.send(2, b"again")
            return b"again" in server.heard

        await until(arrives, every=0.1)
        assert one.counters["trunk.nats_errors"], "why it was refused is told"
        await one.trunk.close()

    play(scenario, ScriptedServer)


JWT = "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n"
SEED = """\
-----BEGIN USER NKEY SEED-----
SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y
------END USER NKEY SEED------
"""


@pytest.mark.parametrize("content", ["", "garbage\n", JWT, SEED, JWT + SEED.replace("SU", "XX")])
def test_wrong_credentials_are_told_until_there_are_right_ones(monkeypatch, tmp_path, content):
    monkeypatch.setattr(nats_trunk, "RETRY_AFTER", 0.05)

    async def scenario(server):
        file = tmp_path / "relay.creds"
        file.write_text(content)
        one = Worker(server.port, 1, credentials=file)
        await until(lambda: one.counters["trunk.nats_errors"] >= 2)
        file.write_text(JWT + SEED)
        await until(lambda: one.counters["trunk.nats_connects"])
        assert b'"jwt": "eyJ0.eyJq.c2ln"' in server.heard
        assert b'"sig": ' in server.heard
        await one.trunk.close()

    play(scenario, ScriptedServer)


def test_a_server_that_another_has_named_is_used_with_the_same_login_and_by_later_clients_too(monkeypatch):
    monkeypatch.setattr(nats_trunk, "RETRY_AFTER", 0.05)
    monkeypatch.setattr(nats_trunk, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(nats_trunk, "GIVEN_UP_AFTER", 2)

    async def scenario(server):
        async with ScriptedServer() as other:
            server.names(other)
            one = Worker(server.port, 1, login="me:secret@")
            await until(lambda: one.trunk.is_connected)
            first = one.trunk._client
            server.ends()
            await until(lambda: one.counters["trunk.nats_connects"] == 2)
            assert b'"pass": "secret"' in other.heard
            other.ends()
            await until(lambda: one.trunk._client not in (first, None))
            await other.starts()
            await until(lambda: one.trunk.is_connected)
            await one.trunk.close()

    play(scenario, ScriptedServer)


@pytest.mark.parametrize("more_urls", [(), ("nats://127.0.0.1:1",)], ids=["of all", "of one"])
def test_a_login_is_written_as_urls_have_it_and_told_to_nobody_else(more_urls, lines):
    async def scenario(server):
        one = Worker(server.port, 1, login="m%65:%2Fp%40s%2Cs@", more_urls=more_urls)
        await until(lambda: one.counters["trunk.nats_connects"])
        assert b'"pass": "/p@s,s"' in server.heard
        assert b'"user": "me"' in server.heard
        assert lines[-1] == f"INFO joined the cluster at nats://127.0.0.1:{server.port}"
        await one.trunk.close()

    play(scenario, ScriptedServer)


@pytest.mark.parametrize(
    ("offers", "begins"),
    [(b"", b""), (b'"tls_available":true,', b"\x16\x03"), (b'"tls_required":true,', b"\x16\x03")],
    ids=["none", "if wanted", "only"],
)
def test_a_server_whose_url_says_tls_hears_nothing_else(lines, offers, begins):
    async def scenario(server):
        server.greeting = GREETING.replace(b'"nonce"', offers + b'"nonce"')
        one = Worker(server.port, 1, login="me:secret@", scheme="tls")
        await until(lambda: server.heard or any("the server has no TLS" in line for line in lines))
        assert server.heard[:2] == begins, "what begins a handshake (RFC 8446 section 5.1)"
        assert b"secret" not in server.heard
        assert not one.trunk.is_connected
        await one.trunk.close()

    play(scenario, ScriptedServer)


def test_a_server_that_takes_no_messages_of_our_length_is_told_of(lines):
    async def scenario(server):
        server.greeting = GREETING.replace(b"1048576", b"1000")
        one = Worker(server.port, 1)
        await until(lambda: one.trunk.is_connected)
        one.trunk.send(2, bytes(1000))
        one.trunk.send(2, b"short")
        await until(lambda: b"short" in server.heard)
        assert one.counters["trunk.drop.too_long"] == 1
        assert any("maximum payload exceeded" in line for line in lines)
        await one.trunk.close()

    play(scenario, ScriptedServer)


def test_servers_that_are_gone_for_good_keep_nobody_from_the_configured_one(monkeypatch):
    monkeypatch.setattr(nats_trunk, "RETRY_AFTER", 0.05)
    attempts = []
    monkeypatch.setattr(nats_trunk.NatsTrunk, "_use", lambda _, client: use(client))

    async def use(client):
        attempts.append([server.uri.port for server in client._server_pool])
        if len(attempts) == 1:
            client._server_pool += [Srv(urlparse(f"nats://h:{port}"), discovered=True) for port in range(99)]
        raise OSError

    async def scenario(_):
        one = Worker(1, 1)
        await until(lambda: len(attempts) == 4)
        await one.trunk.close()

    play(scenario, ScriptedServer)
    assert attempts[:4] == [[], list(range(MOST_LEARNT)), [], list(range(MOST_LEARNT))]


def test_a_client_that_does_not_try_on_by_itself_is_replaced(monkeypatch):
    monkeypatch.setattr(nats_trunk, "GIVEN_UP_AFTER", 3)
    monkeypatch.setattr(nats_trunk, "LOOK_EVERY", 0.05)

    async def scenario(server):
        one = Worker(server.port, 1)
        await until(lambda: one.trunk.is_connected)
        server.greeting = b"INFO " + bytes(100_000)  # a longer line than the client reads
        server.clients[0].transport.abort()
        await until(lambda: len(server.clients) == 2)
        server.greeting = GREETING
        await until(lambda: one.counters["trunk.nats_connects"] == 2)
        await one.trunk.close()

    play(scenario, ScriptedServer)


def test_the_last_messages_arrive_before_the_end():
    async def scenario(scene):
        (two,) = await scene.workers(2)
        last = Worker(scene.port, 1)
        await until(lambda: last.trunk.is_connected)
        for number in range(100):
            last.trunk.send(2, bytes((number,)))
        await last.trunk.close()
        await until(lambda: len(two.heard) == 100)

    play(scenario)


@pytest.mark.parametrize("size", [0, 60_000])
def test_messages_of_every_length_arrive_as_they_are(size):
    async def scenario(scene):
        one, two = await scene.workers(1, 2)
        one.trunk.send(2, bytes(range(256)) * (size // 256))
        await until(lambda: two.heard)
        assert two.heard == [bytes(range(256)) * (size // 256)]

    play(scenario)

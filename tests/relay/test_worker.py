"""A worker in this process, and the test as its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import InvalidStatus

from guest.client import ConnectError, SessionEndedError, connect
from guest.target import Trust
from netstack.counters import Counters
from netstack.room_state import RoomState
from netstack.room_wire import Binding, Kind
from relay import forward_changes, logs, worker
from relay.logs import Limiter
from relay.settings import Settings
from relay.supervisor.asking import Question, ask
from relay.supervisor.ports import Ports
from relay.tokens import make_key, public_half, sign
from relay.trunk import KIND_AT
from relay.worker import WorkerRelay
from relay.workers import handed as handing
from relay.workers.channel import Channel
from relay.workers.handed import Handed
from relay.workers.place import Place
from transport.certificates import EphemeralCertificateStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")

PATIENCE = 20
SETTINGS = Settings(bind="127.0.0.1", port=0, cert_poll_interval=0.1)


class Working:
    """The second of two workers, or another; no other is there."""

    def __init__(self, ports, folder, settings=SETTINGS, *, number=1, state=None, **start):
        self.certificates = EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC))
        self.port = ports.port
        self.ports = ports
        place = Place(number, 2, folder, bytes(32))
        udp, tcp = (tuple(opened.dup() for opened in found) for found in (ports.of(number), ports.tcp))
        handed = Handed(place, udp, tcp, bytes(32), bytes(32), first_port=20, state=state)
        self.place = place
        self._start = {
            "settings": handing.pack_settings(settings),
            "certificates": handing.pack_certificates(self.certificates),
            "bans": [],
            "revoked": [],
            "forwards": [],
            "draining": False,
            "live": [1],
            "accepting": [1],
        } | start
        self._handed = handed

    async def begin(self):
        own, its = socket.socketpair()
        self.channel, there = await Channel.open(own), await Channel.open(its)
        self._theirs = there
        self.ports.steer([1])
        self.task = asyncio.create_task(WorkerRelay(self._start, self._handed, there).run(Limiter()))

    async def told(self, kind):
        """Wait for a message of a kind."""
        while (message := await self.channel.receive())["kind"] != kind:
            pass
        return message

    async def join(self, token=""):
        trust = Trust(certificate_hash=bytes.fromhex(self.certificates.current.sha256))
        return await connect(f"https://127.0.0.1:{self.port}/", trust, token=token)

    def tell_state(self, **changed):
        """Tell what operators have changed since it was started."""
        state = {name: self._start[name] for name in ("settings", "revoked", "forwards", "bans", "draining")}
        certificates = handing.pack_certificates(self.certificates)
        self.channel.send("state", **state | {"certificates": certificates} | changed)

    async def end(self):
        with contextlib.suppress(Exception):
            self.channel.send("stop")
        status = await self.task
        self.channel.close()
        self._theirs.close()
        return status


async def until_ended(client):
    while True:
        await client.receive()


@pytest.fixture(autouse=True)
def _logs_as_they_are(monkeypatch):
    """In a process of its own a worker sends its log elsewhere, and has it follow the settings."""
    monkeypatch.setattr(logs, "set_level", lambda *_: None)


def play(scenario, *, beside=lambda _: contextlib.nullcontext(), **start):
    """Play with one worker; ``beside`` makes what is there before it, in the folder of their sockets."""

    async def bounded():
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.closing(Ports("127.0.0.1", 0, 2, web=True)) as ports,
            beside(Path(folder)),
        ):
            working = Working(ports, Path(folder), **start)
            await working.begin()
            async with asyncio.timeout(PATIENCE):
                try:
                    await working.told("ready")
                    await scenario(working)
                finally:
                    status = await working.end()
            assert status == 0

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(bounded())
        assert list(folder.iterdir()) == [], "its sockets are gone"


class SlowSibling:
    """Another worker, which has a guest in a room, and takes its time to say so."""

    def __init__(self, folder, *, answers):
        self._answers = answers
        self.has_told = False
        state = self._state = RoomState(0, 7, Counters())
        state.bind("default", Binding(bytes.fromhex("525400000001")), 0)
        state.take_outgoing()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "trunk-0"))
        self._socket.setblocking(False)
        self._other = str(folder / "trunk-1")
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        loop = asyncio.get_running_loop()
        while True:
            message = await loop.sock_recv(self._socket, 65536)
            if self._answers:
                await asyncio.sleep(0.2)
                self._state.receive(message, loop.time())
                for said in self._state.take_outgoing():
                    self._socket.sendto(said.message, self._other)
                    self.has_told = self.has_told or said.message[KIND_AT] == Kind.SNAPSHOT

    def close(self):
        self._reading.cancel()
        self._socket.close()


@pytest.mark.parametrize("answers", [True, False])
def test_it_is_ready_once_it_knows_whom_the_others_have_or_they_do_not_say(monkeypatch, answers):
    monkeypatch.setattr(worker, "KNOWN_WITHIN", 60 if answers else 0.1)
    siblings = []

    def beside(folder):
        siblings.append(SlowSibling(folder, answers=answers))
        return contextlib.closing(siblings[0])

    async def scenario(_):
        assert siblings[0].has_told == answers

    play(scenario, beside=beside, live=[0], accepting=[0])


@pytest.mark.parametrize("number", [0, 1])
def test_forwards_are_those_that_it_is_told_whatever_is_kept(tmp_path, number):
    change = {"room": "default", "forward": "udp:127.0.0.1:9:web:80", "change": "added"}
    (tmp_path / forward_changes.FILE).write_text(json.dumps([change]))

    async def scenario(working):
        [room] = (await ask(working.place.admin_socket, Question("GET", "/v1/rooms"))).json()
        assert room["forwards"] == 0

    play(scenario, number=number, state=tmp_path)


def test_it_serves_on_the_sockets_that_it_was_handed_and_says_that_it_lives():
    async def scenario(working):
        client = await working.join()
        told = await working.told("beat")
        while not told["sessions"]:
            told = await working.told("beat")
        assert (told["sessions"], told["last_port"]) == (1, 20)
        async with websocket(f"ws://127.0.0.1:{working.port}/"):
            answer = await ask(working.place.admin_socket, Question("GET", "/v1/peers"))
            assert [peer["port"] for peer in answer.json()] == [20, 22], "numbers that no other worker gives"
        client.close()

    play(scenario)


def test_bans_and_draining_hold_from_the_start():
    async def banned(working):
        with pytest.raises(InvalidStatus) as refusal:
            await websocket(f"ws://127.0.0.1:{working.port}/").__aenter__()
        assert refusal.value.response.status_code == 403

    async def draining(working):
        with pytest.raises(ConnectError):
            await working.join()

    play(banned, bans=[("address", "127.0.0.1/32", math.inf, "")])
    play(draining, draining=True)


def test_a_certificate_that_is_handed_over_is_shown_to_newcomers():
    async def scenario(working):
        before = await working.join()
        working.certificates = EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC))
        working.channel.send("certificates", certificates=handing.pack_certificates(working.certificates))
        working.channel.send("reload", settings=handing.pack_settings(SETTINGS))
        await working.told("reloaded")
        after = await working.join()
        assert before.end is None
        for client in (before, after):
            client.close()

    play(scenario)


def test_settings_that_are_handed_over_hold(lines):
    async def scenario(working):
        settings = Settings(bind="127.0.0.1", port=0, create_rooms="listed")
        working.channel.send("no such thing")
        working.channel.send("reload", settings="broken")
        working.channel.send("reload", settings=handing.pack_settings(settings))
        await working.told("reloaded")
        with pytest.raises(InvalidStatus):
            await websocket(f"ws://127.0.0.1:{working.port}/room/lab").__aenter__()

    play(scenario)
    assert any("the supervisor's reload is not understood" in line for line in lines)


def test_what_operators_changed_while_it_started_holds():
    async def scenario(working):
        working.tell_state(draining=False, bans=[("mac", "52:54:00:00:00:09", math.inf, "")])
        working.channel.send("reload", settings=handing.pack_settings(SETTINGS))
        await working.told("reloaded")
        answer = await ask(working.place.admin_socket, Question("GET", "/v1/bans"))
        assert [ban["what"] for ban in answer.json()] == ["52:54:00:00:00:09"], "the one before is lifted"
        client = await working.join()
        client.close()

    play(scenario, bans=[("address", "127.0.0.1/32", math.inf, "")], draining=True)


def test_a_token_that_was_revoked_while_it_started_lets_nobody_in_and_ends_sessions(tmp_path):
    key, keys = make_key("EdDSA"), tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [public_half(key)]}))
    token = sign(key, {"exp": time.time() + 3600, "jti": "t1"})

    async def scenario(working):
        client = await working.join(token)
        working.tell_state(revoked=["t1"])
        with pytest.raises(SessionEndedError, match="revoked"):
            await until_ended(client)
        with pytest.raises(InvalidStatus) as refusal:
            await websocket(f"ws://127.0.0.1:{working.port}/?token={token}").__aenter__()
        assert refusal.value.response.status_code == 401

    # Keys and revoked tokens are not read again meanwhile.
    play(scenario, settings=replace(SETTINGS, auth="required", auth_keys=keys, cert_poll_interval=3600.0))


def test_one_that_retires_tells_its_clients_and_ends():
    async def scenario(working):
        client = await working.join()
        while not (await working.told("beat"))["sessions"]:
            pass
        working.channel.send("retire", seconds=0.1)
        with pytest.raises(SessionEndedError, match="connect again at once"):
            await until_ended(client)
        assert client.close_code == 6
        await working.task

    play(scenario)


def test_it_ends_with_its_supervisor(lines):
    async def scenario(working):
        client = await working.join()
        working.channel.close()
        with pytest.raises(SessionEndedError):
            await until_ended(client)
        await working.task

    play(scenario)
    assert "ERROR the supervisor is gone: this worker ends" in lines

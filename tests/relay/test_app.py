from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pykka
import pytest
from loguru import logger
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import InvalidStatus

from actors.gateway.gateway import GatewayActor
from actors.lan.switch import SwitchActor
from guest.client import ConnectError, connect
from guest.target import Trust
from netstack import control
from netstack.ethernet import ETHERTYPE_ARP
from relay import announcement
from relay.announcement import is_loopback, javascript
from relay.app import Relay, serve
from relay.logs import BURST, Limiter
from relay.room_tables import RoomTables
from relay.settings import Settings, SettingsError, SettingsWithRooms
from relay.starting import StartError
from transport.certificates import CertificateError, EphemeralCertificateStore, generate
from transport.host.outside import HostNetwork

LOCAL = Settings(port=0, bind="127.0.0.1", cert_poll_interval=0.1, state="none")
PATIENCE = 20.0


class Started:
    """A relay that runs in this process, as a task."""

    def __init__(self, settings: Settings, certificates: EphemeralCertificateStore) -> None:
        self.certificates = certificates
        self.relay = Relay(settings, certificates)
        self.task = asyncio.create_task(self.relay.run(Limiter()))

    async def port(self, capsys) -> int:
        printed = ""
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(r"^Listening on https://\S+:(\d+)$", printed, re.MULTILINE)):
                await asyncio.sleep(0)
                printed += capsys.readouterr().out
        return int(found[1])

    async def status(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.task

    def stop(self) -> None:
        self.relay._stop.set()


def started(settings: Settings = LOCAL, certificates: EphemeralCertificateStore | None = None) -> Started:
    return Started(settings, certificates or EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC)))


def start_and_stop(capsys) -> None:
    """Have a relay run for a moment."""

    async def scenario():
        running = started()
        await running.port(capsys)
        running.stop()
        await running.status()

    asyncio.run(scenario())


# -- what is printed ----------------------------------------------------------------------------------


def test_javascript_pins_what_browsers_let_it_pin():
    now = datetime(2030, 1, 1, tzinfo=UTC)
    certificate = generate(["relay.example"], now)
    assert javascript("https://[::1]:4433/", certificate) == (
        'var relay = new WebTransport("https://[::1]:4433/", {serverCertificateHashes: '
        '[{algorithm: "sha-256", value: Uint8Array.from("' + certificate.sha256 + '".match(/../g), '
        '(byte) => parseInt(byte, 16))}]}); await relay.ready; console.log("connected");'
    )


def test_javascript_leaves_the_rest_to_the_browser():
    class Chained:
        can_be_pinned = False

    certificate: Any = Chained()
    assert javascript("https://relay.example:4433/", certificate) == (
        'var relay = new WebTransport("https://relay.example:4433/"); '
        'await relay.ready; console.log("connected");'
    )


@pytest.mark.parametrize(
    ("bind", "reached"),
    [("::", "localhost"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")],
)
def test_addresses_are_printed_so_that_they_can_be_used(capsys, bind, reached):
    async def scenario():
        running = started(Settings(port=0, bind=bind))
        async with asyncio.timeout(PATIENCE):
            printed = ""
            while "var relay" not in printed:
                await asyncio.sleep(0)
                printed += capsys.readouterr().out
        first, second, _, script = printed.splitlines()
        port = second.rpartition(":")[2]
        assert first == f"Certificate SHA-256 Hash: {running.certificates.current.sha256}"
        assert second == f"Listening on https://{reached}:{port}"
        assert f'"https://{reached}:{port}/"' in script
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("found", "reached"), [(["127.0.0.1"], "127.0.0.1"), (OSError(1, "no"), "127.0.0.1")]
)
def test_where_this_machine_has_no_ipv6_loopback_the_printed_url_does_without(monkeypatch, found, reached):
    def interfaces():
        if isinstance(found, OSError):
            raise found
        return frozenset(found)

    monkeypatch.setattr(announcement, "interface_addresses", interfaces)
    assert announcement.reached_at("::") == reached


@pytest.mark.parametrize(
    ("whole", "lab", "told"),
    [(10.0, 150.0, "10"), (150.0, 15.0, "15"), (45.0, 45.0, ""), (150.0, 150.0, "")],
)
def test_a_timeout_that_clients_of_idle_guests_cannot_keep_is_a_warning(lines, whole, lab, told):
    tables = RoomTables(named={"lab": {"peer_timeout": lab}})
    announcement.describe(SettingsWithRooms(peer_timeout=whole, tables=tables))
    warned = [line for line in lines if line.startswith("WARNING --peer-timeout ")]
    assert [line.split()[2] for line in warned] == ([f"{told}:"] if told else [])


class Certified:
    """A certificate of an authority."""

    sha256 = 64 * "5"
    can_be_pinned = False

    def __init__(self, *names):
        self.names = frozenset(names)


@pytest.mark.parametrize(
    ("names", "bind", "shown"),
    [
        (["relay.example", "192.0.2.7"], "::", ["relay.example"]),
        (["relay.example", "192.0.2.7"], "127.0.0.1", ["relay.example"]),
        (["www.example", "*.example", "relay.example"], "192.0.2.7", ["relay.example", "www.example"]),
        (["2001:db8::7", "192.0.2.7"], "0.0.0.0", ["192.0.2.7", "[2001:db8::7]"]),
        (["localhost", "relay.example"], "::", ["localhost"]),
        (["relay.example", "::1"], "::1", ["[::1]"]),
        (["*.example"], "127.0.0.1", ["127.0.0.1"]),
        ([], "127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_what_is_to_be_pasted_is_for_a_host_that_the_certificate_names(
    monkeypatch, lines, names, bind, shown
):
    monkeypatch.setattr(announcement, "interface_addresses", lambda: frozenset({"127.0.0.1", "::1"}))
    said = []
    certificate: Any = Certified(*names)
    announcement.announce(said.append, bind, 4433, certificate)
    *_, hint, script = said
    here = announcement.reached_at(bind)
    assert said[1] == f"Listening on https://{here}:4433"
    assert f'new WebTransport("https://{shown[0]}:4433/")' in script
    assert (f"the page at https://{shown[0]}:4433/:" in hint) == (shown[0] != here)
    if shown[0] != here:
        assert " ".join(f"https://{host}:4433" for host in shown) in " ".join(lines)


# -- wiring -------------------------------------------------------------------------------------------


def test_a_frame_of_a_client_reaches_the_gateway_and_its_answer_comes_back(capsys):
    async def scenario():
        running = started()
        trust = Trust(certificate_hash=bytes.fromhex(running.certificates.current.sha256))
        client = await connect(f"https://127.0.0.1:{await running.port(capsys)}/?encap=raw", trust)
        mac = bytes.fromhex("525400000001")
        question = bytes.fromhex("0001080006040001") + mac + bytes(4) + bytes(6) + bytes((10, 0, 2, 2))
        client.send([b"\xff" * 6 + mac + ETHERTYPE_ARP + question])
        async with asyncio.timeout(PATIENCE):
            [answer] = await client.receive()
        assert answer[:12] == mac + bytes.fromhex("525400123456")
        client.close()
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())


def test_a_websocket_client_is_a_guest_like_any_other(capsys):
    async def scenario():
        running = started()
        port = await running.port(capsys)
        async with websocket(f"ws://127.0.0.1:{port}/", proxy=None) as client:
            await client.send(b'\0{"type":"Register","mac":[82,84,0,0,0,7]}')
            async with asyncio.timeout(PATIENCE):
                assigned = await client.recv(decode=False)
        assert assigned.startswith(b'\0{"type":"Assigned","ip":[10,0,2,')
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())


@pytest.fixture
def joined():
    """The rooms of sessions that joined, as the log says it."""
    rooms = []
    number = logger.add(
        lambda message: rooms.append(message.record["extra"]["room"]),
        filter=lambda record: record["extra"].get("event") == "joined",
    )
    yield rooms
    logger.remove(number)


def test_rooms_are_lans_of_their_own_on_both_carriers(capsys, lines, joined):
    async def assigned(client):
        await client.send(b'\0{"type":"Register","mac":[82,84,0,0,0,7]}')
        async with asyncio.timeout(PATIENCE):
            return json.loads((await client.recv())[1:])

    async def scenario():
        running = started()
        port = await running.port(capsys)
        trust = Trust(certificate_hash=bytes.fromhex(running.certificates.current.sha256))
        here, there, by_query = (
            websocket(f"ws://127.0.0.1:{port}{path}", proxy=None)
            for path in ("/", "/room/lab", "/?room=other")
        )
        async with here as one, there as two, by_query as three:
            # The same MAC three times: in one LAN the later ones would be refused.
            found = [await assigned(client) for client in (one, two, three)]
            assert [each["room"] for each in found] == ["default", "lab", "other"]
            assert found[0]["ip"] == found[1]["ip"] == found[2]["ip"]
            raw = await connect(f"https://127.0.0.1:{port}/room/lab/raw", trust)
            mac = bytes.fromhex("525400000009")
            question = bytes.fromhex("0001080006040001") + mac + bytes(10) + bytes((10, 0, 2, 10))
            raw.send([b"\xff" * 6 + mac + ETHERTYPE_ARP + question])
            async with asyncio.timeout(PATIENCE):
                while (heard := await two.recv())[0] == 0:
                    pass  # Assigned, again
            assert heard == b"\1" + b"\xff" * 6 + mac + ETHERTYPE_ARP + question
            for client in (one, three):
                await client.send(b'\0{"type":"Heartbeat"}')
                async with asyncio.timeout(PATIENCE):
                    while (said := await client.recv()) != control.HEARTBEAT_ACK:
                        assert said[:1] == b"\0"
            raw.close()
            running.relay._log_counters()
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())
    assert set(joined) == {"default", "lab", "other"}
    for room in ("default", "lab", "other"):
        assert any(line.startswith(f"INFO counters of room {room}:") for line in lines)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/elsewhere", 404), ("/room/lab/x", 404), ("/room/Lab", 400), ("/?room=a&room=b", 400)],
)
def test_where_no_room_can_be_both_carriers_say_the_same(capsys, path, status):
    async def scenario():
        running = started()
        port = await running.port(capsys)
        trust = Trust(certificate_hash=bytes.fromhex(running.certificates.current.sha256))
        with pytest.raises(ConnectError, match=str(status)):
            await connect(f"https://127.0.0.1:{port}{path}", trust)
        with pytest.raises(InvalidStatus) as refused:
            await websocket(f"ws://127.0.0.1:{port}{path}", proxy=None)
        assert refused.value.response.status_code == status
        assert len(running.relay._lans) == 1
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())


def test_a_taken_tcp_port_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(port=port, bind="127.0.0.1")
        with pytest.raises(StartError) as refused:
            asyncio.run(Relay(settings, EphemeralCertificateStore([], datetime.now(UTC))).run(Limiter()))
        said = (
            f"cannot listen on 127.0.0.1 TCP port {port}: Address already in use (--web off does without it)"
        )
        assert str(refused.value) == said


def test_without_web_nothing_listens_on_tcp(capsys):
    async def scenario():
        running = started(Settings(port=0, bind="127.0.0.1", web="off"))
        port = await running.port(capsys)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_plain_http_is_for_this_machine_only(bind, loopback):
    assert is_loopback(bind) is loopback


def test_the_end_leaves_no_actor_no_task_and_no_socket(capsys):
    async def scenario():
        before = set(pykka.ActorRegistry.get_all())
        running = started()
        port = await running.port(capsys)
        trust = Trust(certificate_hash=bytes.fromhex(running.certificates.current.sha256))
        client = await connect(f"https://127.0.0.1:{port}/?encap=framed", trust)
        running.stop()
        assert await running.status() == 0
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
        assert "relay is shutting down" in client.end
        assert set(pykka.ActorRegistry.get_all()) == before
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert running.relay._lans.default.is_empty
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", port))

    asyncio.run(scenario())


@pytest.mark.parametrize("actor", [SwitchActor, GatewayActor])
def test_without_its_lan_the_relay_ends_with_status_1(capsys, lines, actor):
    async def scenario():
        running = started()
        await running.port(capsys)
        [ref] = pykka.ActorRegistry.get_by_class(actor)
        ref.stop(block=False)
        assert await running.status() == 1

    asyncio.run(scenario())
    assert any(line.startswith("CRITICAL the LAN failed") for line in lines)


@pytest.mark.parametrize("allowed", [True, False])
def test_where_no_ping_is_possible_it_is_said_once(capsys, lines, monkeypatch, allowed):
    monkeypatch.setattr(HostNetwork, "can_ping", allowed)

    start_and_stop(capsys)
    assert sum("guests cannot ping the outside" in line for line in lines) == (not allowed)


def test_the_start_says_which_form_of_the_datagram_path_runs(capsys, lines):
    start_and_stop(capsys)
    assert [line for line in lines if "datagram path" in line] == ["INFO datagram path: pure Python"]


# -- the certificate ----------------------------------------------------------------------------------


def test_an_ephemeral_certificate_is_renewed_and_printed(capsys, lines):
    async def scenario():
        certificates = EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC) - timedelta(days=9))
        first = certificates.current.sha256
        running = started(certificates=certificates)
        async with asyncio.timeout(PATIENCE):
            printed = ""
            while printed.count("Certificate SHA-256 Hash") < 2:
                await asyncio.sleep(0.01)
                printed += capsys.readouterr().out
        assert certificates.current.sha256 != first
        assert printed.endswith(f"Certificate SHA-256 Hash: {certificates.current.sha256}\n")
        running.stop()
        await running.status()

    asyncio.run(scenario())
    assert any("new certificate for new sessions" in line for line in lines)


def test_files_are_read_in_a_thread_and_no_error_ends_the_relay(capsys, lines):
    errors = iter([CertificateError(Path("a.pem"), "half written"), RuntimeError("a surprise")])
    threads = []
    enough = threading.Event()

    class Failing(EphemeralCertificateStore):
        def refresh(self, now, *, force=False):
            threads.append(threading.current_thread())
            error = next(errors, None)
            if error is None:
                enough.set()
                return False
            raise error

    async def scenario():
        running = started(certificates=Failing(["127.0.0.1"], datetime.now(UTC)))
        assert await asyncio.to_thread(enough.wait, PATIENCE)
        running.stop()
        assert await running.status() == 0

    asyncio.run(scenario())
    assert threading.main_thread() not in threads
    assert sum("the certificate stays as it was" in line for line in lines) == 2


def test_a_pair_that_cannot_be_used_is_the_settings_fault(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        serve(Settings(cert_pem=tmp_path / "none", key_pem=tmp_path / "none"))


def test_counters_are_told_however_often_one_asks(fresh_relay):
    """The log sums up what is repeated; what an operator asks for is no repetition."""
    for _ in range(2 * BURST):
        assert fresh_relay.counters() == {}

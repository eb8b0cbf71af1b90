from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from datetime import UTC, datetime
from functools import partial

import pytest
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from endpoint_parts import pinned, running_endpoint
from waiting import until

from guest import client as client_module
from guest.client import ConnectError, SessionEndedError, connect
from guest.client_connection import WEBTRANSPORT_ANNOUNCED
from guest.target import Target, Trust, parse_certificate_hash
from netstack.counters import Counters
from transport.certificates import EphemeralCertificateStore
from transport.quic.udp import ServerUdpSocket

CERTIFICATES = EphemeralCertificateStore(["127.0.0.1", "localhost"], datetime.now(UTC))
PINNED = pinned(CERTIFICATES)


@contextlib.asynccontextmanager
async def relay():
    async with running_endpoint(certificates=CERTIFICATES) as running:
        yield f"{running.url}some/path?encap=raw", running.peers, running.endpoint


class ScriptedServer(QuicConnectionProtocol):
    """An HTTP/3 server that announces ``settings`` and answers with ``status``, and what is ``said``."""

    def __init__(self, *args, settings, status, said, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.status = status
        self.said = said
        self.http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            settings = self.settings

            class Http(H3Connection):
                def _get_local_settings(self):
                    return settings

            self.http = Http(self._quic)
        for http_event in self.http.handle_event(event) if self.http else ():
            if isinstance(http_event, HeadersReceived):
                self._answer(http_event.stream_id)
        self.transmit()

    def _answer(self, stream_id):
        if self.said is None:
            self.http.send_headers(stream_id, [(b":status", self.status)])
            return
        length, pieces, ends = self.said
        self.http.send_headers(stream_id, [(b":status", self.status), (b"content-length", length)])
        for number, piece in enumerate(pieces, 1):
            self.http.send_data(stream_id, piece, ends and number == len(pieces))


@contextlib.asynccontextmanager
async def scripted_server(settings, status=b"200", said=None):
    current = CERTIFICATES.current
    server = await serve(
        "127.0.0.1",
        0,
        configuration=QuicConfiguration(
            alpn_protocols=["h3"],
            is_client=False,
            max_datagram_frame_size=65536,
            certificate=current.leaf,
            certificate_chain=list(current.chain[1:]),
            private_key=current.private_key,
        ),
        create_protocol=partial(ScriptedServer, settings=settings, status=status, said=said),
    )
    try:
        yield f"https://127.0.0.1:{server._transport.get_extra_info('sockname')[1]}/"
    finally:
        server.close()


async def receive(client, count):
    datagrams = []
    while len(datagrams) < count:
        datagrams += await asyncio.wait_for(client.receive(), 10)
    return datagrams


async def refusal(url, trust=PINNED, **options):
    with pytest.raises(ConnectError) as caught:
        await connect(url, trust, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_datagrams_go_both_ways_up_to_the_limit_and_no_further():
    async def scenario():
        counters = Counters()
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED, counters=counters)
            sent = [bytes([n]) * client.datagram_limit for n in range(40)] + [b"", b"short"]
            client.send(sent)
            client.send([bytes(client.datagram_limit + 1)])
            assert await receive(client, len(sent)) == sent
            assert peers[0].datagrams == sent
            assert peers[0].session.path == "/some/path?encap=raw"
            client.close()
        assert dict(counters) == {"client.drop.too_long": 1}

    asyncio.run(scenario())


def test_what_a_turn_brings_is_one_batch():
    async def scenario():
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED)
            peers[0].session.send([b"%d" % n for n in range(20)])
            assert len(await client.receive()) > 1
            client.close()

    asyncio.run(scenario())


def test_the_send_queue_is_bounded_and_every_drop_is_counted():
    async def scenario():
        counters = Counters()
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED, counters=counters)
            client.send([n.to_bytes(2, "big") + bytes(998) for n in range(1000)])
            assert not client.writable
            await asyncio.wait_for(client.wait_writable(), 10)
            client.send([b"last"])
            while b"last" not in (got := await asyncio.wait_for(client.receive(), 10)):
                pass
            assert got[-1] == b"last"
            client.close()
        kept = len(peers[0].datagrams) - 1
        assert kept + counters.total("session.drop.") == 1000
        assert 0 < kept < 300
        assert peers[0].datagrams[-2][:2] == (999).to_bytes(2, "big")

    asyncio.run(scenario())


def test_the_receive_queue_is_bounded_and_drops_the_oldest(monkeypatch):
    monkeypatch.setattr(client_module, "RECEIVE_QUEUE", 5)

    async def scenario():
        counters = Counters()
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED, counters=counters)
            peers[0].session.send([b"%d" % n for n in range(30)])
            await until(lambda: counters["client.drop.receive_queue"] == 25)
            assert await client.receive() == [b"25", b"26", b"27", b"28", b"29"]
            client.close()

    asyncio.run(scenario())


def test_the_server_is_told_why_the_client_leaves_and_gets_what_it_said_before():
    async def scenario():
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED)
            client.send([b"goodbye"])
            client.close(7, "moving on")
            closed = await asyncio.wait_for(peers[0].closed, 10)
            assert peers[0].datagrams == [b"goodbye"]
            assert closed == (7, "moving on")
            client.send([b"too late"])
            client.close()
            with pytest.raises(SessionEndedError, match="moving on"):
                await client.receive()

    asyncio.run(scenario())


def test_the_client_is_told_why_the_server_ends_the_session():
    async def scenario():
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED)
            peers[0].session.close(3, "relay\nshuts down\x1b[2J")
            await asyncio.wait_for(client.wait_closed(), 10)
            with pytest.raises(SessionEndedError, match=r"^relay shuts down \[2J$"):
                await client.receive()
            assert client.end == "relay shuts down [2J"

    asyncio.run(scenario())


def test_a_waiting_receiver_and_sender_wake_when_the_session_ends():
    async def scenario():
        async with relay() as (url, _, endpoint):
            client = await connect(url, PINNED)
            client.send([bytes(1000)] * 300)
            waiting = asyncio.gather(client.wait_writable(), client.wait_closed())
            endpoint.close(0, "over")
            await asyncio.wait_for(waiting, 10)
            assert client.end == "over"

    asyncio.run(scenario())


def test_a_silent_client_is_kept_alive_by_pings():
    async def scenario():
        async with relay() as (url, peers, _):
            client = await connect(url, PINNED, keep_alive=0.05)
            last_heard = peers[0].session.last_heard
            await until(lambda: peers[0].session.last_heard > last_heard + 0.2)
            assert client.end is None
            client.close()

    asyncio.run(scenario())


def move_to_port(endpoint, port):
    """Have the relay vanish without a word: it hears no more, and what it still says comes from ``port``."""
    endpoint._loop.remove_reader(endpoint._socket.fileno())
    endpoint._socket.close()
    endpoint._socket = ServerUdpSocket("127.0.0.1", port, Counters())


def test_a_server_that_falls_silent_is_given_up():
    async def scenario():
        async with relay() as (url, _, endpoint):
            client = await connect(url, PINNED, keep_alive=0.1, idle_timeout=1.0)
            move_to_port(endpoint, endpoint.port)
            await asyncio.wait_for(client.wait_closed(), 30)
            assert client.end == "the server has fallen silent"

    asyncio.run(scenario())


def test_a_server_whose_process_is_gone_is_given_up_before_the_idle_timeout(monkeypatch):
    monkeypatch.setattr(client_module, "REFUSED_GRACE", 0.2)

    async def scenario():
        async with relay() as (url, _, endpoint):
            client = await connect(url, PINNED, keep_alive=0.1, idle_timeout=1000.0)
            listened = endpoint.port
            move_to_port(endpoint, 0)
            await asyncio.wait_for(client.wait_closed(), 30)
            assert client.end == f"127.0.0.1:{listened}: Connection refused"

    asyncio.run(scenario())


def test_certificates_are_accepted_by_hash_by_ca_or_blindly(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CERTIFICATES.current.chain_pem())

    async def scenario():
        async with relay() as (url, _, _):
            by_name = Trust.read(None, str(ca), False)
            for trust in (PINNED, Trust(ca=ca), by_name, Trust(insecure=True)):
                (await connect(url, trust)).close()

    asyncio.run(scenario())


def test_a_certificate_that_is_not_trusted_is_refused_for_good(tmp_path):
    other_ca = tmp_path / "other.pem"
    other_ca.write_bytes(EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC)).current.chain_pem())

    async def scenario():
        async with relay() as (url, peers, _):
            other = Trust.read(f"{'00' * 32},{CERTIFICATES.current.sha256}", None, False)
            (await connect(url, other)).close()
            peers.clear()
            wrong_hash = await refusal(url, Trust(certificate_hash=bytes(32)))
            assert CERTIFICATES.current.sha256 in str(wrong_hash)
            for error in (wrong_hash, await refusal(url, Trust()), await refusal(url, Trust(ca=other_ca))):
                assert error.permanent
                assert str(error).startswith("127.0.0.1:")
            assert peers == []

    asyncio.run(scenario())


def test_a_ca_file_that_is_none_is_named(tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")

    async def scenario():
        for path, reason in ((garbage, "not a PEM file"), (tmp_path / "absent.pem", "No such file")):
            with pytest.raises(ValueError, match=reason) as caught:
                await connect("https://127.0.0.1:9/", Trust(ca=path))
            assert str(path) in str(caught.value)

    asyncio.run(scenario())


def test_nobody_there():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        error = asyncio.run(refusal(f"https://127.0.0.1:{port}/", timeout=0.3))
        assert str(error) == f"127.0.0.1:{port}: no answer within 0.3 s"
        assert not error.permanent
    error = asyncio.run(refusal(f"https://127.0.0.1:{port}/"))
    assert str(error) == f"127.0.0.1:{port}: Connection refused"
    assert not error.permanent


def test_a_host_with_several_addresses_is_tried_until_one_answers():
    async def scenario():
        async with relay() as (_, _, endpoint):
            # ::1 comes first where it exists, and nothing listens there.
            (await connect(f"https://localhost:{endpoint.port}/", PINNED)).close()

    asyncio.run(scenario())


def test_why_a_name_has_no_address_is_reported(monkeypatch):
    def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error = asyncio.run(refusal("https://relay.example/"))
    assert str(error) == "relay.example: Name or service not known"
    assert not error.permanent


def test_nobody_waits_for_a_look_up_that_no_server_answers(monkeypatch):
    asked, answer, waited_out = threading.Event(), threading.Event(), []

    def getaddrinfo(*_, **__):
        asked.set()
        if not answer.wait(20):
            waited_out.append(True)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def scenario():
        connecting = asyncio.create_task(connect("https://relay.example/", PINNED))
        await until(asked.is_set)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(scenario())
    assert not waited_out
    # It comes too late for anybody, and harms nobody.
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join()


@pytest.mark.parametrize("announced", WEBTRANSPORT_ANNOUNCED, ids=hex)
def test_every_webtransport_dialect_is_understood(announced):
    async def scenario():
        settings = {Setting.H3_DATAGRAM: 1, Setting.ENABLE_CONNECT_PROTOCOL: 1, announced: 1}
        async with scripted_server(settings) as url:
            (await connect(url, PINNED)).close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "permanent"), [(b"404", True), (b"403", True), (b"429", False), (b"503", False)]
)
def test_an_http_status_is_reported(status, permanent):
    async def scenario():
        async with scripted_server({Setting.H3_DATAGRAM: 1, WEBTRANSPORT_ANNOUNCED[0]: 1}, status) as url:
            return await refusal(url)

    error = asyncio.run(scenario())
    assert str(error).endswith(f"the server answered HTTP status {status.decode()}")
    assert error.permanent is permanent


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ((b"24", [b"A token is needed", b": here\n"], True), ": A token is needed: here"),
        ((b"0", [b""], True), ""),
        # Nobody waits for the rest of a story, nor shows what would control a terminal.
        ((b"1000000", [b"a" * 300], False), ": " + "a" * 200),
        ((b"9", [b"\x1b[2J", b"\nWell"], False), ": [2J Well"),
    ],
)
def test_why_a_server_refuses_is_reported_in_one_line(said, shown):
    async def scenario():
        settings = {Setting.H3_DATAGRAM: 1, WEBTRANSPORT_ANNOUNCED[0]: 1}
        async with scripted_server(settings, b"401", said) as url:
            return await refusal(url)

    assert str(asyncio.run(scenario())).endswith(f"the server answered HTTP status 401{shown}")


def test_an_http3_server_without_webtransport_is_named_as_such():
    async def scenario():
        async with scripted_server({Setting.ENABLE_CONNECT_PROTOCOL: 1}) as url:
            return await refusal(url)

    error = asyncio.run(scenario())
    assert str(error).endswith("this is an HTTP/3 server without WebTransport")
    assert error.permanent


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://relay.example:4433/", Target("relay.example", 4433, "/"), "relay.example:4433"),
        ("https://relay.example", Target("relay.example", 443, "/"), "relay.example:443"),
        ("https://[::1]:4433/x?encap=raw", Target("::1", 4433, "/x?encap=raw"), "[::1]:4433"),
        ("https://[fe80::1%25eth0]/", Target("fe80::1%eth0", 443, "/"), "[fe80::1%eth0]:443"),
        ("https://[fe80::1%eth0]/", Target("fe80::1%eth0", 443, "/"), "[fe80::1%eth0]:443"),
        ("https://192.0.2.1:1?room=a", Target("192.0.2.1", 1, "/?room=a"), "192.0.2.1:1"),
    ],
)
def test_addresses_are_read(url, target, authority):
    assert Target.parse(url) == target
    assert target.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.example:4433",
        "http://relay.example/",
        "wss://relay.example/",
        "https://",
        "https:///path",
        "https://relay.example:0/",
        "https://relay.example:70000/",
        "https://relay.example:port/",
        "https://user@relay.example/",
        "https://relay.example/#part",
        "https://relay.example/with space",
        "https://relay.example/ü",
        "https://[::1/",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url):
    with pytest.raises(ValueError, match=r".") as caught:
        Target.parse(url)
    assert "\n" not in str(caught.value)


def test_certificate_hashes_are_read():
    assert parse_certificate_hash("ab" * 32) == b"\xab" * 32
    assert parse_certificate_hash(":".join(["AB"] * 32)) == b"\xab" * 32
    for text in ("", "ab", "zz" * 32, "ab" * 33, "ab" * 31):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            parse_certificate_hash(text)

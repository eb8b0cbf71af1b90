from __future__ import annotations

import asyncio
import contextlib

import pytest
from raw_clients import RawTcp, RawTls
from waiting import until
from web_parts import Peer, ask, raw, run, upgrade
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, SessionClosed
from transport.quic import session as session_module
from transport.quic.session import QUEUE_BYTES, DatagramQueue
from transport.web import http_connection, websocket
from transport.web.websocket import MAX_COMMAS, MAX_MESSAGE, MAX_REASON, websocket_code


def test_closing_codes_are_of_the_range_for_private_use():
    assert websocket_code(CloseCode.DONE) == 1000
    assert websocket_code(CloseCode.SHUTDOWN) == 1001
    assert websocket_code(CloseCode.TAKEN_OVER) == 4004
    assert len({websocket_code(code) for code in CloseCode}) == len(CloseCode)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/", "/"),
        ("/raw", "/?encap=raw"),
        ("/raw?room=1", "/?encap=raw&room=1"),
        ("/?encap=raw", "/?encap=raw"),
    ],
)
def test_a_binary_message_is_a_datagram_in_both_directions(scheme, path, seen):
    async def scenario(web):
        async with web.client(path, scheme) as client:
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            await client.send(b"one")
            await client.send([b"tw", b"", b"o"])  # a message in fragments
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"one", b"two"])
            assert peer.session.path == seen
            assert peer.session.remote == "{}:{}".format(*client.local_address)
            assert peer.session.datagram_limit == 65535
            peer.session.send([b"three", b"four"])
            assert [await client.recv(), await client.recv()] == [b"three", b"four"]

    run(scenario)


def test_large_fields_are_no_matter_where_they_are_not_the_handshakes():
    async def scenario(web):
        async with web.client("/", additional_headers={"Cookie": "a" * 20_000}) as client:
            await client.send(b"one")
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"one"])
        with pytest.raises(InvalidStatus, match="431"):
            async with web.client("/", additional_headers={"Sec-WebSocket-Protocol": "a" * 20_000}):
                pass

    run(scenario)


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Protocol"])
def test_long_lists_are_refused_before_they_are_taken_apart(name):
    async def scenario(web):
        for commas, status in ((MAX_COMMAS, 101), (MAX_COMMAS + 1, 431), (3000, 431)):
            path = "/?" + "," * 100  # no list
            answer = await ask(web, upgrade(path, **{name: "Upgrade" + ",a" * commas}))
            assert answer.status == status

    run(scenario)


def test_sessions_take_their_numbers_from_the_relays():
    async def scenario(web):
        async with web.client("/"), web.client("/raw"):
            await until(lambda: len(web.peers) == 2)
            assert {peer.session.id for peer in web.peers} == {100, 101}

    run(scenario)


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["binary"], "binary"),
        (["base64", "binary"], "binary"),
        (["binary", "chat"], "binary"),
        (["chat"], None),
        (["Binary"], None),
        (None, None),
    ],
)
@pytest.mark.parametrize("path", ["/", "/raw"])
def test_of_subprotocols_binary_is_selected(path, offered, selected):
    async def scenario(web):
        async with web.client(path, subprotocols=offered) as client:
            assert client.subprotocol == selected
            assert ("Sec-WebSocket-Protocol" in client.response.headers) == (selected is not None)
            await client.send(b"frame")
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"frame"])

    run(scenario)


def frame(opcode, payload, *, fin=True, masked=True):
    """A frame as a client sends it (RFC 6455, section 5.2), masked with zeros."""
    length = bytes([len(payload) | 0x80 * masked])
    return bytes([opcode | 0x80 * fin]) + length + bytes(4 * masked) + payload


def close(code, reason=b""):
    return frame(0x8, code.to_bytes(2, "big") + reason)


TEXT, BINARY, CONTINUED, CLOSE, PING = 0x1, 0x2, 0x0, 0x8, 0x9

BROKEN = {
    "a text": (frame(TEXT, b"hello"), 1003),
    "an empty text": (frame(TEXT, b""), 1003),
    "a text in fragments": (frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"b"), 1003),
    "a character across fragments": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUED, b"\xa9"), 1003),
    "a text with a ping in it": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"") + frame(CONTINUED, b"b"),
        1003,
    ),
    "a text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "a text that ends too early": (frame(TEXT, b"caf\xc3"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "an overlong form": (frame(TEXT, b"\xc0\xaf"), 1007),
    "a text that is not UTF-8 from its second fragment on": (
        frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"\xff", fin=False),
        1007,
    ),
    "fragments that end too early": (frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"\xc3"), 1007),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a reason that is not UTF-8": (close(1000, b"\xff"), 1007),
    **{
        f"closing code {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)
    },
    "a close frame in fragments": (frame(CLOSE, b"", fin=False), 1002),
    "a close frame within a message": (frame(BINARY, b"a", fin=False) + close(1000), 1002),
    "no mask": (frame(BINARY, b"a", masked=False), 1002),
    "a reserved bit": (b"\xc2\x80\0\0\0\0", 1002),
    "a reserved opcode": (frame(0x3, b""), 1002),
    "a continuation of nothing": (frame(CONTINUED, b""), 1002),
    "a message within a message": (frame(BINARY, b"a", fin=False) + frame(BINARY, b"b"), 1002),
    "a large message": (b"\x82\xfe" + (MAX_MESSAGE + 1).to_bytes(2, "big") + bytes(4), 1009),
    "an endless message": (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4), 1009),
}


@pytest.mark.parametrize("more", [1, 20_000], ids=["", "while it goes on sending"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("case", BROKEN)
def test_who_breaks_the_protocol_is_told_with_the_code_for_that(case, scheme, more, monkeypatch):
    # A client that answers is waited for no longer, over TLS, than one that does not.
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.3)
    data, code = BROKEN[case]
    # What follows is right in itself: in the middle of a message, its next fragment.
    goes_on = "second fragment on" in case
    late = frame(CONTINUED, b"", fin=False) if goes_on else frame(BINARY, bytes(100))

    async def scenario(web):
        async with web.client("/", scheme) as bystander:
            await until(lambda: len(web.peers) == 1)
            async with web.client("/", scheme) as client:
                await until(lambda: len(web.peers) == 2)
                client.transport.write(data + late * more)
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd.code == code
                peer = web.peers[1]
                await until(lambda: peer.closed)
                assert peer.closed.code == 0
                assert peer.closed.reason.startswith(f"broke the protocol: {code} ")
                assert not peer.closed.lost
                assert peer.datagrams == []
            await bystander.send(b"still here")
            await until(lambda: web.peers[0].datagrams == [b"still here"])
            await until(lambda: web.listener.connection_count == 1)

    run(scenario)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4010, 4999])
def test_a_proper_close_frame_is_answered_with_its_code(code):
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            client.transport.write(close(code, "é".encode()))
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == code
            await until(lambda: peer.closed)
            assert peer.closed == SessionClosed(code, "é", lost=code in (1001, 4010))

    run(scenario)


def test_a_client_that_closes_and_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.1)

    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            client.transport.pause_reading()
            await web.fill()
            client.transport.write(close(1000))
            await until(lambda: peer.closed)
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_the_sessions_actor_is_told_of_what_has_waited_for_too_long(monkeypatch):
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            client.transport.pause_reading()
            await web.fill()
            before = web.listener.clock()
            peer.session.send([b"the last"])
            monkeypatch.setattr(session_module, "QUEUE_SECONDS", 0.0)
            client.transport.resume_reading()
            await until(lambda: peer.lost)
            content, since = peer.lost[-1]
            assert content == b"the last"
            assert before <= since <= web.listener.clock()
            assert len(peer.lost) == web.counters["session.drop.stale"]

    run(scenario)


def end_tls(client):
    client.socket.sendall(client.close_notify())


@pytest.mark.parametrize(
    ("kind", "end"),
    [(RawTcp, RawTcp.end), (RawTls, end_tls), (RawTls, RawTls.end)],
    ids=["TCP", "TLS", "TCP below TLS"],
)
def test_a_client_that_ends_its_side_and_takes_nothing_is_given_up(kind, end, monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.1)

    async def scenario(web):
        async with raw(web, kind) as client:
            client.send(upgrade())
            peer = await web.peer()
            await web.fill()
            end(client)
            await until(lambda: peer.closed)
            assert peer.closed.lost
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_an_end_of_tls_right_behind_more_than_a_slice_is_an_end_like_others():
    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            much = client.record(frame(BINARY, b"x") * 2000)
            client.socket.sendall(much + client.close_notify())
            await until(lambda: web.listener.connection_count == 0)
            assert peer.closed.lost
            assert web.counters["websocket.failed"] == 0

    run(scenario)


def test_a_close_frame_behind_more_than_a_slice_counts_though_tls_and_tcp_have_ended():
    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            much = client.record(frame(BINARY, b"x") * 2000 + close(1000, b"bye"))
            client.socket.sendall(much + client.close_notify())
            client.end()
            await until(lambda: web.listener.connection_count == 0)
            assert len(peer.datagrams) == 2000
            assert (peer.closed.code, peer.closed.reason, peer.closed.lost) == (1000, "bye", False)

    run(scenario)


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@pytest.mark.parametrize("data", [b"", b"a"])
def test_a_message_has_a_number_of_fragments_at_most(opcode, data):
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            some = frame(CONTINUED, data, fin=False) * (websocket.MAX_FRAGMENTS - 2)
            if opcode is BINARY:
                for _ in range(2):
                    client.transport.write(frame(BINARY, b"a", fin=False) + some + frame(CONTINUED, b"b"))
                await until(lambda: len(peer.datagrams) == 2)
                assert set(peer.datagrams) == {b"a" + data * (websocket.MAX_FRAGMENTS - 2) + b"b"}
            client.transport.write(
                frame(opcode, b"a", fin=False) + some + frame(CONTINUED, b"", fin=False) * 2
            )
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 1009

    run(scenario)


@pytest.mark.no_cover
def test_much_at_once_is_worked_off_whole_and_in_order():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            messages = [number.to_bytes(3, "big") for number in range(40_000)]
            client.transport.write(b"".join(frame(BINARY, message) for message in messages))
            await until(lambda: len(peer.datagrams) == len(messages))
            assert peer.datagrams == messages
            assert peer.batches > len(messages) // websocket.MAX_BATCH // 2

    class Counting(Peer):
        batches = 0

        def tell(self, message):
            super().tell(message)
            self.batches += 1
            if isinstance(message, DatagramsFromClient):
                assert len(message.datagrams) <= websocket.MAX_BATCH + websocket.PIECE // 6

    run(scenario, peer=Counting)


@pytest.mark.no_cover
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_client_that_asks_for_pongs_and_takes_none_is_not_read_until_it_does(scheme):
    async def scenario(web):
        async with web.client("/", scheme) as client:
            peer = await web.peer()
            [connection] = web.listener._connections
            client.transport.pause_reading()
            pings = frame(PING, bytes(125)) * 1000
            while connection._unread_pings <= websocket.MAX_UNREAD_PINGS:
                client.transport.write(pings)
                await asyncio.sleep(0)
            for _ in range(100):
                client.transport.write(pings)
            client.transport.write(frame(BINARY, b"behind"))
            written = connection._transport.get_write_buffer_size()
            assert written <= http_connection.WRITE_BUFFER + len(pings) * 3
            # What waits at the client does not become less: nobody reads it.
            await until(lambda: client.transport.get_write_buffer_size() > 0)
            for _ in range(100):
                await asyncio.sleep(0.001)
            assert connection._transport.get_write_buffer_size() == written
            assert peer.datagrams == []
            client.transport.resume_reading()
            await until(lambda: peer.datagrams == [b"behind"])

    run(scenario)


def test_a_message_that_is_too_large_ends_its_session_only():
    async def scenario(web):
        async with web.client("/") as bystander, web.client("/") as client:
            await until(lambda: len(web.peers) == 2)
            with contextlib.suppress(ConnectionClosed):
                await client.send(bytes(MAX_MESSAGE + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 1009
            await until(lambda: any(peer.closed for peer in web.peers))
            await bystander.send(b"still here")
            await until(lambda: any(peer.datagrams for peer in web.peers))

    run(scenario)


def test_a_producer_that_waits_is_told_when_the_queue_has_left():
    async def scenario(web):
        async with web.client("/") as client:
            session = (await web.peer()).session
            told = asyncio.Event()
            session.send([bytes(1000)] * 200)
            assert not session.writable
            session.call_when_writable(told.set)
            await told.wait()
            assert session.writable
            assert await client.recv() == bytes(1000)

    run(scenario)


def test_the_relay_closes_with_code_and_reason():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            peer.session.send([b"last words"])
            peer.session.close(CloseCode.TAKEN_OVER, "taken over " + "é" * 100)
            assert await client.recv() == b"last words"
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 4004
            assert closed.value.rcvd.reason == ("taken over " + "é" * 100).encode()[:MAX_REASON].decode()
            await until(lambda: web.listener.connection_count == 0)
            assert peer.closed is None  # who closes needs not be told

    run(scenario)


def test_the_client_closes_with_code_and_reason():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            await client.close(4321, "enough")
            await until(lambda: peer.closed)
            assert peer.closed == SessionClosed(4321, "enough")

    run(scenario)


def test_a_vanished_client_ends_its_session():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            client.transport.abort()
            await until(lambda: peer.closed)
            assert peer.closed.lost

    run(scenario)


def test_a_client_that_does_not_read_costs_a_bounded_queue(monkeypatch):
    async def scenario(web):
        async with web.client("/") as slow:
            peer = await web.peer()
            slow.transport.pause_reading()
            for number in range(3000):
                peer.session.send([number.to_bytes(4, "big") + bytes(4000)])
                if number % 100 == 0:
                    await asyncio.sleep(0)
                assert peer.session.queued_bytes <= QUEUE_BYTES
            assert web.counters["session.drop.queue_full"] > 0
            assert not peer.session.writable
            slow.transport.resume_reading()
            numbers = [int.from_bytes((await slow.recv())[:4], "big")]
            while numbers[-1] != 2999:
                numbers.append(int.from_bytes((await slow.recv())[:4], "big"))
            assert numbers == sorted(numbers)
            assert len(numbers) < 3000

    monkeypatch.setattr("transport.quic.session.QUEUE_SECONDS", 3600.0)
    run(scenario)


class SlowTransport(asyncio.Transport):
    """Takes what is written, and tells of its buffer as asyncio's own does."""

    def __init__(self):
        super().__init__({"socket": self})
        self.protocol = None
        self.size = self.most_in_kernel = 0
        self.limits = 16 * 1024, 64 * 1024
        self.paused = False

    def write(self, data):
        self.size += len(data)
        self._look()

    def leave(self, size):
        self.size = max(self.size - size, 0)
        if self.paused and self.size <= self.limits[0]:
            self.paused = False
            self.protocol.resume_writing()

    def _look(self):
        if not self.paused and self.size > self.limits[1]:
            self.paused = True
            self.protocol.pause_writing()

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = high // 4, high
        self._look()

    def get_write_buffer_limits(self):
        return self.limits

    def get_write_buffer_size(self):
        return self.size

    def setsockopt(self, level, option, value):
        self.most_in_kernel = value

    def is_closing(self):
        return False

    def resume_reading(self):
        pass


@pytest.mark.parametrize("rate", [10_000, 125_000, 2_000_000])
def test_no_more_waits_for_a_slow_client_than_it_reads_soon(rate, monkeypatch):
    """Downloads that always have more beside them, in simulated time."""

    async def scenario(web):
        async with web.client("/"):
            (connection,) = web.listener._connections
            session = (await web.peer()).session
            transport = SlowTransport()
            transport.protocol = connection
            monkeypatch.setattr(connection, "_transport", transport)
            now = 1000.0
            monkeypatch.setattr(web.listener, "clock", lambda: now)
            monkeypatch.setattr(session, "_clock", lambda: now)

            def turn(rate):
                nonlocal now
                now += 0.01
                transport.leave(int(rate * 0.01))
                while session.queued_bytes + 1000 <= session.room:
                    session.send([bytes(1000)])
                connection.flush(now)
                return (transport.size + session.queued_bytes) / rate

            for _ in range(1500):
                turn(rate)
            stale = web.counters["session.drop.stale"]
            assert max(turn(rate) for _ in range(1500)) < max(0.6, 20_000 / rate)
            assert web.counters["session.drop.stale"] == stale
            least = min(max(rate // 10, websocket.LEAST_BUFFER), http_connection.WRITE_BUFFER)
            assert transport.limits[1] == pytest.approx(least, rel=0.2)
            assert transport.most_in_kernel in {0, transport.limits[1]}
            for _ in range(10):
                turn(50_000_000)
            assert transport.limits[1] == http_connection.WRITE_BUFFER, "it is fast again"
            monkeypatch.undo()

    run(scenario)


def test_silent_clients_are_pinged_and_given_up(monkeypatch):
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.02)
    monkeypatch.setattr(websocket, "IDLE_TIMEOUT", 0.2)

    async def scenario(web):
        async with web.client("/") as answering, web.client("/") as deaf:
            await until(lambda: len(web.peers) == 2)
            deaf.transport.pause_reading()
            await until(lambda: any(peer.closed for peer in web.peers))
            assert web.counters["websocket.idle_timeouts"] == 1
            await answering.send(b"alive")
            await until(lambda: any(peer.datagrams for peer in web.peers))

    run(scenario)


def test_an_error_in_one_connection_is_that_connections(monkeypatch):
    class Broken(Peer):
        def tell(self, message):
            match message:
                case DatagramsFromClient():
                    raise RuntimeError("a defect")
                case _:
                    super().tell(message)

    async def scenario(web):
        async with web.client("/") as client:
            await client.send(b"anything")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await until(lambda: web.listener.connection_count == 0)
            assert web.counters["websocket.failed"] == 1

    run(scenario, peer=Broken)


def test_a_session_that_cannot_be_sent_to_keeps_nothing_from_the_others_of_its_turn():
    async def scenario(web):
        async with web.client("/") as one, web.client("/") as broken, web.client("/") as other:
            await until(lambda: len(web.peers) == 3)
            sessions = [peer.session for peer in web.peers]

            class Broken(DatagramQueue):
                def drop_stale(self, _now):
                    raise RuntimeError("a defect")

            sessions[1].queue = Broken(web.counters)
            for session in sessions:
                session.send([b"for all"])
            assert [await one.recv(), await other.recv()] == [b"for all"] * 2
            with pytest.raises(ConnectionClosed):
                await broken.recv()
            assert web.counters["websocket.failed"] == 1
            await until(lambda: web.listener.connection_count == 2)

    run(scenario)

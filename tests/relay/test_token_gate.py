"""Relays that ask for tokens, and clients with and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import urllib.request
from dataclasses import replace

import pytest
from processes import PATIENCE, Relay
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from actors.port_policy import usual_policy
from actors.settings import LanSettings
from guest.client import ConnectError, SessionEndedError
from guest.vm_client import vm_client
from relay.revocations import Revocations
from relay.state import Folder, State
from relay.token_claims import LIMITS, read_claims
from relay.token_gate import MANY_TOKENS, NO_TOKEN, Clocks, TokenGate, policy_of, tokens_of
from relay.tokens import make_key, public_half, sign
from transport.admission import ClientRequest, without_secrets

KEY = make_key("EdDSA")
REGISTER = b'\x00{"type":"Register","mac":[82,84,0,1,2,3]}'


def token(life=60.0, **claims):
    return sign(KEY, {"exp": time.time() + life, **claims})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public_half(KEY)]}))
    (tmp_path / "revoked").write_text("")
    return tmp_path


@pytest.fixture
def start(files):
    started = []

    def run(how="required", *options):
        keys = ("--auth-keys", files / "keys.json", "--auth-revoked", files / "revoked")
        started.append(Relay("--auth", how, *keys, "--cert-poll-interval", "0.2", *options))
        return started[-1]

    yield run
    for relay in started:
        relay.stop()
        assert "Traceback" not in relay.output
        assert "eyJ" not in relay.output, "a token stands in the log"


def webtransport(relay, path="", **options):
    return vm_client(relay.url + path, insecure=True, **options)


@contextlib.asynccontextmanager
async def websocket(relay, path="", **options):
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    url = relay.url.replace("https:", "wss:") + path
    async with connect_websocket(url, ssl=trust, proxy=None, **options) as connection:
        yield connection


async def end_of(nic):
    """Listen until the session is over; raises SessionEndedError."""
    while True:
        await asyncio.wait_for(nic.recv_batch(), PATIENCE)


async def assigned(connection):
    await connection.send(REGISTER)
    async with asyncio.timeout(PATIENCE):
        while b'"Assigned"' not in (message := await connection.recv()):
            pass
    return json.loads(message[1:])


def test_a_client_with_a_token_joins_by_either_carrier(start):
    relay = start()

    async def scenario():
        async with webtransport(relay, f"?token={token()}") as nic:
            assert nic.assigned is not None
        async with websocket(relay, f"?token={token()}") as connection:
            assert (await assigned(connection))["room"] == "default"
        headers = {"Authorization": f"Bearer {token(room='lab')}"}
        async with websocket(relay, "room/lab", additional_headers=headers) as connection:
            assert (await assigned(connection))["room"] == "lab"
        async with websocket(relay, subprotocols=["binary", f"token.{token()}"]) as connection:
            assert connection.subprotocol == "binary"
            await assigned(connection)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("", 401, "A token is needed"),
        ("?token=", 401, "not one that was signed"),
        ("?token={foreign}", 401, "key is not known"),
        ("?token={late}", 401, "has expired"),
        ("?tok%65n={late}", 401, "has expired"),
        ("room/other?token={lab}", 403, "for another room"),
        ("?token={lab}", 403, "for another room"),
        ("room/lab?token={lab}&token={other}", 400, "more than one token"),
    ],
)
def test_others_are_refused_by_both_carriers_and_told_why(start, path, status, said):
    relay = start()
    foreign = sign(make_key("HS256"), {"exp": time.time() + 60})
    path = path.format(
        foreign=foreign, late=token(-60), lab=token(room="lab"), other=token(room="lab", jti="2")
    )

    async def scenario():
        with pytest.raises(ConnectError, match=f"status {status}: .*{said}"):
            async with webtransport(relay, path):
                pass
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(relay, path):
                pass
        response = refused.value.response
        assert response.status_code == status
        assert said in response.body.decode()
        assert ("WWW-Authenticate" in response.headers) == (status == 401)

    asyncio.run(scenario())
    assert said in relay.wait_for(rf"was refused .*{status}").string


def test_a_session_ends_with_its_token(start):
    relay = start()

    async def scenario():
        async with webtransport(relay, f"?token={token(1.5)}") as nic:
            since = time.monotonic()
            with pytest.raises(SessionEndedError, match="the token has expired"):
                await end_of(nic)
            assert time.monotonic() - since < 5
        async with websocket(relay, f"?token={token(1.5)}") as connection:
            await asyncio.wait_for(connection.wait_closed(), PATIENCE)
            assert connection.close_code == 4009

    asyncio.run(scenario())


def test_a_revoked_tokens_session_ends_and_does_not_come_back(start, files):
    relay = start()

    async def scenario():
        kept, lost = token(jti="kept"), token(jti="lost")
        async with (
            webtransport(relay, f"?token={kept}") as other,
            webtransport(relay, f"?token={lost}") as nic,
        ):
            (files / "revoked").write_text("lost\n")
            with pytest.raises(SessionEndedError, match="the token has been revoked"):
                await end_of(nic)
            with pytest.raises(ConnectError, match="status 401"):
                async with webtransport(relay, f"?token={lost}"):
                    pass
            assert other.attached

    asyncio.run(scenario())


def test_a_new_key_is_taken_while_it_runs_and_a_broken_file_is_not(start, files):
    relay = start()
    other = make_key("HS256")
    new = sign(other, {"exp": time.time() + 60})

    async def scenario():
        (files / "keys.json").write_text("{")
        relay.wait_for("stay as they were: .*keys.json: not a JWK Set")
        async with webtransport(relay, f"?token={token()}") as nic:
            assert nic.attached
        (files / "keys.json").write_text(json.dumps({"keys": [public_half(KEY), other]}))
        relay.wait_for("other keys or revoked tokens are in force")
        async with webtransport(relay, f"?token={new}") as nic:
            assert nic.attached

    asyncio.run(scenario())


async def refused(connection):
    await connection.send(REGISTER)
    async with asyncio.timeout(PATIENCE):
        while b'"Error"' not in (message := await connection.recv()):
            assert b'"Assigned"' not in message
    return json.loads(message[1:])["message"]


def test_a_session_has_the_macs_of_its_token_and_no_others(start):
    relay = start()

    async def scenario():
        async with websocket(relay, f"?token={token(mac='52:54:00:01:02:03')}") as connection:
            assert (await assigned(connection))["ip"][:3] == [10, 0, 2]
        async with websocket(relay, f"?token={token(mac=['52:54:00:01:02:04'])}") as connection:
            assert await refused(connection) == "the token of this session is for other MAC addresses"

    asyncio.run(scenario())


SETTINGS = LanSettings(bits_per_second=1000, max_flows_per_peer=5)
USUAL = usual_policy(SETTINGS)


def own(**values):
    return replace(USUAL, own=frozenset(values), **values)


EVERY_LIMIT = {flag: number for number, flag in enumerate(LIMITS, 7)}


@pytest.mark.parametrize(
    ("claims", "policy"),
    [
        ({}, None),
        ({"name": "web", "room": "lab", "rights": ["bridge", "forward", "admin"]}, None),
        ({"limits": {"bit-rate": 1000}}, own(bits_per_second=1000)),
        ({"mac": "52:54:00:01:02:03"}, own(macs=frozenset({bytes.fromhex("525400010203")}))),
        ({"rights": ["forward"]}, own(max_macs=1)),
        ({"rights": ["bridge"]}, own(is_forwarded_to=False)),
        ({"limits": {"bit-rate": "off"}}, own(bits_per_second=0)),
        (
            {"limits": EVERY_LIMIT},
            own(
                bits_per_second=7,
                packets_per_second=8,
                max_flows=9,
                new_flows_per_second=10,
                max_half_open=11,
            ),
        ),
    ],
)
def test_what_a_port_may_is_as_in_the_room_but_for_what_the_token_says(claims, policy):
    assert policy_of(read_claims(claims, 60.0), SETTINGS) == policy


def test_with_optional_tokens_those_without_one_are_let_in(start):
    relay = start("optional")

    async def scenario():
        async with webtransport(relay, "") as nic:
            assert nic.attached
        with pytest.raises(ConnectError, match="status 401"):
            async with webtransport(relay, f"?token={token(-60)}"):
                pass

    asyncio.run(scenario())


def test_the_relays_own_page_needs_no_token(start):
    relay = start()
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/", timeout=PATIENCE) as answer:
        assert answer.status == 200


def test_where_a_room_is_is_told_to_whom_has_a_token_for_it(start):
    relay = start("required", "--url", "https://here.example:4433")
    where = f"http://127.0.0.1:{relay.port}/room/lab/where"
    for query in ("", f"?token={token(room='other')}"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]") as refused:
            urllib.request.urlopen(where + query, timeout=PATIENCE)
        assert b"here.example" not in refused.value.read()
    with urllib.request.urlopen(f"{where}?token={token(room='lab')}", timeout=PATIENCE) as answer:
        assert json.load(answer) == {"urls": ["https://here.example:4433"]}


def request(query="", *headers):
    return ClientRequest("websocket", "/", query, headers, "relay.example", True, "192.0.2.1:4000")


def test_tokens_are_found_wherever_they_may_stand():
    assert tokens_of(request("a=1&token=x&tok%65n=y")) == ["x", "y"]
    assert tokens_of(request("", ("authorization", "bearer x"), ("authorization", "Basic eA=="))) == ["x"]
    assert tokens_of(request("", ("sec-websocket-protocol", "binary, token.x"))) == ["x"]
    assert tokens_of(request("tokens=x", ("sec-websocket-protocol", "tokenx"))) == []


def test_the_same_token_twice_is_one():
    gate = TokenGate(None, Clocks(time.time, time.monotonic))
    assert gate.read(request("token=x&token=x"), "lab", "required") != MANY_TOKENS
    assert gate.read(request("token=x&token=y"), "lab", "required") == MANY_TOKENS
    assert gate.read(request(), "lab", "required") == NO_TOKEN
    assert gate.read(request(), "lab", "optional") is gate.read(request("token=x"), "lab", "off") is None


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/", "/"),
        ("/a?b=c", "/a?b=c"),
        ("/?token=secret", "/?token=..."),
        ("/?a=1&tok%65n=secret&b", "/?a=1&tok%65n=...&b"),
        ("/?token", "/?token"),
        ("/?TOKEN=public", "/?TOKEN=public"),
    ],
)
def test_no_token_is_shown(target, shown):
    assert without_secrets(target) == shown


class Peer:
    """A session's mailbox."""

    def __init__(self):
        self.told = []

    def tell(self, message):
        self.told.append(message)


def test_the_sessions_of_a_key_end_with_it(files):
    new = make_key("HS256")

    def write(*keys):
        (files / "keys.json").write_text(json.dumps({"keys": keys}))

    async def scenario():
        def read(key):
            said = sign(key, {"exp": time.time() + 60})
            return gate.read(
                ClientRequest("websocket", "/", f"token={said}", [], "", True, ""), "lab", "required"
            )

        write(KEY, new)
        gate = TokenGate((files / "keys.json", None), Clocks(time.time, time.monotonic))
        assert not await gate.refresh(), "with the private half too"
        tickets, peers = [read(KEY), read(new)], [Peer(), Peer()]
        for peer, ticket in zip(peers, tickets, strict=True):
            gate.note(peer, ticket)
        write(public_half(KEY), new)
        assert not await gate.refresh()
        assert all(map(gate.holds, tickets))
        write({**make_key("HS256"), "kid": new["kid"]}, public_half(KEY))
        assert await gate.refresh()
        assert list(map(gate.holds, tickets)) == [True, False]
        assert [[message.reason for message in peer.told] for peer in peers] == [
            [],
            ["the key of the token is no longer in force"],
        ]

    asyncio.run(scenario())


def test_sessions_end_when_their_tokens_do_though_the_machine_has_slept(files):
    async def scenario():
        unix, peers = [1e9], [Peer(), Peer()]
        gate = TokenGate((files / "keys.json", None), Clocks(lambda: unix[0], lambda: 5.0))
        for peer, life in zip(peers, (60, 61), strict=True):
            gate.note(peer, gate.check(sign(KEY, {"exp": unix[0] + life})))
        await gate.refresh()
        assert [peer.told for peer in peers] == [[], []]
        unix[0] += 60
        await gate.refresh()
        assert [[message.reason for message in peer.told] for peer in peers] == [
            ["the token has expired"],
            [],
        ]

    asyncio.run(scenario())


def test_a_token_that_is_revoked_at_run_time_stays_revoked(files):
    async def scenario():
        def gate():
            kept = Revocations(State(folder).file("revoked"))
            return TokenGate(
                (files / "keys.json", files / "revoked"), Clocks(time.time, time.monotonic), kept
            )

        def read(gate, identifier):
            query = f"token={token(jti=identifier)}"
            return gate.read(ClientRequest("websocket", "/", query, [], "", True, ""), "default", "required")

        folder = Folder(files / "state")
        first, peers = gate(), {name: Peer() for name in ("lost", "other")}
        for name, peer in peers.items():
            first.note(peer, read(first, name))
        await first.revoke("lost")
        assert [len(peers[name].told) for name in peers] == [1, 0]
        for each in (first, gate()):
            assert read(each, "lost").status == 401
            assert read(each, "other").id == "other"
            each.take(each.load())
            assert read(each, "lost").status == 401
        with pytest.raises(ValueError, match="no white space"):
            await first.revoke("a b")

    asyncio.run(scenario())

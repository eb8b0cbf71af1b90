"""Clients' tokens with the right ``admin`` at the admin API of a running relay."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
from processes import PATIENCE, THIS_TREE, Program, Relay, free_port, run
from waiting import wait_until

from guest.client import ConnectError
from guest.relay_socket import RelayPeer
from relay.admin.events import MAX_LISTENERS
from relay.capture import MAX_CAPTURES
from relay.tokens import make_key, public_half, sign

KEY = make_key("EdDSA")
OPERATORS = "a-token-of-some-length"


def token(key=KEY, **claims):
    return sign(key, {"exp": time.time() + 600, **claims})


ADMIN = token(jti="boss", rights=["admin"])
LAB = token(jti="lab-boss", rights=["admin"], room="lab")


def start(folder, *options):
    keys = folder / "public.json"
    keys.write_text(json.dumps({"keys": [public_half(KEY)]}))
    port = free_port()
    relay: Any = Relay("--auth", "optional", "--auth-keys", keys, "--admin", f"127.0.0.1:{port}", *options)
    relay.admin = port
    return relay


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def relay(request, tmp_path_factory):
    relay = start(tmp_path_factory.mktemp("keys"), "--workers", request.param)
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output
    assert "eyJ" not in relay.output, "a token stands in the log"


@pytest.fixture
def lab(relay):
    """A guest of the room lab and one of another, by the room."""
    peers = {
        room: RelayPeer(f"{relay.url}room/{room}", cert_hash=relay.hash, name=room)
        for room in ("lab", "other")
    }
    ports = {peer["room"]: peer["port"] for peer in ask(relay, "/v1/peers")[1] if peer["name"] in peers}
    yield SimpleNamespace(peers=peers, ports=ports)
    for peer in peers.values():
        peer.close()


def ask(relay, path, method="GET", body=None, *, by=ADMIN):
    connection = http.client.HTTPConnection("127.0.0.1", relay.admin, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {by}"} if by else {})
        response = connection.getresponse()
        said = response.read().decode()
        return response.status, json.loads(said) if said.startswith(("{", "[")) else said
    finally:
        connection.close()


@contextlib.contextmanager
def opened(relay, path, *, by):
    """An answer that goes on."""
    connection = http.client.HTTPConnection("127.0.0.1", relay.admin, timeout=PATIENCE)
    connection.request("GET", path, headers={"Authorization": f"Bearer {by}"})
    with contextlib.closing(connection), connection.getresponse() as answer:
        yield answer


def test_a_token_with_the_right_opens_all_of_it(relay):
    assert ask(relay, "/v1/status")[0] == 200
    assert ask(relay, "/metrics")[0] == 200
    status, done = ask(relay, "/v1/bans", "POST", '{"kind": "address", "what": "192.0.2.1"}')
    assert (status, done["id"]) == (201, "address:192.0.2.1/32")
    assert ask(relay, "/v1/bans/address:192.0.2.1/32", "DELETE")[0] == 200
    relay.wait_for(r"the holder of token 'boss' lifted the ban address:192.0.2.1/32")


@pytest.mark.parametrize(
    ("path", "places"), [("/v1/capture?room=lab", MAX_CAPTURES), ("/v1/events", MAX_LISTENERS)]
)
def test_a_token_for_one_room_leaves_streams_for_others(relay, lab, path, places):
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(opened(relay, path, by=LAB)).status for _ in range(places // 2)]
        assert answers == [200] * (places // 4) + [503] * (places // 4)
        assert stack.enter_context(opened(relay, path, by=ADMIN)).status == 200


@pytest.mark.parametrize(
    ("shown", "status", "said"),
    [
        (None, 401, "needs a token with the right admin"),
        ("wrong", 401, "not one that was signed for this relay"),
        (OPERATORS, 401, "not one that was signed for this relay"),
        (token(make_key("EdDSA"), rights=["admin"]), 401, "key is not known"),
        (token(exp=time.time() - 60, rights=["admin"]), 401, "has expired"),
        (token(nbf=time.time() + 600, rights=["admin"]), 401, "does not hold yet"),
        (token(), 403, "not the right admin"),
        (token(rights=[]), 403, "not the right admin"),
        (token(rights=["bridge", "forward", "Admin"]), 403, "not the right admin"),
        (token(rights="admin"), 401, "no list of words"),
    ],
)
def test_others_do_not(relay, shown, status, said):
    answer = ask(relay, "/v1/status", by=shown)
    assert answer[0] == status
    assert said in answer[1]["error"]


def test_beside_it_the_operators_own_still_does(tmp_path):
    own = tmp_path / "token"
    own.write_text(OPERATORS)
    relay = start(tmp_path, "--admin-token", own)
    try:
        assert ask(relay, "/v1/status", by=OPERATORS)[0] == ask(relay, "/v1/status")[0] == 200
        status, answer = ask(relay, "/v1/status", by=None)
        assert (status, "--admin-token" in answer["error"]) == (401, True)
    finally:
        relay.stop()


def test_one_for_a_room_sees_that_room_only(relay, lab):
    for path in ("rooms", "peers", "macs", "leases", "flows", "names", "forwards", "counters", "drops"):
        status, answer = ask(relay, f"/v1/{path}", by=LAB)
        assert status == 200, path
        assert "other" not in json.dumps(answer), path
        assert ask(relay, f"/v1/{path}?room=lab", by=LAB)[0] == 200
        assert ask(relay, f"/v1/{path}?room=other", by=LAB)[0] == 403
    for path in ("status", "overview", "events/recent"):
        answer = json.dumps(ask(relay, f"/v1/{path}", by=LAB)[1])
        assert ('"lab"' in answer, '"other"' in answer) == (True, False), path
    assert "workers" not in ask(relay, "/v1/status", by=LAB)[1], "how many sessions each has in all"
    for path in ("limits", "bans", "certificate", "tokens/revoked"):
        assert ask(relay, f"/v1/{path}", by=LAB)[0] == 403
    assert ask(relay, "/metrics", by=LAB)[0] == 403
    assert ask(relay, "/v1/reload", "POST", by=LAB)[0] == 403
    assert ask(relay, "/v1/tokens/x/revoke", "POST", by=LAB)[0] == 403


def test_and_changes_that_room_only(relay, lab):
    frame = json.dumps({"frames": ["ff" * 60]})
    for path, method, body in (
        ("/v1/peers/{}/frames", "POST", frame),
        ("/v1/trace?peer={}&destination=192.0.2.1", "GET", None),
        ("/v1/peers/{}", "DELETE", None),
    ):
        assert ask(relay, path.format(lab.ports["other"]), method, body, by=LAB)[0] == 404, path
    assert ask(relay, f"/v1/peers/{lab.ports['lab']}/frames", "POST", frame, by=LAB)[0] == 202
    port = free_port()
    for room, status in (("other", 403), ("default", 403), ("lab", 201)):
        fields = {"room": room, "forward": f"tcp:127.0.0.1:{port}:10.0.2.99:80"}
        assert ask(relay, "/v1/forwards", "POST", json.dumps(fields), by=LAB)[0] == status, room
    removed = f"/v1/forwards?forward=tcp:127.0.0.1:{port}"
    assert ask(relay, f"{removed}&room=other", "DELETE", by=LAB)[0] == 403
    assert ask(relay, removed, "DELETE", by=LAB)[0] == 200
    assert ask(relay, f"/v1/peers/{lab.ports['lab']}", "DELETE", by=LAB)[0] == 200
    relay.wait_for(rf"token '?lab-boss\b.* disconnected peer {lab.ports['lab']}")


def test_and_changes_its_forwards_by_the_commands_without_naming_it(relay, lab, tmp_path):
    own = tmp_path / "lab"
    own.write_text(LAB)
    admin = ("--admin", f"127.0.0.1:{relay.admin}", "--admin-token", own)
    forward = f"tcp:127.0.0.1:{free_port()}:10.0.2.99:80"
    added = run(*THIS_TREE, "forwards", "--add", forward, *admin)
    assert added.stdout == f"added {forward} to room lab\n"
    assert run(*THIS_TREE, "forwards", "--remove", forward, *admin).stdout == f"removed {forward}\n"


def test_and_hears_of_that_room_only(relay, tmp_path):
    own = tmp_path / "lab"
    own.write_text(LAB)
    admin = ("--admin", f"http://127.0.0.1:{relay.admin}", "--admin-token", own)
    events = Program(*THIS_TREE, "events", "--json", *admin)

    def is_heard(mac):
        """Have a guest of the room come, again and again: nobody says when a worker's events are followed."""
        RelayPeer(f"{relay.url}room/lab", cert_hash=relay.hash, mac=mac).close()
        return mac in events.output

    try:
        wait_until(lambda: is_heard("52:54:00:00:1a:01"), patience=PATIENCE)
        ban = json.dumps({"kind": "address", "what": "192.0.2.9"})
        assert ask(relay, "/v1/bans", "POST", ban)[0] == 201
        assert ask(relay, "/v1/bans/address:192.0.2.9/32", "DELETE")[0] == 200
        RelayPeer(f"{relay.url}room/other", cert_hash=relay.hash, mac="52:54:00:00:1a:02").close()
        wait_until(lambda: is_heard("52:54:00:00:1a:03"), patience=PATIENCE)
    finally:
        events.signal(signal.SIGINT)
        events.stop()
    told = [json.loads(line) for line in events.output.splitlines() if line.startswith("{")]
    assert {event.get("room") for event in told} == {"lab"}
    past = json.dumps(ask(relay, "/v1/events/recent")[1])
    assert "banned" in past, "whoever may see all of the relay is told"


def test_what_is_for_everybody_is_for_them_too(relay):
    for path in ("/livez", "/readyz", "/openapi.json", "/dashboard/"):
        assert ask(relay, path, by=LAB)[0] == 200, path


def test_revoking_ends_sessions_and_what_the_token_has_open_and_is_kept(tmp_path):
    """By the command, by the id or by the token itself."""
    relay = start(tmp_path, "--state", tmp_path / "state")
    lost = token(jti="lost/one", rights=["admin", "bridge"])
    environment = os.environ | {"VMRELAY_ADMIN": f"127.0.0.1:{relay.admin}"}
    own = tmp_path / "boss"
    own.write_text(ADMIN)
    environment["VMRELAY_ADMIN_TOKEN"] = str(own)
    try:
        peer = RelayPeer(relay.url, cert_hash=relay.hash, token=lost, reconnect=False)
        with opened(relay, "/v1/events", by=lost) as events:
            assert events.readline() == b": connected\n"
            done = run(*THIS_TREE, "token", "revoke", "lost/one", env=environment)
            assert done.stdout == "lost/one is revoked; 1 sessions were ended\n"
            wait_until(lambda: peer.closed)
            assert b"left" not in events.read(), "it was told no more of what happens"
        assert ask(relay, "/v1/status", by=lost)[1]["error"] == "The token has been revoked."
        with pytest.raises(ConnectError, match="has been revoked"):
            RelayPeer(relay.url, cert_hash=relay.hash, token=lost)
        revoked = run(
            *THIS_TREE, "token", "revoke", "--json", "-", env=environment, input=token(jti="two")
        ).stdout
        assert json.loads(revoked) == {"revoked": "two", "ended": 0}
        assert ask(relay, "/v1/tokens/revoked") == (200, ["lost/one", "two"])
        again = run(*THIS_TREE, "token", "revoke", "two words", env=environment, check=False)
        assert again.returncode == 1
        assert again.stderr.startswith("vmrelay: error: the relay says 409: the id of a token has 1 to 200")
        relay.stop()
        relay = start(tmp_path, "--state", tmp_path / "state")
        assert ask(relay, "/v1/tokens/revoked") == (200, ["lost/one", "two"])
        assert ask(relay, "/v1/status", by=lost)[0] == 401
    finally:
        relay.stop()


def test_a_ban_of_a_token_closes_the_api_to_it_until_it_is_lifted(relay, tmp_path):
    own = tmp_path / "boss"
    own.write_text(ADMIN)
    admin = ("--admin", f"http://127.0.0.1:{relay.admin}", "--admin-token", own)
    banned = token(jti="banned", rights=["admin"])
    assert ask(relay, "/v1/status", by=banned)[0] == 200
    done = run(*THIS_TREE, "ban", "--token", "banned", *admin)
    assert done.stdout == "token:banned is banned; 0 sessions were ended\n"
    assert ask(relay, "/v1/status", by=banned) == (403, {"error": "The token is banned."})
    run(*THIS_TREE, "ban", "--lift", "token:banned", *admin)
    assert ask(relay, "/v1/status", by=banned)[0] == 200


def test_an_open_stream_ends_when_its_token_does(relay, lab):
    short = token(jti="short", rights=["admin"], exp=time.time() - 3)  # which is taken for 2 s more
    with opened(relay, "/v1/capture", by=short) as answer:
        assert answer.status == 200
        assert answer.read(28)
        wait_until(lambda: ask(relay, "/v1/status", by=short)[0] == 401)
        lab.peers["lab"].send(b"\xff" * 6 + bytes.fromhex("52540012ab01") + b"\x08\x06" + bytes(46))
        answer.read()  # returns
    assert "Exception" not in relay.output

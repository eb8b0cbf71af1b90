"""Chromium in rooms that are for tokens only: the relay's page, and pages elsewhere with the client."""

from __future__ import annotations

import json
import re
import time

import pytest
from browsers import site, steps
from operators import OperatedRelay
from processes import PATIENCE, Relay
from waiting import wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket

from guest.client import ConnectError
from guest.relay_socket import RelayPeer
from relay.tokens import make_key, public_half, sign

KEY = make_key("EdDSA")


def token(**claims):
    return sign(KEY, {"exp": time.time() + 600, **claims})


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "public.json"
    keys.write_text(json.dumps({"keys": [public_half(KEY)]}))
    relay = Relay("--auth", "required", "--auth-keys", keys)
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output
    assert "eyJ" not in relay.output, "a token stands in the log"


def test_a_wrong_token_is_an_event_of_its_room_by_both_carriers(tmp_path):
    keys, log, wrong = (
        tmp_path / "public.json",
        tmp_path / "audit.jsonl",
        sign(make_key("EdDSA"), {"exp": 2**32}),
    )
    keys.write_text(json.dumps({"keys": [public_half(KEY)]}))
    relay = OperatedRelay(tmp_path, "--auth", "required", "--auth-keys", keys, "--audit-log", log)
    try:
        for _ in range(2):
            with pytest.raises(ConnectError):
                RelayPeer(f"{relay.url}room/lab?token={wrong}", insecure=True)
            with pytest.raises(InvalidStatus):
                websocket(
                    f"ws://127.0.0.1:{relay.port}/room/lab", additional_headers={"Authorization": "Bearer x"}
                )
        told = [
            json.loads(line)
            for line in relay.vmrelay("events", "--past", "--json", "--room", "lab").splitlines()
        ]
        refused = {event["carrier"]: event for event in told if event["event"] == "refused"}
        assert {event["times"] for event in refused.values()} == {2}
        for carrier in ("webtransport", "websocket"):
            event = refused[carrier]
            assert (event["room"], event["mac"]) == ("lab", None)
            assert event["remote"].startswith("127.0.0.1:")
            assert "token" in event["why"]
        assert "was refused" in relay.vmrelay("events", "--past")
        wait_until(lambda: log.read_text().count('"refused"') == 4, log.read_text)
        assert wrong not in log.read_text() + str(told) + relay.output
    finally:
        relay.stop()


@pytest.fixture
def page(browser):
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    context.close()


def test_the_page_of_a_room_takes_the_token_out_of_its_address_and_joins(page, relay):
    room = f"http://127.0.0.1:{relay.port}/room/lab"
    asked = []
    page.on("request", lambda request: asked.append((request.url, request.headers.get("referer", ""))))
    page.goto(f"{room}?token={token(room='lab')}")
    assert page.url == room
    said = steps(page)
    assert (len(said), page.locator("#steps .bad").count()) == (5, 0), said
    assert said[0] == "connect: by webtransport"
    assert said[1].endswith(", room lab")
    assert page.title() == "vmrelay"
    assert [referer for _, referer in asked if "token" in referer] == []
    assert not any("eyJ" in text for text in (page.url, page.title(), page.inner_text("body")))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (None, "401: A token is needed: ?token= in the URL."),
        ({"exp": 1}, "401: The token has expired."),
        ({"room": "other"}, "403: The token is for another room."),
    ],
)
def test_the_page_says_why_it_is_refused(page, relay, claims, reason):
    page.goto(f"http://127.0.0.1:{relay.port}/room/lab")
    if claims is not None:
        page.fill("#token", token(**claims))
    assert steps(page) == [f"connect: the relay refuses with status {reason}"]


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
@pytest.mark.parametrize("place", ["option", "url"])
def test_a_page_elsewhere_joins_with_a_token(page, relay, tmp_path, transport, place):
    made = token(room="lab")
    scheme = {"webtransport": "https", "websocket": "ws"}[transport]
    url = f"{scheme}://127.0.0.1:{relay.port}/room/lab" + (f"?token={made}" if place == "url" else "")
    options = {"certificateHash": relay.hash} | ({"token": made} if place == "option" else {})
    module = f"""
      import {{ connect }} from "http://127.0.0.1:{relay.port}/client/index.js";
      const nic = await connect({json.dumps(url)}, {json.dumps(options)});
      console.log(`${{nic.assigned.ip.join(".")}} in ${{nic.assigned.room}} by ${{nic.carrier}}`);
      nic.close();
    """
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    with site(tmp_path) as origin:
        page.goto(origin)
        with page.expect_console_message(lambda message: message.type == "log") as logged:
            page.add_script_tag(content=module, type="module")
    assert re.fullmatch(rf"10\.0\.2\.\d+ in lab by {transport}", logged.value.text)


def test_a_page_elsewhere_is_told_why_it_is_refused(page, relay, tmp_path):
    module = f"""
      import {{ connect }} from "http://127.0.0.1:{relay.port}/client/index.js";
      connect("ws://127.0.0.1:{relay.port}/room/lab").catch((error) => console.log(error.message));
    """
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    with site(tmp_path) as origin:
        page.goto(origin)
        with page.expect_console_message(lambda message: message.type == "log") as logged:
            page.add_script_tag(content=module, type="module")
    assert logged.value.text == "the relay refuses with status 401: A token is needed: ?token= in the URL."

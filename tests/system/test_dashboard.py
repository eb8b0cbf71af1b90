"""The dashboard in Chromium: a real relay with guests and traffic, as an operator sees and changes it."""

from __future__ import annotations

import json
import sys
import time
import urllib.request

import pytest
from browsers import site
from operators import OperatedRelay
from playwright.sync_api import expect
from processes import PATIENCE, Program, Relay, free_port
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader
from waiting import wait_until

from guest.client import ConnectError
from guest.relay_socket import RelayPeer, RelaySocket
from relay.tokens import make_key, public_half, sign

GATEWAY, GATEWAY_MAC = "10.0.2.2", "52:54:00:12:34:56"
MAC = "52:54:00:00:77:01"
TOKEN = "a-token-of-some-length"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    relay = OperatedRelay(tmp_path_factory.mktemp("admin"), "--allow-cidr", "127.0.0.0/8")
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def link(relay):
    command = Program(sys.executable, "-m", "relay.main", "dashboard", "--admin", relay.admin)
    yield command.wait_for(r"^http://127\.0\.0\.1:\d+/dashboard/#token=.*$")[0]
    command.stop()
    assert "Traceback" not in command.output


def is_complaint(said):
    """Answers that are errors are told too, which some tests are about."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


@pytest.fixture
def open_page(browser):
    """Open pages; whatever their console complains of, violations of their policy among it, is an error."""
    contexts, complaints = [], []

    def open_at(url, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(url)
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page, link, guest):
    page = open_page(link)
    expect(page.locator("#state")).to_have_text("live")
    return page


@pytest.fixture
def guest(relay):
    guest = RelayPeer(relay.url, insecure=True, mac=MAC, name="web", reconnect=False)
    yield guest
    guest.close()


def pings(guest, count=1, payload=b""):
    with RelaySocket(guest) as one:
        packet = IP(src=str(guest.assigned.ip), dst=GATEWAY) / ICMP() / payload
        for _ in range(count):
            assert one.sr1(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet, timeout=PATIENCE, verbose=0)


def says(guest, payload, source=None):
    """Send a UDP datagram to this machine, from an address of another's if ``source``."""
    packet = IP(src=source or str(guest.assigned.ip), dst="127.0.0.1") / UDP(sport=4000, dport=free_port())
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet / payload)


def row(page, section, text):
    return page.locator(f"#{section} tbody tr").filter(has_text=text)


def test_the_token_is_not_left_in_the_address_bar_and_stays_in_the_tab(page):
    assert "#" not in page.url
    page.reload()
    expect(page.locator("#state")).to_have_text("live")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#state")).to_have_text("signed out")
    other.close()


def test_a_session_is_shown_and_its_counters_move(page, guest):
    session = row(page, "sessions", MAC)
    expect(session).to_contain_text("web")
    expect(session).to_contain_text(str(guest.assigned.ip))
    expect(session).to_contain_text("webtransport")
    expect(page.locator("#topology")).to_contain_text("web")
    moved = session.locator('[data-title="From guest"]')
    before = moved.inner_text()
    pings(guest, 3)
    expect(moved).not_to_have_text(before)
    page.locator("#traffic polyline.to").wait_for(state="attached")
    expect(page.locator("#figures")).to_contain_text("From guests")


def test_flows_and_drops_are_shown_with_their_reasons(page, guest):
    says(guest, b"hello")
    flow = row(page, "flows", f"{guest.assigned.ip}:4000")
    expect(flow.locator('[data-title="Bytes out"]')).to_have_text("5 B")
    says(guest, b"hello", source="192.0.2.9")
    expect(row(page, "drops", "switch.drop.foreign_source")).to_be_visible()


def test_sessions_and_their_flows_are_found_by_room_and_name(page, relay, guest):
    says(guest, b"hello")
    expect(row(page, "flows", f"{guest.assigned.ip}:4000")).to_have_count(1)
    other = RelayPeer(f"{relay.url}room/lab", insecure=True, name="other")
    try:
        expect(page.locator("#sessions tbody tr")).to_have_count(2)
        page.fill("#find", "OTHER")
        expect(page.locator("#sessions tbody tr")).to_have_count(1)
        expect(row(page, "sessions", "other")).to_have_count(1)
        expect(page.locator("#flows tbody tr")).to_have_count(0)
        page.fill("#find", "")
        page.select_option("#room", "default")
        expect(row(page, "sessions", MAC)).to_have_count(1)
        expect(row(page, "sessions", "other")).to_have_count(0)
    finally:
        other.close()


def test_what_has_happened_lately_is_told(page, guest):
    expect(page.get_by_role("log").get_by_role("listitem").filter(has_text=guest.mac).first).to_be_visible()


def test_events_are_told_as_they_happen(page, relay):
    RelayPeer(relay.url, insecure=True, name="visitor").close()
    log = page.get_by_role("log")
    expect(log.get_by_text("joined").first).to_be_visible()
    expect(log.get_by_text("left").first).to_be_visible()


def test_a_forward_is_added_and_removed_by_clicking(page, relay):
    port = free_port()
    page.fill('#forward [name="port"]', str(port))
    page.fill('#forward [name="vm"]', "web")
    page.fill('#forward [name="vm_port"]', "80")
    page.click("#forward button")
    forward = f"tcp:127.0.0.1:{port}:web:80"
    shown = row(page, "forwards", forward)
    expect(shown).to_be_visible()
    assert [item["forward"] for item in relay.asked("forwards")["default"]] == [forward]
    page.get_by_role("button", name=f"Remove {forward}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(shown).to_have_count(0)
    assert relay.asked("forwards")["default"] == []


def test_what_the_relay_refuses_is_said(page):
    page.fill('#forward [name="port"]', "70")
    page.fill('#forward [name="host"]', "not an address")
    page.fill('#forward [name="vm"]', "web")
    page.fill('#forward [name="vm_port"]', "80")
    with page.expect_response(lambda response: response.status == 409):
        page.locator('#forward [name="vm_port"]').press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not an address")


def test_a_session_is_ended_with_the_keyboard_alone(page, relay, guest):
    def tab_to(name):
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.locator(":focus").get_attribute("aria-label") == name:
                return
        raise AssertionError(f"Tab never came to {name}")

    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("To the sessions")
    page.keyboard.press("Enter")
    tab_to("Disconnect web")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Disconnect web?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert [peer["mac"] for peer in relay.asked("peers")] == [MAC]
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Disconnect web")
    page.keyboard.press("Enter")
    page.keyboard.type("go home")
    page.keyboard.press("Enter")
    expect(row(page, "sessions", MAC)).to_have_count(0)
    expect(page.locator(":focus")).to_have_attribute("id", "sessions")
    wait_until(lambda: guest.closed)
    relay.wait_for("the operator .* disconnected peer .*: go home")


def test_a_guest_is_banned_and_let_in_again(page, relay, guest):
    page.get_by_role("button", name="Ban web").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Whom")).to_have_value(f"mac {MAC}")
    dialog.get_by_label("Reason").fill("enough")
    dialog.get_by_role("button", name="Ban").click()
    banned = row(page, "bans", f"mac:{MAC}")
    expect(banned).to_contain_text("enough")
    expect(row(page, "sessions", MAC)).to_have_count(0)
    relay.wait_for("enough")
    with pytest.raises(ConnectError):
        RelayPeer(relay.url, insecure=True, mac=MAC, reconnect=False)
    page.get_by_role("button", name=f"Lift mac:{MAC}").click()
    expect(banned).to_have_count(0)
    assert relay.asked("ban") == []


def test_the_relay_is_drained_and_takes_sessions_again(page, relay):
    page.click("#drain")
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(page.locator("#drain")).to_have_text("End drain")
    assert relay.asked("status")["draining"] is True
    page.click("#drain")
    expect(page.locator("#drain")).to_have_text("Drain…")
    assert relay.asked("status")["draining"] is False


def test_a_capture_is_recorded_and_saved(page, guest, tmp_path):
    page.get_by_role("button", name="Capture web").click()
    expect(page.locator('#record [name="filter"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#recorded")).to_contain_text("recording")
    # The first bytes are the file's head: from then on it records.
    expect(page.locator("#recorded")).to_contain_text(" B")
    pings(guest, 2, 1000 * b"x")
    expect(page.locator("#recorded")).to_contain_text("kB")
    page.click('#record [name="stop"]')
    with page.expect_download() as saving:
        page.get_by_role("link", name="Save").click()
    path = tmp_path / "saved.pcapng"
    saving.value.save_as(path)
    with RawPcapNgReader(str(path)) as reader:
        frames = [Ether(data) for data, _ in reader]
    assert sum(ICMP in frame for frame in frames) >= 4
    assert saving.value.suggested_filename.endswith(".pcapng")


REGISTER_AND_LEAVE = """([url, name]) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    const register = JSON.stringify({ type: "Register", mac: [0x52, 0x54, 0, 0, 0x77, 9], name });
    socket.onopen = () => socket.send(Uint8Array.of(0, ...new TextEncoder().encode(register)));
    socket.onmessage = () => socket.close(4001, name);
    socket.onclose = resolve;
})"""


def test_what_a_client_says_when_it_leaves_is_text_in_the_log(page, open_page, relay):
    elsewhere = open_page(f"http://127.0.0.1:{relay.port}/")
    elsewhere.evaluate(REGISTER_AND_LEAVE, [f"ws://127.0.0.1:{relay.port}/", HOSTILE])
    expect(page.get_by_role("log").get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("img").count() == 0


BECOME = """(state) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_nothing_is_asked_while_nobody_looks(page):
    looks = []
    page.on("request", lambda request: looks.append(request.url) if "/overview" in request.url else None)
    page.evaluate(BECOME, "hidden")
    page.wait_for_timeout(4000)
    assert len(looks) <= 1, "one may have been on its way"
    with page.expect_response("**/v1/overview*"):
        page.evaluate(BECOME, "visible")


def test_what_a_guest_calls_itself_is_text_wherever_it_stands(open_page, link, relay):
    """The relay cleans names; a page that is told anything else must show it all the same."""
    page = open_page("about:blank")

    def with_hostile_texts(route):
        answer = json.loads(route.fetch().text())
        if isinstance(answer, dict):
            told = dict.fromkeys(("room", "name", "address", "remote", "carrier"), HOSTILE)
            answer["seen"]["rooms"] = [{**answer["seen"]["rooms"][0], "name": HOSTILE}]
            answer["seen"]["peers"] = [{**answer["seen"]["peers"][0], **told, "drops": {HOSTILE: 1}}]
            answer["seen"]["flows"] = [
                [HOSTILE, dict.fromkeys(("protocol", "guest", "remote", "state"), HOSTILE) | {"port": 1}]
            ]
            answer["seen"]["forwards"] = [[HOSTILE, {"forward": HOSTILE, "guest": HOSTILE, "clients": None}]]
            answer["seen"]["drops"] = {HOSTILE: 1}
        else:
            answer = [{"id": HOSTILE, "ends_in": 1, "reason": HOSTILE}]
        route.fulfill(json=answer)

    page.route("**/v1/overview*", with_hostile_texts)
    page.route("**/v1/bans", with_hostile_texts)
    event = {"time": 1, "event": HOSTILE, "message": HOSTILE, "room": HOSTILE}
    page.route("**/v1/events/recent", lambda route: route.fulfill(json=[]))
    page.route("**/v1/events", lambda route: route.fulfill(body=f"data: {json.dumps(event)}\n\n"))
    guest = RelayPeer(relay.url, insecure=True, name="web")
    try:
        page.goto(link)
        for section in ("sessions", "flows", "forwards", "drops", "bans", "events"):
            expect(page.locator(f"#{section}").get_by_text(HOSTILE).first).to_be_visible()
        expect(page.locator("#topology")).to_contain_text("<img")
        page.get_by_role("button", name="Ban <img").click()
        expect(page.locator("#dialog-title")).to_have_text(f"Ban {HOSTILE}?")
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 1
    finally:
        guest.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_it_fits_any_width_by_day_and_by_night(open_page, link, guest, width, scheme):
    says(guest, b"hello")
    page = open_page(link, viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(row(page, "flows", f"{guest.assigned.ip}:4000").first).to_be_visible()
    page.get_by_role("button", name="Ban web").click()
    wide, inside, ground, ink = page.evaluate(
        """() => [document.documentElement.scrollWidth,
                  [...document.querySelectorAll("section, form, dialog")]
                      .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.id),
                  getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color]"""
    )
    assert wide <= width
    assert inside == []
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (ground, ink)]
    assert (light[0] > light[1]) == (scheme == "light")


@pytest.fixture(scope="module")
def relay_on_tcp(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN)
    port = free_port()
    relay = Relay("--admin", f"127.0.0.1:{port}", "--admin-token", path)
    yield relay, f"http://127.0.0.1:{port}/"
    relay.stop()
    assert "Traceback" not in relay.output
    assert TOKEN not in relay.output


def test_over_tcp_who_has_the_token_signs_in_and_out(browser, relay_on_tcp):
    _, url = relay_on_tcp
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#state")).to_have_text("signed out")
    expect(page.locator("main")).to_be_hidden()
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_contain_text("needs its token")
    page.fill("#token", TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#state")).to_have_text("live")
    assert TOKEN not in page.content()
    assert context.cookies() == []
    page.click("#sign-out")
    expect(page.locator("#state")).to_have_text("signed out")
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
    context.close()


def test_who_may_look_at_one_room_gets_that_room(open_page, tmp_path):
    key, keys, port = make_key("EdDSA"), tmp_path / "public.json", free_port()
    keys.write_text(json.dumps({"keys": [public_half(key)]}))
    relay = Relay("--auth", "optional", "--auth-keys", keys, "--admin", f"127.0.0.1:{port}")
    guests = [
        RelayPeer(f"{relay.url}room/{name}", insecure=True, name=name, reconnect=False)
        for name in ("lab", "elsewhere")
    ]
    try:
        page = open_page(f"http://127.0.0.1:{port}/")
        page.fill("#token", sign(key, {"exp": time.time() + 600, "rights": ["admin"], "room": "lab"}))
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text("live")
        expect(page.locator("#sessions tbody tr")).to_have_count(1)
        expect(page.locator("body")).not_to_contain_text("elsewhere")
        for hidden in ("#bans", "#drain", "text=Ban"):
            expect(page.locator(hidden).first).to_be_hidden()
        page.get_by_role("button", name="Disconnect lab").click()
        page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
        expect(page.locator("#sessions tbody tr")).to_have_count(0)
        wait_until(lambda: guests[0].closed)
        assert not guests[1].closed
    finally:
        for guest in guests:
            guest.close()
        relay.stop()


def test_a_page_of_another_origin_gets_nothing_even_with_the_token(browser, relay_on_tcp, tmp_path):
    _, url = relay_on_tcp
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    context = browser.new_context()
    page = context.new_page()
    with site(tmp_path) as origin:
        page.goto(origin)
    tried = page.evaluate(
        """async ([url, token]) => {
             const tried = {};
             const attempts = {
               read: () => fetch(`${url}v1/rooms`, { headers: { Authorization: `Bearer ${token}` } }),
               send: () => fetch(`${url}v1/drain`, { method: "POST", mode: "no-cors" }),
               page: () => fetch(`${url}dashboard/`),
               code: () => import(`${url}dashboard/relay.js`),
               frame: () => new Promise((resolve, reject) => {
                 const frame = document.createElement("iframe");
                 frame.src = `${url}dashboard/`;
                 frame.onload = () => {
                   try { frame.contentDocument === null ? reject(Error("hidden")) : resolve(); }
                   catch (error) { reject(error); }
                 };
                 document.body.append(frame);
               }),
             };
             for (const [name, attempt] of Object.entries(attempts)) {
               try { tried[name] = (await attempt())?.type ?? "loaded"; } catch { tried[name] = "refused"; }
             }
             return tried;
           }""",
        [url, TOKEN],
    )
    assert tried == {**dict.fromkeys(("read", "page", "code", "frame"), "refused"), "send": "opaque"}
    with urllib.request.urlopen(f"{url}readyz", timeout=PATIENCE) as answer:
        assert answer.read() == b"ready\n"
    context.close()


def test_a_relay_that_goes_away_is_said(open_page, tmp_path):
    relay = OperatedRelay(tmp_path)
    command = Program(sys.executable, "-m", "relay.main", "dashboard", "--admin", relay.admin)
    try:
        page = open_page(command.wait_for(r"^http://\S+$")[0])
        expect(page.locator("#state")).to_have_text("live")
        with page.expect_response(lambda response: response.status == 502):
            relay.stop()
        expect(page.locator("#state")).to_contain_text("trying again")
    finally:
        command.stop()
        relay.stop()

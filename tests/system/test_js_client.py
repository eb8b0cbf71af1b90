"""The npm package in Chromium and on Node, against a real relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from browsers import site
from processes import PATIENCE, ROOT, Relay, run
from test_clusters import play

COMPATIBILITY = ROOT / "clients/js/compat/node"
PROCESSOR = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
POOL = 245
"""Addresses that a relay has for guests."""
RESERVE = 4
"""Of these, what the clients of one address leave to others."""

GATEWAY_PING = """async () => {
    // ARP for the gateway, and its answer, as a guest would do it.
    const ip = nic.assigned?.ip ?? [0, 0, 0, 0];
    const ask = [255,255,255,255,255,255, ...nic.mac, 8,6, 0,1, 8,0, 6,4, 0,1, ...nic.mac, ...ip,
                 0,0,0,0,0,0, 10,0,2,2];
    const answer = new Promise((resolve) => { nic.onframe = (frame) => frame[12] === 8 && frame[13] === 6 &&
                                              frame[21] === 2 && resolve([...frame.subarray(22, 32)]); });
    nic.send(Uint8Array.from(ask));
    return answer;
}"""
GATEWAY = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 2]


class Again(Relay):
    close = Relay.stop


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A page beside the built package."""
    run(ROOT / "scripts/npm.sh", "clients/js", patience=300)
    run("npm", "--prefix", ROOT / "clients/js", "run", "--silent", "build", patience=120)
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "clients/js/dist", folder / "client")
    for name in ("network.js", "packets.js"):
        shutil.copy(ROOT / "relay/pages" / name, folder)
    (folder / "index.html").write_text("<!doctype html><title>VM</title>")
    with site(folder) as url:
        yield url


@pytest.fixture
def page(browser, origin):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(origin)
    yield page
    page.close()


@pytest.fixture
def relay():
    relay = Relay()
    yield relay
    relay.stop()


def connect(page, url, **options):
    """Connect; gives the carrier."""
    return page.evaluate(
        """async ([url, options]) => {
             const { connect } = await import("/client/index.js");
             window.states = [];
             const onstate = ({ state, reason }) => states.push([state, reason]);
             window.nic = await connect(url, { ...options, onstate });
             return nic.carrier;
           }""",
        [url, options],
    )


def address(page):
    return page.evaluate("nic.assigned.ip.join('.')")


def test_webtransport_with_the_hash_that_the_relay_tells(page, relay):
    assert connect(page, f"http://127.0.0.1:{relay.port}/") == "webtransport"
    assert address(page).startswith("10.0.2.")
    assert page.evaluate(GATEWAY_PING) == GATEWAY


def test_webtransport_with_a_given_hash(page, relay):
    assert connect(page, relay.url, certificateHash=relay.hash) == "webtransport"
    assert page.evaluate(GATEWAY_PING) == GATEWAY


def test_websocket_where_the_certificate_is_not_taken(page, relay):
    assert connect(page, f"http://127.0.0.1:{relay.port}/", certificateHash="00" * 32) == "websocket"
    assert page.evaluate(GATEWAY_PING) == GATEWAY


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_raw_frames(page, relay, transport):
    url = f"http://127.0.0.1:{relay.port}/"
    assert connect(page, url, transport=transport, encapsulation="raw") == transport
    assert page.evaluate(GATEWAY_PING) == GATEWAY


def test_an_emulator_that_knows_only_a_websocket_url(page, relay):
    # As v86's own relay client does it: no subprotocol, one bare frame per binary message.
    answer = page.evaluate(
        """(url) => new Promise((resolve, reject) => {
             const socket = new WebSocket(url);
             socket.binaryType = "arraybuffer";
             socket.onerror = reject;
             socket.onmessage = ({ data }) => resolve([...new Uint8Array(data)].slice(22, 32));
             const mac = [0x52, 0x54, 0, 9, 9, 9];
             const ask = [255,255,255,255,255,255, ...mac, 8,6, 0,1, 8,0, 6,4, 0,1, ...mac, 0,0,0,0,
                          0,0,0,0,0,0, 10,0,2,2];
             socket.onopen = () => socket.send(Uint8Array.from(ask));
           })""",
        f"ws://127.0.0.1:{relay.port}/raw",
    )
    assert answer == GATEWAY


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_a_relay_that_is_started_again_is_found_again(page, relay, transport):
    connect(page, f"http://127.0.0.1:{relay.port}/", transport=transport)
    before = address(page)
    relay.signal(signal.SIGTERM)
    relay.wait()
    page.wait_for_function("states.some(([state]) => state === 'waiting')")
    # Of two flags the last one counts: the same port again.
    with contextlib.closing(Again("--port", relay.port)):
        page.wait_for_function("nic.state === 'open'")
        assert address(page) == before
        assert page.evaluate(GATEWAY_PING) == GATEWAY
        assert page.evaluate("nic.statistics.reconnects") == 1


MAC = [0x52, 0x54, 0x15, 0xEE, 0x77, 0x01]


def connect_with(page, relay, transport, mac):
    """Connect, under a MAC or a random one; gives the MAC."""
    return page.evaluate(
        """async ([url, transport, mac]) => {
             const { connect } = await import("/client/index.js");
             window.states = [];
             const onstate = ({ state, reason }) => states.push([state, reason]);
             const given = mac === null ? {} : { mac: Uint8Array.from(mac) };
             window.nic = await connect(url, { transport, ...given, onstate });
             return [...nic.mac];
           }""",
        [f"http://127.0.0.1:{relay.port}/", transport, mac],
    )


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
@pytest.mark.parametrize("mac", [MAC, None], ids=["chosen", "random"])
def test_a_page_that_is_loaded_again_goes_on_where_it_was(page, relay, transport, mac):
    """With its MAC, its address, and, as the relay keeps its port, with what its guest has open."""
    before = connect_with(page, relay, transport, mac), address(page)
    for loads in (1, 2):
        page.reload()
        assert (connect_with(page, relay, transport, mac), address(page)) == before
        assert page.evaluate(GATEWAY_PING) == GATEWAY
        counters = relay.counters()
        assert (counters["switch.resumed"], counters.get("switch.takeovers", 0)) == (loads, 0)


def test_a_relay_that_has_forgotten_all_gives_a_page_that_is_loaded_again_its_address(page, relay):
    """The second one of two whose MACs have one place in the pool comes back first."""
    same_place = [*MAC[:5], 0xF6]
    connect_with(page, relay, "websocket", same_place)
    first = address(page)
    page.evaluate("nic.close()")
    connect_with(page, relay, "websocket", MAC)
    assert address(page) != first, "which waits for the other"
    before = address(page)
    relay.signal(signal.SIGKILL)
    relay.wait()
    page.reload()
    with contextlib.closing(Again("--port", relay.port)) as again:
        connect_with(page, again, "websocket", MAC)
        assert address(page) == before


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_a_tab_that_is_duplicated_has_another_mac_and_leaves_the_first_in_peace(page, relay, transport):
    first = connect_with(page, relay, transport, None)
    page.reload()
    assert connect_with(page, relay, transport, None) == first
    # A window that a page opens begins with a copy of the tab's storage, as a duplicate does.
    with page.expect_popup() as opened:
        page.evaluate("void window.open(location.href)")
    copy = opened.value
    copy.wait_for_load_state()
    assert copy.evaluate("sessionStorage.length") == 0
    assert connect_with(copy, relay, transport, None) != first
    assert page.evaluate(GATEWAY_PING) == copy.evaluate(GATEWAY_PING) == GATEWAY
    for tab in (page, copy):
        assert tab.evaluate("nic.statistics.reconnects") == 0
    copy.close()


def test_two_tabs_of_one_chosen_mac_do_not_throw_each_other_out_for_ever(page, relay):
    """One of them goes on under another: the younger, unless the first is as young."""
    connect_with(page, relay, "websocket", MAC)
    with page.expect_popup() as opened:
        page.evaluate("void window.open(location.href)")
    tabs = page, opened.value
    opened.value.wait_for_load_state()
    connect_with(opened.value, relay, "websocket", MAC)
    relay.wait_for("registered (?!52:54:15:ee:77:01)")
    for tab in tabs:
        tab.wait_for_function("nic.state === 'open' && nic.assigned !== undefined")
        assert tab.evaluate(GATEWAY_PING) == GATEWAY
    macs = [tab.evaluate("[...nic.mac]") for tab in tabs]
    assert (MAC in macs, macs[0] != macs[1]) == (True, True)
    assert sum(tab.evaluate("nic.statistics.reconnects") for tab in tabs) <= 2
    opened.value.close()


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_the_end_of_the_relay_is_told_as_such(page, relay, transport):
    connect(page, f"http://127.0.0.1:{relay.port}/", transport=transport)
    relay.stop()
    page.wait_for_function("states.some(([state]) => state === 'waiting')")
    assert ["waiting", "relay is shutting down"] in page.evaluate("states")


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_the_relays_closing_reason_is_shown(page, relay, transport):
    url = f"http://127.0.0.1:{relay.port}/?encap=nonsense"
    problem = page.evaluate(
        """async ([url, transport]) => {
             const { connect } = await import("/client/index.js");
             return connect(url, { transport }).then(() => "connected", (error) => error.message);
           }""",
        [url, transport],
    )
    assert problem == "encap is 'nonsense', must be framed or raw"


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_the_url_for_emulators_is_refused_with_a_reason(page, relay, scheme):
    problem = page.evaluate(
        """async (url) => {
             const { connect } = await import("/client/index.js");
             return connect(url).then(() => "connected", (error) => `${error.name}: ${error.message}`);
           }""",
        f"{scheme}://127.0.0.1:{relay.port}/raw",
    )
    assert problem.startswith("TypeError: ")
    assert "carries bare frames and gives no address" in problem


def test_a_guest_is_found_by_the_name_that_its_card_tells(page, relay):
    url = f"http://127.0.0.1:{relay.port}/"
    connect(page, url, name="builder")
    found = page.evaluate(
        """async (url) => {
             const [{ connect }, { Guest }] = [await import("/client/index.js"), await import("/network.js")];
             const other = await connect(url);
             const guest = new Guest(other);
             const { gateway } = other.assigned;
             return guest.lookUp("builder.vm.internal", gateway, await guest.resolve(gateway));
           }""",
        url,
    )
    assert [".".join(map(str, ip)) for ip in found["addresses"]] == [address(page)]


def test_nothing_there_is_one_clear_error(page):
    problem = page.evaluate(
        """async () => {
             const { connect } = await import("/client/index.js");
             return connect("http://127.0.0.1:9/").then(() => "connected", (error) => error.message);
           }"""
    )
    assert problem.startswith("WebTransport: ")
    assert "; WebSocket: " in problem


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Run a program beside the installed package, with or without ``ws``; gives what it said."""
    run(ROOT / "scripts/npm.sh", "clients/js", COMPATIBILITY, patience=600)
    archives = tmp_path_factory.mktemp("archive")
    run("npm", "pack", "--silent", "--pack-destination", archives, cwd=ROOT / "clients/js", patience=120)
    (archive,) = archives.iterdir()

    def say(version, name, *arguments, ws):
        folder = tmp_path_factory.mktemp("program")
        (folder / "package.json").write_text("{}")
        run("npm", "install", "--offline", "--no-audit", "--no-fund", archive, cwd=folder)
        if ws:
            (folder / "node_modules/ws").symlink_to(COMPATIBILITY / "node_modules/ws")
        shutil.copy(ROOT / "tests/system" / name, folder)
        node = COMPATIBILITY / f"node_modules/node-{version}-{PROCESSOR}/bin/node"
        return json.loads(run(node, "--preserve-symlinks", folder / name, *arguments, patience=120).stdout)

    return say


@pytest.mark.parametrize("version", [18, 20, 22, 24])
def test_a_card_on_node(program, relay, version):
    said = program(version, "card_on_node.mjs", f"http://127.0.0.1:{relay.port}/", ws=version < 22)
    assert said == {"carrier": "websocket", "gateway": GATEWAY}


@pytest.mark.parametrize("version", [18, 20])
def test_a_node_without_websocket_says_what_to_do(program, relay, version):
    said = program(version, "card_on_node.mjs", f"http://127.0.0.1:{relay.port}/", ws=False)
    assert said == {
        "problem": "WebTransport: there is none here; "
        "WebSocket: there is none here; use Node 22 or later, or install the package ws"
    }


@pytest.mark.parametrize("version", [18, 20, 22, 24])
def test_nothing_there_is_one_clear_error_on_node(program, version):
    said = program(version, "card_on_node.mjs", "ws://127.0.0.1:9/", ws=version < 22)
    assert said["problem"].startswith("WebSocket: ")
    assert "no answer within" not in said["problem"]


def test_every_machine_takes_one_address_until_there_are_none(program):
    relay = Relay("--client-share", "100")
    outcomes = program(22, "machines_on_node.mjs", f"http://127.0.0.1:{relay.port}/", POOL + 5, ws=False)
    served = [outcome for outcome in outcomes if "problem" not in outcome]
    assert len(served) == POOL, [outcome["problem"] for outcome in outcomes if "problem" in outcome]
    assert all(outcome["own"] and outcome["offered"] == outcome["assigned"] for outcome in served)
    assert len({outcome["assigned"] for outcome in served}) == POOL
    problems = {outcome["problem"] for outcome in outcomes if "problem" in outcome}
    assert problems == {"address pool is full"}
    relay.stop()


def test_a_client_leaves_addresses_to_others(program, relay):
    outcomes = program(22, "machines_on_node.mjs", f"http://127.0.0.1:{relay.port}/", POOL, ws=False)
    problems = [outcome["problem"] for outcome in outcomes if "problem" in outcome]
    assert problems == ["this client has too many addresses"] * RESERVE


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_card_on_node_leaves_a_lost_machine_of_a_cluster_with_its_address(tmp_path, program, number):
    async def scenario(cluster):
        one, other = await cluster.machine(), await cluster.machine()
        await one.counts("rooms.workers_found")
        urls = [f"http://127.0.0.1:{machine.port}/" for machine in (one, other)]
        card = asyncio.create_task(
            asyncio.to_thread(program, 22, "lost_machine_on_node.mjs", *urls, ws=False)
        )
        await one.hears("registered 52:54:00:07:07:08")
        await asyncio.sleep(0.5)  # the other has heard of it
        began = time.monotonic()
        one.signal(number)
        said = await card
        took = time.monotonic() - began
        one.signal(signal.SIGKILL)
        assert said["before"] == said["after"]
        assert took < 10

    with ThreadPoolExecutor(1) as thread:  # the browser of this file has the loop of this one
        thread.submit(play, tmp_path, scenario).result()

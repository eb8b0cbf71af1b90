"""The page at the relay's TCP port, in Chromium."""

from __future__ import annotations

import pytest
from browsers import chromium
from processes import PATIENCE, ROOT, Relay, run


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture(scope="module")
def relay():
    relay = Relay()
    yield relay
    relay.stop()


@pytest.fixture
def page(browser, relay):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{relay.port}/")
    page.locator("#copy:enabled").wait_for()
    yield page
    context.close()
    assert [line for line in complaints if "favicon" not in line and "404" not in line] == []


def steps(page):
    page.fill("#name", "gateway.vm.internal")
    page.click("#test button")
    # Its policy forbids what Playwright's waiting for functions would do: compile text.
    page.locator("#steps .bad, #steps .well:nth-child(5)").first.wait_for()
    return page.locator("#steps li").all_inner_texts()


def test_it_says_how_to_connect(page, relay):
    assert page.inner_text("#hash") == relay.hash
    assert page.inner_text("#webtransport") == relay.url
    assert page.inner_text("#raw") == f"ws://127.0.0.1:{relay.port}/raw"
    assert f'connect("{relay.url}", {{ certificateHash: "{relay.hash}" }})' in page.inner_text("#example")
    page.click("#copy")
    page.get_by_text("copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == relay.hash


def test_its_test_goes_by_webtransport(page):
    connected, address, found, pinged, resolved = steps(page)
    assert connected == "connect: by webtransport"
    assert address.startswith("get an address: 10.0.2.")
    assert found == "find the gateway: 10.0.2.2 at 52:54:00:12:34:56"
    assert pinged.startswith("ping the gateway: ")
    assert resolved.startswith("resolve gateway.vm.internal: 10.0.2.2 in ")


def test_its_test_goes_by_websocket_where_webtransport_is_not_there(page):
    page.evaluate("delete window.WebTransport")
    assert steps(page)[0] == "connect: by websocket"


def test_it_ships_the_client_as_it_is_built(tmp_path):
    run(ROOT / "scripts/npm.sh", "clients/js", patience=300)
    run(
        "npm",
        "--prefix",
        ROOT / "clients/js",
        "run",
        "--silent",
        "build:page",
        "--",
        "--outDir",
        tmp_path,
        patience=120,
    )
    built = {file.name: file.read_text() for file in tmp_path.iterdir()}
    shipped = {file.name: file.read_text() for file in (ROOT / "relay/pages/client").iterdir()}
    assert shipped == built, "npm --prefix clients/js run build:page brings relay/pages/client up to date"

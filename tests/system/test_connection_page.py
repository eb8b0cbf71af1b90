"""The page at the relay's TCP port, and pages elsewhere that do as it says, in Chromium."""

from __future__ import annotations

import re

import pytest
from browsers import chromium, site
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


@pytest.fixture
def elsewhere(browser, tmp_path):
    """Run a module in a page of another origin; gives the first line that it logs."""
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    # As if the relay's own certificate had been accepted.
    context = browser.new_context(ignore_https_errors=True)

    def log_of(module, before=""):
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(origin)
        with page.expect_console_message(lambda message: message.type == "log") as logged:
            page.evaluate(f"() => {{ {before} }}")
            page.add_script_tag(content=module, type="module")
        return logged.value.text

    with site(tmp_path) as origin:
        yield log_of
    context.close()


def test_what_it_says_works_in_a_page_of_another_origin(page, elsewhere):
    assert re.fullmatch(r"address 10\.0\.2\.\d+ by webtransport", elsewhere(page.inner_text("#example")))


def test_what_the_documentation_says_works_in_a_page_of_another_origin(relay, elsewhere):
    text = (ROOT / "docs/clients.md").read_text()
    example = re.search(r"^```js\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    module = example.replace("HOST:4433", f"127.0.0.1:{relay.port}").replace("HASH", relay.hash)
    vm = "window.vm = { mac: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3), receive() {} };"
    assert re.fullmatch(r"10\.0\.2\.\d+ by webtransport", elsewhere(module, vm))


@pytest.mark.parametrize("width", [320, 800, 1280])
def test_its_code_is_seen_to_its_end(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    right, lines, fits = page.evaluate(
        """() => {
             const code = document.getElementById("example");
             const range = document.createRange();
             range.selectNodeContents(code);
             const box = code.parentElement;
             const inside = box.getBoundingClientRect();
             const ends = [...range.getClientRects()].map(({ right }) => right);
             return [inside.right - Math.max(...ends), ends.length, box.scrollWidth <= box.clientWidth &&
                     document.documentElement.scrollWidth <= innerWidth];
           }"""
    )
    assert lines >= 3
    assert right >= 0
    assert fits


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

"""The page at the relay's TCP port, and pages elsewhere that do as it says, in Chromium."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from ipaddress import ip_address

import pytest
from browsers import site, steps
from playwright.sync_api import expect
from processes import PATIENCE, ROOT, Relay, free_port, run

from relay.tokens import make_key, public_half


@pytest.fixture(scope="module")
def relay():
    relay = Relay("--host-access")
    yield relay
    relay.stop()


@pytest.fixture
def open_page(browser):
    """Open pages; whatever their console complains of, violations of their policy among it, is an error."""
    contexts, complaints = [], []

    def open_at(url, **options):
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.locator("#copy:enabled").wait_for()
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield open_at
    for context in contexts:
        context.close()
    # What does not get through is told too, which some tests are about.
    assert [line for line in complaints if "failed" not in line.lower()] == []


@pytest.fixture
def page(open_page, relay):
    return open_page(f"http://127.0.0.1:{relay.port}/")


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


ADDRESSES = [
    *("10.0.2.2", "::", "::1", "fe80::1", "fe80::5054:ff:fe12:3456", "fd00::2", "2001:db8::"),
    *("2001:db8:0:1:1:1:1:1", "2001:db8::1:0:0:1", "2001:0:0:1::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6::"),
]


def results(page, name="gateway.vm.internal", port=443):
    """Run its test to the end; give its steps by their titles, and what it says that they mean."""
    page.fill("#name", name)
    page.fill("#port", str(port))
    page.click("#test button")
    page.locator("#verdict li").first.wait_for()
    lines = page.locator("#results ol li").all_inner_texts()
    steps = {title: details for title, _, details in (line.partition(": ") for line in lines)}
    return steps, page.locator("#verdict").inner_text()


@contextlib.contextmanager
def tcp_server():
    """Listen on 127.0.0.1; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def only_tcp(relay, *, silent):
    """A way to the relay that lets TCP through and no UDP, which is refused or just lost; gives its port."""
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody,
    ):
        if silent:
            nobody.bind(("127.0.0.1", port))
        threading.Thread(target=_carry, args=(server, relay.port), daemon=True).start()
        yield port
        server.shutdown(socket.SHUT_RDWR)


def _carry(server, port):
    with contextlib.suppress(OSError):
        while True:
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source, sink):
    with source, contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_its_test_tries_both_carriers(page, relay):
    steps, said = results(page)
    for carrier in ("WebTransport, UDP", "WebSocket, TCP"):
        assert re.fullmatch(r"a session after \d+ ms", steps[f"{carrier} port {relay.port}"])
    assert "Both carriers get through" in said
    assert "The LAN works" in said


def test_its_test_works_over_https_where_the_certificate_was_accepted(open_page, relay):
    page = open_page(f"https://127.0.0.1:{relay.port}/", ignore_https_errors=True)
    assert page.inner_text("#raw") == f"wss://127.0.0.1:{relay.port}/raw"
    assert "Both carriers get through" in results(page)[1]


@pytest.mark.parametrize("silent", [True, False])
def test_its_test_says_when_a_firewall_eats_udp(open_page, relay, silent):
    with only_tcp(relay, silent=silent) as port:
        page = open_page(f"http://127.0.0.1:{port}/")
        steps, said = results(page)
    assert steps[f"WebTransport, UDP port {port}"].startswith("WebTransport: ")
    assert steps["connect"] == "by websocket"
    assert f"Only WebSocket gets through: a firewall on the way eats UDP port {port}" in said


def test_its_test_says_when_it_is_the_browser_that_has_no_webtransport(page):
    page.evaluate("delete window.WebTransport")
    _, said = results(page)
    assert "This browser has no WebTransport" in said
    assert "firewall" not in said


def test_its_test_reaches_a_host_outside_by_tcp_and_ping(page):
    with tcp_server() as port:
        steps, said = results(page, "host.vm.internal", port)
    assert re.fullmatch(r"[\d.]+ ms", steps[f"TCP to 10.0.2.4 port {port}"])
    assert re.fullmatch(r"[\d.]+ ms", steps["ping 10.0.2.4"])
    assert f"TCP gets out: host.vm.internal answers at port {port}" in said
    assert "Pings get out" in said


def test_its_test_says_why_there_is_no_tcp(page):
    port = free_port()
    steps, said = results(page, "10.0.2.4", port)
    assert steps["resolve 10.0.2.4"] == "it is an address"
    assert steps[f"TCP to 10.0.2.4 port {port}"] == "refused: nothing listens there"
    assert f"TCP gets out: 10.0.2.4 answers, but nothing listens at its port {port}" in said
    page.locator("#test button:enabled").wait_for()
    steps, said = results(page, "192.168.1.1")
    assert steps["TCP to 192.168.1.1 port 443"] == "the relay's rules forbid it"
    assert steps["ping 192.168.1.1"] == "the relay's rules forbid it"
    assert "TCP to 192.168.1.1 port 443: the relay's rules forbid it" in said


def test_its_test_finds_the_router_of_ipv6(page):
    steps, said = results(page)
    address = r"fd76:6d72:656c:6179:[0-9a-f]+:[0-9a-f]+:[0-9a-f]+:[0-9a-f]+"
    assert re.fullmatch(rf"{address}, the router answers after [\d.]+ ms", steps["IPv6 on the LAN"])
    assert "IPv6 works on the LAN" in said


def test_its_test_opens_connections_over_ipv6(open_page):
    relay = Relay("--allow-cidr", "::1/128")  # a way out by IPv6, whatever this machine has
    try:
        steps, said = results(open_page(f"http://127.0.0.1:{relay.port}/"))
    finally:
        relay.stop()
    assert steps["TCP to fd76:6d72:656c:6179::2 port 443"] == "refused: nothing listens there"
    assert "IPv6 works on the LAN, and gets out" in said


def test_addresses_are_written_as_people_write_them(page):
    written = page.evaluate(
        """async (addresses) => {
             const { addressText } = await import("/packets.js");
             return addresses.map((address) => addressText(address));
           }""",
        [list(ip_address(text).packed) for text in ADDRESSES],
    )
    assert written == ADDRESSES


def test_its_test_says_that_a_lan_has_no_ipv6(open_page):
    relay = Relay("--no-ipv6")
    try:
        steps, said = results(open_page(f"http://127.0.0.1:{relay.port}/"))
    finally:
        relay.stop()
    assert steps["IPv6 on the LAN"] == "no answer within 5 s"
    assert "There is no IPv6 on this LAN" in said


def test_its_test_says_why_the_relay_lets_nobody_in(open_page, tmp_path):
    keys = tmp_path / "public.json"
    keys.write_text(json.dumps({"keys": [public_half(make_key("EdDSA"))]}))
    relay = Relay("--auth", "required", "--auth-keys", keys)
    try:
        steps, said = results(open_page(f"http://127.0.0.1:{relay.port}/"))
    finally:
        relay.stop()
    assert "the relay refuses with status 401" in steps["connect"]
    assert said.startswith("Neither carrier gets through: the relay refuses with status 401")


TABS = {
    "Browser": ("example", "{url}"),
    "v86": ("v86-url", "ws://127.0.0.1:{port}/raw"),
    "QEMU": ("qemu", "vmrelay attach --qemu /tmp/nic0 --cert-hash {hash} {url} & until [ -S /tmp/nic0 ]; do"),
    "TAP": ("tap", "sudo vmrelay attach --tap tap0 --configure --cert-hash {hash} {url}"),
    "Python": ("python", 'vm_client("{url}", cert_hash="{hash}")'),
}


def test_each_tab_has_what_to_paste_and_the_keyboard_reaches_them(page, relay):
    page.get_by_role("tab", name="Browser").focus()
    for name, (where, text) in TABS.items():
        tab = page.get_by_role("tab", name=name)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        expect(page.locator(f"#{where}")).to_be_visible()
        wanted = text.format(url=relay.url, hash=relay.hash, port=relay.port)
        expect(page.locator(f"#{where}")).to_contain_text(wanted)
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Browser")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Copy the code")
    page.keyboard.press("Enter")
    expect(page.locator("#pasted")).to_have_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#python").text_content()


def test_a_room_has_its_own_lines_to_paste(open_page, relay):
    page = open_page(f"http://127.0.0.1:{relay.port}/room/lab")
    assert page.inner_text("#room") == "lab"
    for where in ("example", "qemu", "tap", "python", "shell", "v86"):
        assert f"{relay.url}room/lab" in page.locator(f"#{where}").text_content()
    assert f"ws://127.0.0.1:{relay.port}/room/lab/raw" in page.locator("#v86-url").text_content()


def test_a_room_in_a_link_of_somebody_elses_is_text(open_page, relay):
    page = open_page(f"http://127.0.0.1:{relay.port}/?room=<img src=x onerror=alert(1)>")
    assert page.inner_text("#room") == "<img src=x onerror=alert(1)>"
    assert page.locator("img").count() == 0
    assert "<" not in page.inner_text("#webtransport")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 800])
def test_it_fits_a_phone_by_day_and_by_night(open_page, relay, width, scheme):
    page = open_page(
        f"http://127.0.0.1:{relay.port}/", viewport={"width": width, "height": 700}, color_scheme=scheme
    )
    results(page, "host.vm.internal")
    for name in TABS:
        page.get_by_role("tab", name=name).click()
        wide, ground, ink = page.evaluate(
            """() => [document.documentElement.scrollWidth,
                      getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.body).color]"""
        )
        assert wide <= width, name
        light = [sum(map(int, colour[4:-1].split(","))) for colour in (ground, ink)]
        assert (light[0] > light[1]) == (scheme == "light")


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

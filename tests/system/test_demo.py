"""The demo of examples/v86 in Chromium: Debian's kernel boots in two tabs and uses the LAN."""

from __future__ import annotations

import re

import pytest
from browsers import chromium, site
from file_servers import serving
from processes import ROOT, Relay, run

BUILDING = 300.0
BOOTING = 120.0
"""Seconds; an emulated machine on a busy computer takes its time."""
RESTORE = """async (relay) => {
    // Two machines from the state of the one in this page, with cards by the client that the relay serves.
    const [{ V86 }, { connectV86 }] = [await import("./libv86.mjs"), await import(`${relay}client/v86.js`)];
    const state = await emulator.save_state();
    window.restored = await Promise.all([0, 1].map(async () => {
        const machine = new V86({
            wasm_path: "v86.wasm", bios: { url: "bios.bin" }, vga_bios: { url: "vgabios-stdvga.bin" },
            memory_size: 128 * 1024 * 1024, net_device: { type: "virtio" }, disable_speaker: true,
            initial_state: { buffer: state.slice() }, autostart: true,
        });
        const it = { machine, said: "", mac: "" };
        machine.add_listener("serial0-output-byte", (byte) => (it.said += String.fromCharCode(byte)));
        it.nic = await connectV86(machine, relay);
        return it;
    }));
}"""
ASK = """async ([number, command, end]) => {
    const it = restored[number];
    const before = it.said.length;
    const answered = new Promise((resolve) => {
        it.machine.add_listener("serial0-output-byte", () => {
            const said = it.said.slice(before).replaceAll("\\r", "");
            if (new RegExp(end).test(said)) resolve(said);
        });
    });
    it.machine.serial0_send(`${command}\\n`);
    return answered;
}"""
PAGE = b"<!doctype html><title>fetched</title>a page for the machine\n"


@pytest.fixture(scope="module")
def relay():
    relay = Relay("--host-access")
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


@pytest.fixture(scope="module")
def tabs(tmp_path_factory, relay):
    """Two machines, booted: one with vmrelay-client's card, one with v86's own WebSocket to the relay."""
    folder = run(ROOT / "examples/v86/build.sh", patience=BUILDING).stdout.splitlines()[-1]
    with site(folder) as origin, chromium(tmp_path_factory.mktemp("home")) as browser:
        pair = [Machine(browser, origin, relay, via) for via in ("client", "v86")]
        for machine in pair:
            machine.wait_for(r"address (10\.0\.2\.\d+)/24 from [\s\S]*\n/ # ")
        yield pair


@pytest.fixture(scope="module")
def web_server():
    """A page on this computer's loopback, which guests reach as 10.0.2.4; gives its port."""
    with serving(PAGE) as port:
        yield port


class Machine:
    """A machine in a tab; its serial console is what the page shows."""

    def __init__(self, browser, origin, relay, via, *, card="virtio"):
        self.page = browser.new_page(viewport={"width": 900, "height": 760})
        self.page.set_default_timeout(BOOTING * 1000)
        self.page.goto(f"{origin}?relay=http://127.0.0.1:{relay.port}/&via={via}&card={card}")

    @property
    def console(self):
        return self.page.text_content("#screen")

    def wait_for(self, pattern):
        self.page.wait_for_function(
            "(pattern) => new RegExp(pattern).test(document.getElementById('screen').textContent)",
            arg=pattern,
        )
        return re.search(pattern, self.console)

    @property
    def address(self):
        return self.wait_for(r"address (10\.0\.2\.\d+)/24 from ")[1]

    def type(self, command):
        """Type a command; give what it printed, once the prompt is back."""
        before = len(self.console)
        self.page.fill("#command", command)
        self.page.press("#command", "Enter")
        self.page.wait_for_function(
            "(seen) => /\\n\\/ # $/.test(document.getElementById('screen').textContent.slice(seen))",
            arg=before,
        )
        return self.console[before:]


def test_machines_get_the_addresses_that_the_relay_gives(tabs):
    one, other = tabs
    assert one.address != other.address
    assert f"by webtransport, address {one.address}" in one.page.text_content("#status")
    assert "/raw" in other.page.text_content("#status")
    for machine in tabs:
        assert "from DHCP" in machine.console


def test_a_machine_pings_the_gateway(tabs):
    said = tabs[0].type("ping -c 3 10.0.2.2")
    assert "3 packets transmitted, 3 packets received" in said


def test_two_tabs_reach_each_other(tabs):
    one, other = tabs
    assert "2 packets received" in one.type(f"ping -c 2 {other.address}")
    assert "2 packets received" in other.type(f"ping -c 2 {one.address}")


@pytest.mark.parametrize("which", [0, 1], ids=["vmrelay-client", "v86"])
def test_a_machine_fetches_a_page(tabs, web_server, which):
    said = tabs[which].type(f"wget -q -O - http://10.0.2.4:{web_server}/")
    assert PAGE.decode().strip() in said


def test_machines_restored_from_one_state_have_an_address_each(tabs, relay):
    page = tabs[0].page
    page.evaluate(RESTORE, f"http://127.0.0.1:{relay.port}/")

    def ask(number, command):
        return page.evaluate(ASK, [number, command, r"\n/ # $"])

    macs = {re.search(r"ether (\S+)", ask(number, "ip link show eth0"))[1] for number in (0, 1)}
    assert len(macs) == 1
    addresses = []
    for number in (0, 1):
        ask(number, "udhcpc -i eth0 -s /bin/address -q -n")
        addresses.append(re.search(r"inet (10\.0\.2\.\d+)/24", ask(number, "ip addr show eth0"))[1])
    assert addresses == page.evaluate("restored.map(({ nic }) => nic.assigned.ip.join('.'))")
    assert len({*addresses, tabs[0].address, tabs[1].address}) == 4
    assert "2 packets received" in ask(0, f"ping -c 2 {addresses[1]}")
    assert "2 packets received" in ask(1, f"ping -c 2 {addresses[0]}")
    assert "2 packets received" in ask(1, "ping -c 2 10.0.2.2")
    # The one that they came from is not troubled.
    assert "2 packets received" in tabs[0].type(f"ping -c 2 {addresses[0]}")


def test_a_machine_resolves_a_name_of_the_lan(tabs):
    answer = tabs[0].type("nslookup gateway.vm.internal 10.0.2.2").partition("Name:")[2]
    assert "Address: 10.0.2.2" in answer


def test_a_machine_that_changes_its_mac_has_the_address_of_the_new_one(tabs):
    one, other = tabs
    before = one.address
    one.type("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:42; ip link set eth0 up")
    one.type("udhcpc -i eth0 -s /bin/address -q -n")
    address = re.search(r"inet (10\.0\.2\.\d+)/24", one.type("ip addr show eth0"))[1]
    assert address != before
    assert f"by webtransport, address {address}" in one.page.text_content("#status")
    assert "2 packets received" in one.type(f"ping -c 2 {other.address}")

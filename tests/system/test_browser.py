"""Chromium as the client, running the JavaScript of docs/clients.md as it stands there."""

from __future__ import annotations

import re
import sys

import pytest
from browsers import site
from playwright.sync_api import Error
from processes import PATIENCE, ROOT, Program, Relay
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def documented_blocks():
    """The JavaScript of the document, one string per code block."""
    return re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs/clients.md").read_text(), re.MULTILINE | re.DOTALL)


def documented_function(name):
    """The code block that defines ``name``."""
    return next(block for block in documented_blocks() if f"function {name}(" in block)


@pytest.fixture(scope="module")
def relay():
    relay = Relay("--host-access")
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The origin of an empty page: WebTransport needs a secure context, which 127.0.0.1 is."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html><title>VM</title>")

    with site(folder) as url:
        yield url


class Tab:
    """A browser tab with a network card on the relay's LAN; frames are scapy packets here."""

    def __init__(self, browser, origin):
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.goto(origin)
        self.page.evaluate("window.received = []")
        self._seen = 0

    def connect(self, relay, url=None):
        self.page.add_script_tag(content=documented_function("connectToRelay"))
        nic = self.page.evaluate(
            """async ([url, hash]) => {
                 window.nic = await connectToRelay(url, { hash, onFrame: (f) => received.push([...f]) });
                 return { ...nic.assigned, mac: [...nic.mac] };
               }""",
            [url or relay.url, relay.hash],
        )
        self.address = ".".join(map(str, nic["ip"]))
        self.mac = bytes(nic["mac"]).hex(":")
        self.assigned = nic
        return self

    def send(self, frame):
        self.page.evaluate("(frame) => nic.send(Uint8Array.from(frame))", list(bytes(frame)))

    def next_frame(self, wanted):
        """Wait for the next frame for which ``wanted(packet)`` holds."""
        while True:
            self.page.wait_for_function("(seen) => received.length > seen", arg=self._seen)
            frame = Ether(bytes(self.page.evaluate("(at) => received[at]", self._seen)))
            self._seen += 1
            if wanted(frame):
                return frame

    def close(self):
        self.page.close()


@pytest.fixture
def tabs(browser, origin, relay):
    pair = [Tab(browser, origin).connect(relay), Tab(browser, origin).connect(relay)]
    yield pair
    for tab in pair:
        tab.close()


def checksums_hold(packet):
    """Whether scapy, building the packet anew, comes to the same bytes."""
    again = packet.copy()
    for layer in (IP, UDP, ICMP):
        if layer in again:
            del again[layer].chksum
    return bytes(again) == bytes(packet)


def test_tabs_get_different_addresses_of_the_lan(tabs):
    one, other = tabs
    assert one.address != other.address
    assert {tab.address.rpartition(".")[0] for tab in tabs} == {"10.0.2"}
    assert one.assigned["gateway"] == [10, 0, 2, 2]
    assert one.assigned["netmask"] == [255, 255, 255, 0]


@pytest.mark.parametrize("size", [60, 900, 1514], ids=lambda size: f"{size} bytes")
def test_tabs_exchange_frames(tabs, size):
    one, other = tabs
    # Broadcast first, as ARP would: then the switch knows where each of them is.
    one.send(Ether(src=one.mac, dst=BROADCAST, type=0x88B5) / Raw(b"who is there"))
    heard = other.next_frame(lambda frame: (frame.type, frame.src) == (0x88B5, one.mac))
    assert heard.dst == BROADCAST
    assert heard[Raw].load.startswith(b"who is there")

    payload = bytes(number % 251 for number in range(size - 14))
    other.send(Ether(src=other.mac, dst=heard.src, type=0x88B5) / Raw(payload))
    reply = one.next_frame(lambda frame: (frame.type, frame.src) == (0x88B5, other.mac))
    assert reply.dst == one.mac
    assert reply[Raw].load == payload


def test_a_frame_that_the_page_cannot_take_is_not_the_last(tabs):
    one, other = tabs
    other.page.evaluate('() => { received.push = () => { delete received.push; throw new Error("full"); }; }')
    for number in range(2):
        one.send(Ether(src=one.mac, dst=BROADCAST, type=0x88B5) / Raw(b"number %d" % number))
        other.page.wait_for_function("() => !Object.hasOwn(received, 'push')")
    other.next_frame(lambda frame: frame.src == one.mac and frame[Raw].load.startswith(b"number 1"))


def test_tab_pings_the_gateway(tabs):
    tab = tabs[0]
    tab.send(Ether(src=tab.mac, dst=BROADCAST) / ARP(op=1, hwsrc=tab.mac, psrc=tab.address, pdst="10.0.2.2"))
    answer = tab.next_frame(lambda frame: ARP in frame and frame[ARP].op == 2 and frame.dst == tab.mac)
    assert (answer[ARP].psrc, answer[ARP].hwsrc) == ("10.0.2.2", GATEWAY_MAC)

    request = IP(src=tab.address, dst="10.0.2.2") / ICMP(id=7, seq=3) / Raw(b"the guest's own payload")
    tab.send(Ether(src=tab.mac, dst=GATEWAY_MAC) / request)
    echo = tab.next_frame(lambda frame: ICMP in frame and frame[ICMP].id == request[ICMP].id)
    assert (echo[IP].src, echo[IP].dst) == ("10.0.2.2", tab.address)
    assert (echo[ICMP].type, echo[ICMP].id, echo[ICMP].seq) == (0, 7, 3)
    assert echo[Raw].load == b"the guest's own payload"
    assert checksums_hold(echo)


def test_tab_asks_a_name_server_on_loopback_through_the_nat(tabs):
    tab = tabs[0]
    server = Program(sys.executable, ROOT / "tests/system/name_server.py", "127.0.0.1")
    port = int(server.wait_for(r"answering on port (\d+)")[1])
    # 10.0.2.4 is the relay's own 127.0.0.1 with --host-access.
    query = IP(src=tab.address, dst="10.0.2.4") / UDP(sport=40000, dport=port)
    tab.send(Ether(src=tab.mac, dst=GATEWAY_MAC) / query / DNS(id=77, qd=DNSQR(qname="vm.example")))
    reply = tab.next_frame(lambda frame: UDP in frame and frame[UDP].dport == 40000)
    server.stop()
    assert (reply[IP].src, reply[UDP].sport) == ("10.0.2.4", port)
    assert reply[IP].dst == tab.address
    assert checksums_hold(reply)
    answer = DNS(bytes(reply[UDP].payload))
    assert answer.id == 77
    assert answer.an[0].rdata == "192.0.2.53"


def test_the_simplest_client_of_the_document_pings_the_gateway(browser, origin, relay):
    tab = Tab(browser, origin)
    script = documented_function("connectRaw").replace("PASTE_THE_64_HEX_DIGITS_HERE", relay.hash)
    tab.page.add_script_tag(content=script)
    tab.page.evaluate(
        """async (url) => {
             window.nic = { send: await connectRaw(url, (frame) => received.push([...frame])) };
           }""",
        relay.url,
    )
    mac = "52:54:00:aa:bb:cc"
    tab.send(Ether(src=mac, dst=BROADCAST) / ARP(op=1, hwsrc=mac, psrc="0.0.0.0", pdst="10.0.2.2"))
    answer = tab.next_frame(lambda frame: ARP in frame and frame[ARP].op == 2 and frame.dst == mac)
    assert answer[ARP].hwsrc == GATEWAY_MAC
    tab.close()


def test_the_example_of_the_document_gets_an_address(browser, origin, relay):
    tab = Tab(browser, origin)
    said = []
    tab.page.on("console", lambda message: said.append(message.text))
    example = next(
        block for block in documented_blocks() if "connectToRelay(" in block and "nic.assigned" in block
    )
    example = example.replace("PASTE_THE_64_HEX_DIGITS_HERE", relay.hash)
    example = example.replace("https://127.0.0.1:4433/", relay.url)
    # A console waits at the top level; a page's script has to be told.
    tab.page.evaluate(f"async () => {{ {documented_function('connectToRelay')} {example} }}")
    tab.close()
    assert any(line.startswith("address 10.0.2.") and line.endswith("gateway 10.0.2.2") for line in said)


def connects_by_the_printed_line(browser, origin, relay):
    tab = Tab(browser, origin)
    line = relay.wait_for(r"new WebTransport\(").string
    said = []
    tab.page.on("console", lambda message: said.append(message.text))
    tab.page.evaluate(f"async () => {{ {line} }}")
    tab.close()
    return said == ["connected"]


def test_the_line_that_the_relay_prints_connects(browser, origin, relay):
    assert connects_by_the_printed_line(browser, origin, relay)


@pytest.fixture(scope="module")
def relay_of_its_own_choice():
    """Bound to what the relay is bound to when nobody says."""
    relay = Relay(bind=None)
    yield relay
    relay.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_relay_is_reached_by_each_name_of_this_machine(browser, origin, relay_of_its_own_choice, host):
    relay = relay_of_its_own_choice
    tab = Tab(browser, origin).connect(relay, relay.url_at(host))
    assert tab.address.startswith("10.0.2.")
    tab.close()
    page = browser.new_page(ignore_https_errors=True)
    assert page.goto(f"{relay.url_at(host)}cert-hash").json()["current"]["hash"] == relay.hash
    page.close()


def test_the_line_that_a_relay_of_all_addresses_prints_connects(browser, origin, relay_of_its_own_choice):
    assert connects_by_the_printed_line(browser, origin, relay_of_its_own_choice)


def test_a_wrong_hash_is_refused_by_the_browser(browser, origin, relay):
    tab = Tab(browser, origin)
    tab.page.add_script_tag(content=documented_function("connectToRelay"))
    outcome = tab.page.evaluate(
        "([url, hash]) => connectToRelay(url, { hash }).then(() => 'connected', (error) => error.name)",
        [relay.url, "00" * 32],
    )
    assert outcome == "WebTransportError"
    tab.close()


def test_a_browser_that_pins_another_hash_is_a_line_in_the_log(browser, relay, origin):
    page = browser.new_page()
    page.goto(origin)
    opened = page.evaluate(
        """async (url) => {
             const pinned = [{ algorithm: "sha-256", value: new Uint8Array(32) }];
             const relay = new WebTransport(url, { serverCertificateHashes: pinned });
             relay.closed.catch(() => {});
             return relay.ready.then(() => "opened", () => "failed");
           }""",
        relay.url,
    )
    page.close()
    assert opened == "failed"
    line = relay.wait_for("does not accept the relay's certificate").string
    assert '"level": "warning"' in line
    assert "perhaps it pins the hash of another one, or trusts authorities only" in line
    assert f"the present hash is {relay.hash}" in line


def test_a_browser_that_does_not_know_the_certificate_over_https_is_a_line_in_the_log(browser, relay):
    page = browser.new_page()
    with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
        page.goto(relay.url)
    page.close()
    relay.wait_for(r"does not accept the relay's certificate \(certificate unknown\)")

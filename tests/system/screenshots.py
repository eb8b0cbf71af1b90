"""Takes the pictures of the relay's pages that are in docs/: a relay of this tree, with guests and traffic.

python tests/system/screenshots.py        needs Chromium and what the tests need
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[level]) for level in (2, 1)]

from browsers import chromium  # noqa: E402 - found by the path above
from operators import OperatedRelay  # noqa: E402
from processes import ROOT, Program, free_port  # noqa: E402
from scapy.layers.inet import ICMP, IP, UDP  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402

from guest.relay_socket import RelayPeer, RelaySocket  # noqa: E402

GATEWAY_MAC = "52:54:00:12:34:56"
MOST_BYTES = 150_000
NAMES = ("web", "database", "build-01", "laptop")


def guests(relay, stack):
    """Let guests join, one of them in a room of its own."""
    doors = {**dict.fromkeys(NAMES, relay.url), "student": f"{relay.url}room/lab"}
    for number, (name, url) in enumerate(doors.items(), 1):
        peer = RelayPeer(url, insecure=True, name=name, mac=f"52:54:00:00:77:{number:02x}")
        stack.callback(peer.close)
        yield stack.enter_context(RelaySocket(peer))


def speak(sockets, chance, remote_port):
    """Have each guest send something to this machine, and one of them something that is dropped."""
    for number, one in enumerate(sockets):
        source = str(one.peer.assigned.ip)
        to_gateway = Ether(src=one.peer.mac, dst=GATEWAY_MAC)
        payload = bytes(chance.randrange(200, 1200))
        datagram = UDP(sport=4000 + number, dport=remote_port) / payload
        one.send(to_gateway / IP(src=source, dst="127.0.0.1") / datagram)
        one.send(to_gateway / IP(src=source, dst="10.0.2.2") / ICMP() / payload)
    first = sockets[0]
    foreign = IP(src="192.0.2.9", dst="10.0.2.2") / ICMP()
    first.send(Ether(src=first.peer.mac, dst=GATEWAY_MAC) / foreign)


def save(page, name):
    """Take a picture of what is seen."""
    path = ROOT / "docs" / name
    page.screenshot(path=path)
    size = path.stat().st_size
    print(path, size)
    assert size < MOST_BYTES


def main():
    """Take all pictures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        relay = OperatedRelay(folder, "--allow-cidr", "127.0.0.0/8", "--host-access")
        stack.callback(relay.stop)
        command = Program(sys.executable, "-m", "relay.main", "dashboard", "--admin", relay.admin)
        stack.callback(command.stop)
        link = command.wait_for(r"^http://\S+$")[0]
        sockets = list(guests(relay, stack))
        relay.vmrelay("forwards", "--add", f"tcp:127.0.0.1:{free_port()}:web:80")
        browser = stack.enter_context(chromium(folder))
        wide = browser.new_page(viewport={"width": 1160, "height": 1000})
        narrow = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        for page in (wide, narrow):
            page.goto(link)
            page.locator("#sessions tbody tr").first.wait_for()
            page.select_option("#room", "default")
        chance, port = random.Random(1), free_port()
        for _ in range(120):
            speak(sockets, chance, port)
            wide.wait_for_timeout(100)
        save(wide, "dashboard.png")
        save(narrow, "dashboard-phone.png")
        page = browser.new_page(viewport={"width": 860, "height": 900})
        page.goto(f"http://127.0.0.1:{relay.port}/")
        page.fill("#name", "host.vm.internal")
        page.fill("#port", str(relay.port))
        page.get_by_role("tab", name="v86").click()
        page.click("#test button")
        page.locator("#verdict li").first.wait_for()
        page.mouse.wheel(0, 10_000)
        page.wait_for_timeout(500)
        save(page, "connection-page.png")


if __name__ == "__main__":
    main()

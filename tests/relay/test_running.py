"""The debug shell on a running relay, as a person types in it."""

from __future__ import annotations

import select
import sys

import pytest
from operators import GATEWAY, GATEWAY_MAC, GUEST_MAC
from processes import PATIENCE, run
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from terminals import Shell

from guest.relay_socket import RelaySocket


@pytest.fixture
def terminal(relay, guest):
    terminal = Shell("--admin", relay.admin)
    yield terminal
    terminal.close()


def shell(relay, program, status=0):
    return relay.vmrelay("shell", "-c", program, status=status)


def test_the_banner_says_which_relay_it_is_and_what_to_try(relay, terminal):
    assert f"at {relay.url}: 1 rooms, 1 sessions" in terminal.banner
    assert "relay.sniff(" in terminal.banner


def test_sessions_and_leases_are_tables_and_lists(guest, terminal):
    assert GUEST_MAC in terminal.ask("relay.peers")
    assert terminal.ask("relay.peers.where(name='web')[0]['address']") == f"'{guest.assigned.ip}'\n"
    assert "KIND" not in terminal.ask("relay.flows")
    assert "web" in terminal.ask("relay.leases")
    assert "web" in terminal.ask("relay.names")


def test_await_works_at_the_prompt(terminal):
    terminal.ask("import asyncio")
    assert terminal.ask("print(await asyncio.sleep(0, 'slept'))") == "slept\n"


def test_packets_are_sniffed_from_any_session(relay, guest, terminal):
    terminal.type("found = relay.sniff(count=4, peer='web', filter='icmp')\n")
    relay.wait_for("captures")
    with RelaySocket(guest) as one:
        ping = Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src=str(guest.assigned.ip), dst=GATEWAY) / ICMP()
        for _ in range(2):
            assert one.sr1(ping, timeout=PATIENCE, verbose=0)
    terminal.expect(">>> ")
    assert terminal.ask("[packet[ICMP].type for packet in found]") == "[8, 0, 8, 0]\n"


def test_a_sniff_is_interrupted_and_keeps_what_it_has(relay, terminal):
    before = relay.output.count("captures")
    terminal.type("found = relay.sniff()\n")
    relay.wait_for("captures", count=before + 1)
    terminal.type("\x03")
    terminal.expect(">>> ")
    assert terminal.ask("type(found).__name__") == "'PacketList'\n"


def received(one):
    """Give the next ICMP packet's type."""
    while True:
        assert select.select([one], [], [], PATIENCE)[0], "nothing came"
        frame = Ether(bytes(one.recv()))
        if ICMP in frame:
            return frame[ICMP].type


def test_a_frame_is_injected_as_a_guest_and_to_it(relay, guest):
    mac, address = guest.mac, guest.assigned.ip
    program = f"""
ping = Ether(src="{mac}", dst="{GATEWAY_MAC}")/IP(src="{address}", dst="{GATEWAY}")/ICMP()
told = Ether(src="{GATEWAY_MAC}", dst="{mac}")/IP(src="{GATEWAY}", dst="{address}")/ICMP(type=13)
as_guest = [relay.inject(frames, as_="web") for frames in (ping, bytes(ping))]
print(*as_guest, relay.inject([told, told], to="web"))
"""
    with RelaySocket(guest) as one:
        assert shell(relay, program) == "1 1 2\n"
        assert [received(one) for _ in range(4)] == [0, 0, 13, 13]
    relay.wait_for(r"injected 2 frames to peer \d+")


def test_programs_come_from_files_too(relay, guest, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print(len(relay.peers))\nimport asyncio\nawait asyncio.sleep(0)\n1/0\n")
    done = run(
        *(sys.executable, "-m", "relay.main", "shell", "--admin", relay.admin),
        *("-c", script.read_text()),
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert "ZeroDivisionError" in done.stderr
    assert "relay/" not in done.stderr
    done = run(*(sys.executable, "-m", "relay.main", "shell", "--insecure", relay.url, script), check=False)
    assert str(script) in done.stderr


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("relay.disconnect('ghost')", "no session is called ghost"),
        ("relay.inject(b'x' * 60)", "as whom, or to whom"),
        ("relay.inject([b'x'], as_=1)", "frames of 14 to 1522 bytes"),
        ("relay.inject([bytes(60)] * 300, as_=1)", "at most 256 frames"),
        ("relay.inject([bytes(60)], as_=999999)", "there is no session 999999"),
        ("relay.ask('/nowhere')", "404"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_so(relay, program, complaint):
    assert complaint in shell(relay, program, status=1)

from __future__ import annotations

import json
import re
import signal
import sys
from typing import Any

import pytest
from namespaces import Namespace
from processes import PATIENCE, ROOT, Program, Relay, run
from terminals import Shell

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"


@pytest.fixture
def terminal(live_relay):
    terminal = Shell("--cert-hash", live_relay.hash, live_relay.url)
    yield terminal
    terminal.close()


@pytest.fixture
def neighbour(live_relay):
    """A Linux kernel on the same LAN."""
    namespace: Any = Namespace("shell")
    # Its IPv6 address is good at once, not a second after the device came up.
    namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    program = Program(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", "t-shell0", "--netns", namespace.name),
        *("--configure", "--insecure", live_relay.url),
    )
    found = program.wait_for(r"as (\S+), address ([\d.]+)/")
    namespace.mac, namespace.address = found.groups()
    yield namespace
    program.stop()
    namespace.delete()


def test_the_banner_says_who_one_is_and_what_to_try(terminal, live_relay):
    found = re.search(r"as ([0-9a-f:]{17}), address (\S+), gateway (\S+)\.\n", terminal.banner)
    assert found, terminal.banner
    assert live_relay.url in terminal.banner
    assert found[3] == GATEWAY
    assert terminal.ask("mac, address, gateway") == f"{found.groups()}\n"
    # What it proposes works as it stands there.
    for number, line in enumerate(re.findall(r"^  (\w.*?\))   ", terminal.banner, re.MULTILINE)[:2]):
        assert GATEWAY in terminal.ask(f"answer{number} = {line}; answer{number}")


def test_arp_at_layer_2(terminal):
    said = terminal.ask(f'srp1(Ether()/ARP(pdst="{GATEWAY}"), timeout=5)')
    assert f"hwsrc={GATEWAY_MAC} psrc={GATEWAY}" in said
    said = terminal.ask(
        f'srp(Ether(dst="ff:ff:ff:ff:ff:ff")/ARP(pdst="{GATEWAY}/31"), timeout=1)[0][0].answer'
    )
    assert f"psrc={GATEWAY}" in said


def test_ping_at_layer_3_finds_the_next_hop_by_itself(terminal):
    said = terminal.ask(f'sr1(IP(dst="{GATEWAY}")/ICMP(id=7, seq=3)/b"payload of mine", timeout=5)')
    assert f"src={GATEWAY}" in said
    assert "type=echo-reply" in said
    assert "id=0x7 seq=0x3" in said
    assert "payload of mine" in said
    # Off the LAN through the gateway, which refuses this address.
    assert "communication-prohibited" in terminal.ask('sr1(IP(dst="192.0.2.1")/UDP(dport=53), timeout=5)')


def test_another_guest_is_pinged_and_pings_back(terminal, neighbour):
    said = terminal.ask(f'sr1(IP(dst="{neighbour.address}")/ICMP(), timeout=5)')
    assert f"src={neighbour.address}" in said
    # scapy is found by ARP, although it answers no pings.
    address = terminal.ask("print(address)").strip()
    neighbour.run("ip", "neighbour", "flush", "all")
    neighbour.run("arping", "-q", "-c", "1", "-w", "5", "-I", "t-shell0", address)


def test_sniff_sees_what_sendp_and_others_send(terminal, neighbour):
    terminal.ask("sniffer = AsyncSniffer(lfilter=lambda p: UDP in p and p[UDP].dport == 4242, count=1)")
    terminal.ask("sniffer.start()")
    neighbour.run("bash", "-c", "echo hello > /dev/udp/10.0.2.255/4242", check=False)
    address = terminal.ask("print(address)").strip()
    neighbour.run("bash", "-c", f"echo hello > /dev/udp/{address}/4242")
    terminal.ask(f"sniffer.join({PATIENCE})")
    assert "b'hello\\n'" in terminal.ask("sniffer.results[0][Raw].load")
    # And in the other direction, with what answers to it.
    terminal.ask("sniffer = AsyncSniffer(lfilter=lambda p: ICMP in p, count=2)")
    terminal.ask("sniffer.start()")
    terminal.ask(f'sendp([Ether()/IP(dst="{GATEWAY}")/ICMP(seq=n) for n in (1, 2)])')
    terminal.ask(f"sniffer.join({PATIENCE})")
    assert terminal.ask("[p[ICMP].seq for p in sniffer.results]") == "[1, 2]\n"
    terminal.ask(f'send(IP(dst="{neighbour.address}")/UDP(sport=9, dport=4343))')


def test_ipv6_neighbours_answer(terminal, neighbour):
    (theirs,) = [a.partition("/")[0] for a in neighbour.addresses("t-shell0") if a.startswith("fe80:")]
    said = terminal.ask(f'sr1(IPv6(dst="{theirs}")/ICMPv6EchoRequest(), timeout=5)')
    assert f"src={theirs}" in said
    assert "type=Echo Reply" in said
    ours = terminal.ask("print(conf.iface.ips[6][0])").strip()
    neighbour.run("ip", "-6", "neighbour", "flush", "all")
    neighbour.run("ping", "-n", "-c", "1", "-w", "1", f"{ours}%t-shell0", check=False)
    (entry,) = json.loads(neighbour.run("ip", "-j", "neighbour", "show", "to", ours).stdout)
    assert entry["lladdr"] == terminal.ask("print(mac)").strip()


def test_the_socket_itself(terminal):
    said = terminal.ask(f'sock.sr1(Ether()/ARP(pdst="{GATEWAY}"), timeout=5, verbose=0)')
    assert f"psrc={GATEWAY}" in said
    assert "BPF" in terminal.ask('sniff(filter="icmp", count=1)')
    terminal.ask("other = RelaySocket(peer.url, insecure=True)")
    terminal.ask("me = {'hwsrc': other.peer.mac, 'psrc': str(other.peer.assigned.ip)}")
    said = terminal.ask(
        f'other.sr1(Ether(src=other.peer.mac)/ARP(pdst="{GATEWAY}", **me), timeout=5, verbose=0)'
    )
    assert GATEWAY_MAC in said
    assert terminal.ask("print(mac)").strip() not in said
    terminal.ask("other.close()")


def test_names_are_completed_with_tab(terminal):
    terminal.type("gatew\t")
    assert terminal.expect("gateway") is not None
    terminal.type("\n")
    assert GATEWAY in terminal.expect(">>> ")


def test_interrupting_a_sniff_returns_to_the_prompt(terminal):
    terminal.type("sniff(lfilter=lambda packet: False, started_callback=lambda: print('sniff' + 'ing'))\n")
    terminal.expect("sniffing")
    terminal.type("\x03")
    assert "Sniffed" in terminal.expect(">>> ")
    assert "ZeroDivisionError" in terminal.ask("1/0")


@pytest.mark.parametrize("leave", ["\x04", "exit()\n", signal.SIGTERM, signal.SIGHUP])
def test_leaving_is_clean(fresh_relay, leave):
    terminal = Shell("--cert-hash", fresh_relay.hash, fresh_relay.url)
    try:
        if isinstance(leave, str):
            terminal.type(leave)
            assert terminal.wait() == 0
        else:
            terminal.signal(leave)
            assert terminal.wait() == 128 + leave
        fresh_relay.wait_for("peer 1 closed: disconnected")
    finally:
        terminal.close()


def test_a_signal_that_does_not_interrupt_the_prompt_is_seen(fresh_relay):
    terminal = Shell("--cert-hash", fresh_relay.hash, fresh_relay.url)
    try:
        # One that another thread gets is noted, and the wait for a key goes on.
        terminal.ask("import signal, threading")
        terminal.ask("threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), 15)).start()")
        assert terminal.wait() == 128 + signal.SIGTERM
        fresh_relay.wait_for("peer 1 closed: disconnected")
    finally:
        terminal.close()


def test_it_follows_its_relay_through_a_restart(certificate_options):
    relay = Relay(*certificate_options)
    terminal = Shell("--cert-hash", relay.hash, "--mac", "52:54:00:00:30:01", relay.url)
    try:
        relay.stop()
        assert "OSError" in terminal.ask(f'sock.send(Ether()/ARP(pdst="{GATEWAY}"))')
        relay = Relay(*certificate_options, "--port", relay.port)
        relay.wait_for("registered 52:54:00:00:30:01")
        # The shell hears of that a moment later.
        attached = "any(peer.nic.attached or __import__('time').sleep(0.01) for _ in range(3000))"
        assert "True" in terminal.ask(attached)
        assert "echo-reply" in terminal.ask(f'sr1(IP(dst="{GATEWAY}")/ICMP(), timeout=5)')
    finally:
        terminal.close()
        relay.stop()


# -- without a terminal -------------------------------------------------------------------------------


def shell(*arguments, status=0, **options):
    done = run(sys.executable, "-m", "relay.main", "shell", *arguments, check=False, cwd=ROOT, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done


PING = f'print(sr1(IP(dst="{GATEWAY}")/ICMP(), timeout=5)[ICMP].type)'


def test_code_is_run(live_relay):
    done = shell("--insecure", "-c", PING, live_relay.url)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_standard_input_is_run(live_relay):
    done = shell("--insecure", live_relay.url, input=f"for _ in range(2):\n    {PING}\n")
    assert (done.stdout, done.stderr) == ("0\n0\n", "")


def test_a_file_is_run_whatever_its_encoding(live_relay, tmp_path):
    file = tmp_path / "käse.py"
    file.write_bytes("# coding: latin-1\nprint(gateway, 'Käse' == 'K\\xe4se')\n".encode("latin-1"))
    assert shell("--insecure", live_relay.url, file).stdout == f"{GATEWAY} True\n"


def test_an_error_in_code_is_shown_as_python_does(live_relay):
    done = shell("--insecure", "-c", "1/0", live_relay.url, status=1)
    assert done.stderr.startswith("Traceback")
    assert "relay/" not in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "SyntaxError" in shell("--insecure", "-c", "1 +", live_relay.url, status=1).stderr
    assert shell("--insecure", "-c", "raise SystemExit(7)", live_relay.url, status=7).stderr == ""


def test_a_raw_session_has_no_address_but_frames(live_relay):
    question = f'Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")/ARP(hwsrc=mac, psrc="10.0.2.9", pdst="{GATEWAY}")'
    program = f"print(address, srp1({question}, timeout=5)[ARP].hwsrc)"
    assert (
        shell("--insecure", "--encap", "raw", "-c", program, live_relay.url).stdout == f"None {GATEWAY_MAC}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-c", "pass", "--admin", "/nonexistent.sock"), 1, "/nonexistent.sock: No such file or directory"),
        (("/nonexistent.py",), 2, "not a WebTransport address"),
        (("https://127.0.0.1:9/", "/nonexistent.py"), 2, "/nonexistent.py: No such file or directory"),
        (("-c", "pass", "http://r/"), 2, "not a WebTransport address"),
        (("-c", "pass", "--mac", "1", "https://r/"), 2, "not a MAC address"),
        (("-c", "pass", "--ca", "/nonexistent.pem", "https://127.0.0.1:9/"), 2, "/nonexistent.pem"),
        (("-c", "pass", "--insecure", "https://127.0.0.1:9/"), 1, "127.0.0.1:9: Connection refused"),
    ],
)
def test_what_cannot_work_gets_one_line(arguments, status, said):
    done = shell(*arguments, status=status)
    (line,) = done.stderr.splitlines()
    assert line.startswith("vmrelay: error: ")
    assert said in line

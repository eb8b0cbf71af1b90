"""The faults of docs/debugging.md: each is made, and the commands that stand there say what stands there.

    web, db ── relay (198.51.100.1) ── cable ── client (198.51.100.20)

What the document leaves out (``…``) may be anything, and so may times of day and how often something was.
"""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import ExitStack
from itertools import pairwise

import pytest
from documents import blocks_in, says, sections_of
from kernel_guest import KernelGuest, RawKernelGuest
from namespaces import Namespace, connect
from processes import PATIENCE, ROOT, THIS_TREE, Relay
from waiting import wait_until

SECTIONS = sections_of((ROOT / "docs/debugging.md").read_text())
RELAY, CLIENT = "198.51.100.1", "198.51.100.20"
PORT = 4433
GOES_ON = frozenset({"attach", "trace"})
"""Commands that do not end by themselves; what they say is looked at when those behind them have been run."""

LATE_AT_MOST = "5"
"""Seconds that a ping may take in the stead of those in the document."""

_PROMPT = re.compile(r"(\w*)\$ (.*)")
REGISTER_GATEWAYS_MAC = """
import asyncio
from vmrelay import vm_client

async def main():
    async with vm_client({url!r}, insecure=True, mac="52:54:00:12:34:56", rewriter=False):
        print("has a session")

asyncio.run(main())
"""

SEND_FROM_GATEWAYS_MAC = """
import asyncio
from vmrelay import vm_client

async def main():
    options = dict(insecure=True, mac="52:54:00:00:00:0e", name="bridge", rewriter=False)
    async with vm_client({url!r}, **options) as nic:
        nic.send([bytes.fromhex("ffffffffffff 525400123456 88b5") + bytes(46)] * 2)
        async for _ in nic:
            pass

asyncio.run(main())
"""

LARGE_DATAGRAMS_ARE_LOST = """
table inet router {
    chain input { type filter hook input priority 0; udp sport 4433 meta length > 1300 drop; }
    chain output { type filter hook output priority 0; udp dport 4433 meta length > 1300 drop; }
}
"""

tried = set()
"""Sections whose commands have been run."""


def blocks_of(section):
    """Give, for each block of a section, its commands: whose prompt, words, and what they say."""
    for block in blocks_in(SECTIONS[section], "console"):
        commands = []
        for line in block.splitlines():
            if prompt := _PROMPT.fullmatch(line):
                commands.append((prompt[1], prompt[2], []))
            else:
                commands[-1][2].append(line)
        yield commands


class Lab:
    """A relay, a machine of a client, and guests."""

    def __init__(self, folder, stack):
        self._stack = stack
        self._admin = folder / f"{PORT}.sock"
        self.machine, self.client = self._namespace("relay"), self._namespace("client")
        connect(self.machine, f"{RELAY}/24", self.client, f"{CLIENT}/24")
        self.places = {"": self.machine, "client": self.client}

    def _namespace(self, role):
        namespace = Namespace(role)
        self._stack.callback(namespace.delete)
        return namespace

    def start_relay(self, *options):
        environment = {"VMRELAY_ADMIN": str(self._admin)}
        self.relay = Relay(
            *("--port", PORT), *options, bind=None, before=self.machine.prefix, environment=environment
        )
        self.relay.host = RELAY
        self._stack.callback(self._stop_relay)

    def _stop_relay(self):
        self.relay.stop()
        assert "Traceback" not in self.relay.output

    def join(self, name, *options, kind=KernelGuest, place=None):
        """Bring up a kernel as a guest, with ``vmrelay attach`` on the relay's machine or another."""
        guest = kind(name, self.relay, place or self.machine, "--name", name, *options)
        self._stack.callback(guest.leave)
        self.places[name] = guest
        return guest

    def start(self, place, words):
        # A guest's network is what the command is to see, not what it is attached by.
        program = getattr(place, "namespace", place).start(
            *words,
            environment={"VMRELAY_ADMIN": str(self._admin), "RUNTIME_DIRECTORY": str(self._admin.parent)},
        )
        self._stack.callback(program.stop)
        return program

    def _run(self, whose, words):
        program = self.start(self.places[whose], words)
        program.wait()
        return program.output

    def _look(self, whose, line, words, expected):
        """Ask the relay until it shows what it is to show: clients that try again come and go."""
        said = [""]

        def shown():
            said[0] = self._run(whose, words)
            return says(said[0], expected)

        wait_until(shown, lambda: f"{line}\n{said[0]}", patience=2 * PATIENCE)

    def follow(self, section):
        """Run a section's commands, and hold what they say to what it shows."""
        tried.add(section)
        blocks = list(blocks_of(section))
        assert blocks
        for commands in blocks:
            running = []
            for whose, line, shown in commands:
                words = shlex.split(line.replace("relay.example.com", RELAY).replace("HASH", self.relay.hash))
                if words[0] == "ping":  # a busy machine may be late
                    words = [LATE_AT_MOST if last == "-W" else word for last, word in pairwise(["", *words])]
                goes_on = words[0] == "vmrelay" and words[1] in GOES_ON
                if words[0] == "vmrelay":
                    words[:1] = THIS_TREE
                expected = [text.replace("relay.example.com", RELAY) for text in shown]
                if goes_on:
                    running.append((line, self.start(self.places[whose], words), expected))
                    if "trace" in words:
                        self.relay.wait_for(r" traces \S+ and ")
                elif words[: len(THIS_TREE)] == [*THIS_TREE]:
                    self._look(whose, line, words, expected)
                else:
                    said = self._run(whose, words)
                    assert says(said, expected), f"{line}\n{said}"
            for line, program, expected in running:
                wait_until(
                    lambda program=program, expected=expected: says(program.output, expected),
                    lambda line=line, program=program: f"{line}\n{program.output}",
                )


@pytest.fixture
def lab(tmp_path):
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


def test_two_guests_with_one_mac_address(lab):
    lab.start_relay()
    for name in ("web", "copy"):
        lab.join(name, "--mac", "52:54:00:00:00:0a")
    lab.join("db", "--mac", "52:54:00:00:00:0c")
    attempt = lab.client.start(
        *(*THIS_TREE, "attach", "--tap", "tap0", "--mac", "52:54:00:00:00:0c", "--cert-hash", lab.relay.hash),
        lab.relay.url,
    )
    lab.relay.wait_for("refused: another session uses", count=2)
    lab.relay.wait_for("closed: another session registered", count=3)
    attempt.stop()
    lab.follow("Two guests with one MAC address")


def test_a_guest_with_the_gateways_mac_address(lab):
    lab.start_relay()
    copy = lab.start(lab.client, (sys.executable, "-c", REGISTER_GATEWAYS_MAC.format(url=lab.relay.url)))
    copy.wait_for("is the gateway's MAC")
    lab.start(lab.client, (sys.executable, "-c", SEND_FROM_GATEWAYS_MAC.format(url=lab.relay.url)))
    lab.relay.wait_for("MAC 52:54:00:12:34:56 refused", count=2)
    lab.follow("A guest with the gateway's MAC address")


def test_what_the_egress_policy_refuses(lab):
    lab.start_relay()
    # What was counted for others that came in one batch with a packet stands in its line too.
    lab.join("web", "--mac", "52:54:00:00:00:0a").speak_only_when_asked()
    lab.follow("A destination that the policy refuses")


def test_frames_that_are_too_large_for_a_session(lab):
    lab.start_relay()
    lab.client.run(*("nft", "-f", "-"), input=LARGE_DATAGRAMS_ARE_LOST)
    lab.join("web", "--mac", "52:54:00:00:00:0a")
    db = lab.join("db", "--mac", "52:54:00:00:00:0b", kind=RawKernelGuest, place=lab.client)
    db.run("ip", "link", "set", "tap0", "mtu", "1500")
    lab.follow("Large packets are lost, small ones are not")


def test_name_servers_that_do_not_answer(lab):
    lab.start_relay("--upstream-dns", "198.51.100.53")
    lab.join("web", "--mac", "52:54:00:00:00:0a")
    lab.follow("No names")


def test_a_guest_that_serves_dhcp(lab):
    lab.start_relay()
    lab.join("web", "--mac", "52:54:00:00:00:0a")
    db = lab.join("db", "--mac", "52:54:00:00:00:0b")
    server = db.start(
        *(
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
            "--pid-file=",
        ),
        *(
            "--bind-interfaces",
            "--interface=tap0",
            "--dhcp-range=10.0.2.50,10.0.2.60",
            "--dhcp-authoritative",
        ),
        *("--leasefile-ro", "--log-facility=-", "--log-dhcp"),
    )
    server.wait_for("DHCP, IP range")
    lab.places["web"].run(
        "busybox", "udhcpc", "-f", "-q", "-n", "-i", "tap0", "-s", "/bin/true", "-T", 1, "-t", 3
    )
    wait_until(lambda: lab.relay.counters()["switch.drop.rogue_dhcp"])
    server.stop()
    lab.follow("A guest that serves DHCP")


def test_a_pool_without_addresses(lab):
    lab.start_relay("--network", "10.0.2.0/29")
    for number, name in enumerate(("web", "db", "cache")):
        lab.join(name, "--mac", f"52:54:00:00:00:{number + 10:02x}")
    late = lab.client.start(
        *(*THIS_TREE, "attach", "--tap", "tap0", "--mac", "52:54:00:00:00:1d", "--cert-hash", lab.relay.hash),
        lab.relay.url,
    )
    late.wait_for("not attached")
    lab.follow("No address is left")
    late.stop()


def test_a_firewall_that_closes_udp(lab):
    lab.start_relay()
    lab.machine.run(
        *("nft", "-f", "-"),
        input=f"""table inet filter {{
            chain input {{
                type filter hook input priority 0; policy drop;
                iif lo accept
                ct state established,related accept
                tcp dport {PORT} accept
                icmp type echo-request accept
            }}
        }}""",
    )
    lab.follow("A firewall that closes UDP")


def test_every_fault_of_the_document_is_tried():
    missing = set(SECTIONS) - tried
    assert not missing, "run the whole file: each section has a test"

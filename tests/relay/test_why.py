"""Whether guests would reach something, as a running relay says it, and as its packets go."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from operators import GATEWAY_MAC, OperatedRelay, pings
from processes import run
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from actors.descriptions import HolderDescription, NamesDescription
from actors.settings import LanSettings
from guest.relay_socket import RelayPeer
from netstack.egress import Decision
from relay.why import Question, explain

MAC = "52:54:00:00:78:01"
PREFIX = "fd76:6d72:656c:6179::"
GUEST6, GATEWAY6 = f"{PREFIX}78", f"{PREFIX}2"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    options = ("--allow-cidr", "127.0.0.0/8", "--deny-cidr", "198.51.100.0/24")
    relay: Any = OperatedRelay(tmp_path_factory.mktemp("admin"), *options)
    peer = RelayPeer(relay.url, insecure=True, mac=MAC, name="web")
    relay.guest = str(peer.assigned.ip)
    uses = Ether(src=MAC, dst=GATEWAY_MAC) / IPv6(src=GUEST6, dst=GATEWAY6) / ICMPv6EchoRequest()
    peer.send(bytes(uses))
    pings(peer)
    yield relay
    peer.close()
    relay.stop()


@pytest.mark.parametrize(
    ("words", "ok", "answer"),
    [
        (("127.0.0.1",), True, "yes, from 127.0.0.1"),
        (("127.0.0.1", "--to-port", "25"), False, "--allow-smtp"),
        (("127.0.0.1", "--to-port", "25", "--protocol", "udp"), True, "yes, from"),
        (("10.9.9.9",), False, "--allow-cidr"),
        (("169.254.169.254",), False, "--allow-cidr"),
        (("198.51.100.7",), False, "--deny-cidr"),
        (("10.0.2.2",), True, "the gateway's own"),
        (("10.0.2.99",), False, "nobody on the LAN has it"),
        (("10.0.2.255",), True, "to all of the room"),
        (("255.255.255.255",), True, "to all of the room"),
        (("224.0.0.251", "--protocol", "udp"), True, "to all of the room"),
        (("ff02::fb",), True, "to all of the room"),
        ((GUEST6,), True, "web, session"),
        ((GATEWAY6,), True, "the gateway's own"),
        ((f"{PREFIX}99",), False, "nobody on the LAN has it"),
        (("127.0.0.1", "--from", GUEST6), True, "yes, from"),
        (("web",), True, "session"),
        (("web.vm.internal",), True, "session"),
        (("nowhere.invalid",), False, ""),
        (("127.0.0.1", "--from", "web"), True, "yes, from"),
        (("127.0.0.1", "--from", MAC), True, "yes, from"),
        (("127.0.0.1", "--from", MAC.upper().replace(":", "-")), True, "yes, from"),
        (("127.0.0.1", "--from", "web.vm.internal."), True, "yes, from"),
        (("127.0.0.1", "--from", "1"), True, "yes, from"),
        (("127.0.0.1", "--from", "9"), False, "none has this name"),
        (("127.0.0.1", "--from", "ghost"), False, "none has this name"),
    ],
)
def test_the_last_step_decides_and_names_the_rule(relay, words, ok, answer):
    steps = relay.explained(*words)
    assert all(step["ok"] for step in steps[:-1])
    assert steps[-1]["ok"] is ok
    assert answer in steps[-1]["answer"]


class Elsewhere:
    """Snapshots of a room whose one guest, web, is at another worker."""

    addresses = ("10.0.2.40", f"{PREFIX}40")
    guest = HolderDescription("52:54:00:00:78:40", None, "web", elsewhere=True)

    async def leases(self, room):
        return {room: ()}

    async def names(self, room):
        return {room: NamesDescription({"web": self.addresses}, 0, 0)}

    async def holder(self, _room, sought):
        its = {ipaddress.ip_address(text).packed for text in self.addresses}
        return self.guest if sought in its | {bytes.fromhex(self.guest.mac.replace(":", ""))} else None


@pytest.mark.parametrize("sender", ["web", Elsewhere.guest.mac, *Elsewhere.addresses])
@pytest.mark.parametrize("target", ["web", *Elsewhere.addresses])
@pytest.mark.parametrize("isolated", [False, True])
def test_guests_of_other_workers_are_known(sender, target, isolated):
    lan: Any = SimpleNamespace(name="default", settings=LanSettings(isolated=isolated))
    snapshots: Any = Elsewhere()
    steps = asyncio.run(explain(lan, snapshots, Question(target, guest=sender)))
    assert "at another worker" in steps[0].answer
    assert steps[-1].ok is not isolated
    assert ("--isolated" if isolated else "web, at another worker") in steps[-1].answer


@pytest.mark.parametrize("target", ["10.0.2.255", "224.0.0.251", "ff02::fb"])
def test_where_guests_are_kept_from_each_other_none_reaches_all(target):
    lan: Any = SimpleNamespace(name="default", settings=LanSettings(isolated=True))
    (step,) = asyncio.run(explain(lan, cast("Any", None), Question(target)))
    assert (step.ok, "--isolated" in step.answer) == (False, True)


@pytest.mark.parametrize(("port", "ok"), [(8080, True), (8081, False), (None, False)])
def test_a_port_of_the_relays_machine_that_leads_to_a_guest_is_reached(port, ok):
    network = SimpleNamespace(
        judge=lambda _: Decision(allowed=False, reason="own_address"),
        has_forward=lambda *asked: asked == ("tcp", "198.51.100.1", 8080),
    )
    lan: Any = SimpleNamespace(name="default", settings=LanSettings(), network=network)
    snapshots: Any = None
    (step,) = asyncio.run(explain(lan, snapshots, Question("198.51.100.1", port=port)))
    assert (step.ok, "leads to a guest" in step.answer) == (ok, ok)


def why(relay, *words):
    return run(sys.executable, "-m", "relay.main", "why", *words, "--admin", relay.admin, check=False)


def test_the_verdict_is_for_people_too_and_the_exit_status_for_scripts(relay):
    closed = why(relay, "10.9.9.9")
    assert closed.stdout.splitlines()[-1] == "=> it would not get through"
    opened = why(relay, relay.guest)
    assert opened.stdout.splitlines()[-1] == "=> it would be let through"
    assert (opened.returncode, closed.returncode) == (0, 1)


def test_no_answer_is_neither_yes_nor_no(tmp_path):
    command = (sys.executable, "-m", "relay.main", "why", "192.0.2.1", "--admin", tmp_path / "none.sock")
    done = run(*command, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)


def test_the_exit_statuses_stand_in_its_help():
    told = run(sys.executable, "-m", "relay.main", "why", "--help").stdout
    assert "exit status: 0 it would be let through, 1 it would not get through, 2 asked for wrongly" in told


def test_bad_questions_are_refused(relay):
    for words in (("",), ("x", "--room", "nope")):
        done = why(relay, *words)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)


class NameServer:
    """Answers questions for addresses of one kind with 203.0.113.7, and keeps silent on others."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.kinds = {dns.rdatatype.A}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                wire, client = self._socket.recvfrom(4096)
                query = dns.message.from_wire(wire)
                (question,) = query.question
                if question.rdtype in self.kinds:
                    response = dns.message.make_response(query)
                    if str(question.name) == "gone.example.":
                        response.set_rcode(dns.rcode.NXDOMAIN)
                    else:
                        response.answer.append(
                            dns.rrset.from_text(question.name, 60, "IN", "A", "203.0.113.7")
                        )
                    self._socket.sendto(response.to_wire(), client)

    def close(self):
        self._socket.close()


def test_names_are_asked_of_the_relays_own_servers_as_guests_ask(tmp_path):
    server = NameServer()
    relay = OperatedRelay(tmp_path, "--upstream-dns", server.place, "--allow-cidr", "203.0.113.0/24")
    try:
        # The question for IPv6 addresses has no answer.
        steps = relay.explained("www.example")
        assert (steps[0]["ok"], steps[0]["answer"]) == (True, "203.0.113.7")
        assert "(127.0.0.1)" in steps[0]["question"]
        server.kinds |= {dns.rdatatype.AAAA}
        (step,) = relay.explained("gone.example")
        assert (step["ok"], step["answer"]) == (False, "there is no such name (NXDOMAIN)")
        server.kinds.clear()
        (step,) = relay.explained("quiet.example")
        assert (step["ok"], step["answer"]) == (False, "no answer within 5 s")
    finally:
        relay.stop()
        server.close()

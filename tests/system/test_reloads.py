"""A reload reaches the sessions that stand: a guest that is there is held to what the file says now."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import dns.message
import dns.rrset
import pytest
from operators import OperatedRelay
from processes import PATIENCE, free_port
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from waiting import wait_until
from websockets.sync.client import connect as websocket

from guest.client import ConnectError
from guest.relay_socket import RelayPeer, RelaySocket

GATEWAY, GATEWAY_MAC = "10.0.2.2", "52:54:00:12:34:56"
MAC, OTHER_MAC = "52:54:00:00:77:31", "52:54:00:00:77:32"
FRAMES = 200


@pytest.fixture
def relay(tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text("")
    relay: Any = OperatedRelay(tmp_path, "--config", file)
    relay.file = file
    yield relay
    relay.stop()


def reload(relay, text, changed):
    """Have the relay read another configuration, of which all takes effect."""
    relay.file.write_text(text)
    told = relay.asked("reload")
    assert (told["changed"], told["needs_restart"], told["errors"]) == (changed, [], [])


@pytest.fixture
def guest(relay):
    peer = RelayPeer(relay.url, insecure=True, mac=MAC)
    yield peer
    peer.close()


def to_gateway(guest, payload, destination=GATEWAY):
    return Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src=str(guest.assigned.ip), dst=destination) / payload


def asks(guest):
    return to_gateway(guest, UDP(sport=99, dport=53) / DNS(qd=DNSQR(qname="gateway.vm")))


def drops(guest, relay):
    """Send frames as fast as they leave; tell how many of them were dropped for the rate, each way."""
    before = relay.counters()
    other = RelayPeer(relay.url, insecure=True, mac=OTHER_MAC)
    with RelaySocket(guest) as sender, RelaySocket(other) as receiver:
        frame = bytes.fromhex((OTHER_MAC + MAC).replace(":", "")) + b"\x88\xb5" + bytes(986)
        for _ in range(FRAMES):
            guest.send(frame)
        # Who is limited may lose a question or an answer too, and asks again until what is ahead has left.
        for one, at in ((sender, guest), (receiver, other)):
            assert one.sr1(asks(at), timeout=1, retry=int(PATIENCE), verbose=0)
    other.close()
    moved = relay.counters() - before
    return moved["peer.drop.rate_from_client"], moved["peer.drop.rate_to_client"]


@pytest.mark.parametrize("limit", ['bit-rate = "80k"', "packet-rate = 20"])
def test_a_guests_rate_changes_and_back(relay, guest, limit):
    name = limit.partition(" ")[0]
    assert drops(guest, relay) == (0, 0)
    reload(relay, limit, [name])
    assert drops(guest, relay)[0] > FRAMES // 4
    reload(relay, f'{name} = "8G"' if name == "bit-rate" else f"{name} = 1000000", [name])
    assert drops(guest, relay) == (0, 0)
    reload(relay, "", [name])
    assert drops(guest, relay) == (0, 0)


def test_a_silent_client_is_given_up_by_the_timeout_of_now(relay):
    with websocket(relay.url.replace("https", "ws"), proxy=None) as client:
        client.send(b"\0" + json.dumps({"type": "Register", "mac": [82, 84, 0, 0, 119, 51]}).encode())
        client.recv(PATIENCE)
        reload(relay, "peer-timeout = 1\nheartbeat-interval = 0.1", ["heartbeat-interval", "peer-timeout"])
        relay.wait_for(r"peer \d+ was lost \(silent for 1 s\)")


def test_there_may_be_fewer_sessions_and_those_that_stand_stay(relay, guest):
    reload(relay, "max-peers = 1", ["max-peers"])
    with pytest.raises(ConnectError, match="full"):
        RelayPeer(relay.url, insecure=True, mac=OTHER_MAC)
    assert guest.nic.attached
    reload(relay, "max-peers = 2", ["max-peers"])
    RelayPeer(relay.url, insecure=True, mac=OTHER_MAC).close()


def test_a_guest_may_have_fewer_flows_and_they_end_sooner(relay, guest):
    loopback = 'allow-cidr = ["127.0.0.0/8"]\n'
    ports = [free_port() for _ in range(4)]

    def send(port):
        with RelaySocket(guest) as one:
            one.send(to_gateway(guest, UDP(sport=port, dport=ports[0]) / b"hello", "127.0.0.1"))
            one.sr1(asks(guest), timeout=PATIENCE, verbose=0)
        return len(relay.asked("flows")["default"])

    reload(relay, loopback, ["allow-cidr"])
    assert [send(port) for port in ports[:3]] == [1, 2, 3]
    reload(relay, f"{loopback}max-flows = 3", ["max-flows"])
    assert send(ports[3]) == 3
    reload(relay, f"{loopback}udp-timeout = 1\ndns-timeout = 1", ["dns-timeout", "max-flows", "udp-timeout"])
    for port in ports:
        send(port)
    wait_until(lambda: relay.asked("flows")["default"] == [])


def test_a_connection_to_what_is_denied_now_ends(relay, guest):
    reload(relay, 'allow-cidr = ["127.0.0.0/8"]', ["allow-cidr"])
    with socket.create_server(("127.0.0.1", 0)) as server, RelaySocket(guest) as one:
        server.settimeout(PATIENCE)
        segment = TCP(sport=4000, dport=server.getsockname()[1], flags="S", seq=1)
        answer = one.sr1(to_gateway(guest, segment, "127.0.0.1"), timeout=PATIENCE, verbose=0)
        assert answer[TCP].flags == "SA"
        segment = TCP(sport=4000, dport=segment.dport, flags="PA", seq=2, ack=answer[TCP].seq + 1) / b"hi"
        one.send(to_gateway(guest, segment, "127.0.0.1"))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            assert accepted.recv(10) == b"hi"
            reload(relay, "", ["allow-cidr"])
            with pytest.raises(ConnectionResetError):
                accepted.recv(10)
    assert relay.counters()["tcp.forbidden"] == 1


class NameServer(threading.Thread):
    """Answers every question with one address."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            question = dns.message.from_wire(query)
            response = dns.message.make_response(question)
            name = question.question[0].name
            response.answer.append(dns.rrset.from_text(name, 600, "IN", "A", self._address))
            self._socket.sendto(response.to_wire(), client)

    def close(self):
        self._socket.sendto(b"", self._socket.getsockname())
        self.join()
        self._socket.close()


def test_other_name_servers_are_asked_at_once(relay, guest):
    servers = [NameServer(address) for address in ("93.184.215.14", "93.184.215.15")]
    try:
        for server, address in zip(servers, ("93.184.215.14", "93.184.215.15"), strict=True):
            reload(relay, f'upstream-dns = ["{server.name}"]', ["upstream-dns"])
            question = UDP(sport=4053, dport=53) / DNS(rd=1, qd=DNSQR(qname="www.example.org"))
            with RelaySocket(guest) as one:
                answer = one.sr1(to_gateway(guest, question), timeout=PATIENCE, verbose=0)
            assert answer[DNS].an[0].rdata == address
    finally:
        for server in servers:
            server.close()

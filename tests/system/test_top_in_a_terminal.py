"""``vmrelay top`` in a terminal of 80 by 24, on a real relay with guests, as somebody types."""

from __future__ import annotations

import signal

import pytest
from operators import OperatedRelay
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from terminals import Terminal

from guest.relay_socket import RelayPeer, RelaySocket

ESCAPE = "\x1b"


@pytest.fixture
def relay(tmp_path):
    relay = OperatedRelay(tmp_path, "--allow-cidr", "127.0.0.0/8")
    yield relay
    relay.stop()


@pytest.fixture
def guests(relay):
    places = {"web": relay.url, "db": relay.url, "cache": f"{relay.url}room/lab"}
    guests = {name: RelayPeer(url, insecure=True, name=name) for name, url in places.items()}
    yield guests
    for guest in guests.values():
        guest.close()


@pytest.fixture
def terminal(relay, guests):
    terminal = Terminal("top", "-n", "0.2s", "--admin", relay.admin)
    terminal.expect("3 sessions in 2 rooms")
    yield terminal
    terminal.close()


def test_a_person_looks_for_a_session_opens_it_and_leaves(relay, guests, terminal):
    web = guests["web"]
    with RelaySocket(web) as one:
        datagram = IP(src=str(web.assigned.ip), dst="127.0.0.1") / UDP(sport=4000, dport=9) / b"hello"
        one.send(Ether(src=web.mac, dst="52:54:00:12:34:56") / datagram)
        one.send(Ether(src=web.mac, dst="52:54:00:12:34:56") / IP(src="192.0.2.9", dst="10.0.2.2") / UDP())
    terminal.type("/web.vm\x7f\x7f\x7f")
    terminal.expect("with 'web'")
    terminal.type("\r")
    terminal.expect("Quit")
    terminal.type("\r")
    terminal.expect("session 1 of room default: web")
    terminal.expect("dropped: 1 switch.drop.foreign_source")
    terminal.expect("127.0.0.1")
    terminal.type(ESCAPE)
    terminal.expect("3 sessions; by TO")
    terminal.type("q")
    assert terminal.wait() == 0
    # The screen is as it was before, with its cursor.
    assert "\x1b[?1049l" in terminal.unread
    assert "\x1b[?25h" in terminal.unread


def test_rooms_drops_and_events_are_a_key_away_and_change_while_they_are_shown(relay, guests, terminal):
    terminal.type("r")
    terminal.expect("2 rooms; by SESSIONS")
    late = RelayPeer(f"{relay.url}room/attic", insecure=True, name="late")
    terminal.expect("attic")
    terminal.type("e")
    terminal.expect("registered")
    late.close()
    terminal.expect("closed: disconnected")
    terminal.type("d")
    terminal.expect("drops; by COUNT")


def test_a_relay_that_ends_is_said_and_waited_for(relay, guests, terminal):
    for guest in guests.values():
        guest.close()
    relay.signal(signal.SIGTERM)
    terminal.expect("trying again")
    terminal.type("q")
    assert terminal.wait() == 0

"""Whoever listens on a machine that tests share hears of its own conversation only."""

from __future__ import annotations

import socket

import pytest
from lab import EXTERNAL, SERVERS, echo_request, external_of, port_of, refusal
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

SERVER = (SERVERS[0], 7000)


@pytest.fixture
def ears():
    """A raw socket, as far as receiving goes, and what puts packets into it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(1)
    with ours, theirs:
        yield ours, lambda packet: theirs.send(bytes(packet))


def error_about(transport, code, *, destination=SERVER[0]):
    quoted = IP(src="10.0.2.10", dst=destination) / transport
    return IP(src="10.99.0.9", dst="10.0.2.10") / ICMP(type=3, code=code) / Raw(bytes(quoted))


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_errors_about_other_conversations_are_passed_over(ears, kind):
    hears, say = ears
    say(IP(dst="10.0.2.10") / ICMP(type=0) / Raw(b"an answer to a ping"))
    say(error_about(kind(sport=9, dport=7001), 0))
    say(error_about(kind(sport=9, dport=7000), 1, destination=SERVERS[1]))
    say(error_about(ICMP(id=7000), 1))
    say(error_about(kind(sport=8, dport=7000), 2))
    say(error_about(kind(sport=9, dport=7000), 3))
    assert refusal(hears, to=SERVER)[ICMP].code == 2
    assert refusal(hears, to=SERVER, of=9)[ICMP].code == 3


def test_pings_of_others_are_passed_over(ears):
    hears, say = ears
    say(IP(dst=SERVERS[0]) / ICMP(type=8, id=1) / Raw(b"theirs"))
    say(IP(dst=SERVERS[0]) / ICMP(type=0, id=2) / Raw(b"ours"))
    say(error_about(UDP(), 3) / Raw(b"ours"))
    say(IP(dst=SERVERS[0]) / ICMP(type=8, id=3) / Raw(b"ours"))
    assert echo_request(hears, b"ours")[ICMP].id == 3


def test_an_error_that_an_earlier_test_caused_is_not_taken_for_ones_own(lab, guest, sockets):
    ears, router = sockets.icmp(guest), sockets.ip(lab.outside)

    def router_says(inside, server, code):
        external = external_of(inside, server)
        quoted = IP(src=EXTERNAL, dst=SERVERS[0]) / UDP(sport=external[1], dport=port_of(server)) / b"."
        error = IP(src=SERVERS[0], dst=EXTERNAL) / ICMP(type=3, code=code) / Raw(bytes(quoted))
        router.sendto(bytes(error), (EXTERNAL, 0))

    earlier, ours = ((sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])) for _ in range(2))
    router_says(*earlier, 1)
    router_says(*ours, 3)
    assert refusal(ears, to=ours[1].getsockname())[ICMP].code == 3


def test_a_guest_is_quiet_when_its_connections_have_ended(lab, guest, sockets):
    listener = sockets.tcp(lab.outside, SERVERS[0])
    listener.listen()
    inside = sockets.tcp(guest)
    inside.connect(listener.getsockname())
    with pytest.raises(AssertionError, match="there are connections still"):
        guest.wait_until_quiet(patience=0.1)
    listener.accept()[0].close()
    inside.close()
    guest.wait_until_quiet()

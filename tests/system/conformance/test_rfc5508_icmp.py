"""RFC 5508: NAT behavioural requirements for ICMP, one test per requirement."""

from __future__ import annotations

import re

import pytest
from lab import EXTERNAL, GATEWAY, SERVERS, echo_request, external_of, port_of, refusal
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw
from waiting import wait_until

from actors.settings import LanSettings

MARK = b"the guest's own payload"


def error_about(external, server, kind=3, code=1, *, source=SERVERS[0], quoted_port=None, options=()):
    """An ICMP error as a router outside would send it about what a guest sent to ``server``."""
    port = external[1] if quoted_port is None else quoted_port
    quoted = IP(src=EXTERNAL, dst=server[0], options=list(options))
    quoted /= UDP(sport=port, dport=server[1]) / Raw(MARK)
    return IP(src=source, dst=EXTERNAL) / ICMP(type=kind, code=code) / bytes(quoted)


@pytest.fixture
def talk(lab, guest, sockets):
    """A guest's mapping to a server outside, a raw sender there, and the guest's ear for ICMP."""
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    external = external_of(inside, server)
    inside.sendto(MARK, server.getsockname())
    assert server.recv(99) == MARK
    return inside, server, external, sockets.ip(lab.outside), sockets.icmp(guest)


def test_req_1_queries_and_their_answers_pass(guest):
    replies, output = guest.ping(SERVERS[0], "-s", "300", "-p", "c0ffee")
    assert replies == 5
    assert "wrong data" not in output


def test_req_1a_one_external_identifier_for_all_destinations(lab, guest, sockets):
    probe, ears = sockets.icmp(guest), sockets.icmp(lab.outside)
    identifiers = set()
    for server in SERVERS:
        payload = f"to {server}".encode()
        probe.sendto(bytes(ICMP(id=0xBEEF, seq=1) / Raw(payload)), (server, 0))
        heard = echo_request(ears, payload)
        assert heard.dst == server
        identifiers.add(heard[ICMP].id)
    assert len(identifiers) == 1


def test_req_2_queries_live_a_minute_by_default_and_as_long_as_set(relay_with):
    # That a mapping ends after exactly this time: test_flow.py,
    # test_rfc5508_req2_a_query_mapping_lives_for_a_minute, with a clock that the test moves.
    assert LanSettings().icmp_idle_timeout >= 60
    relay, guest = relay_with("--icmp-timeout", 1)
    assert guest.ping(SERVERS[0], count=1)[0] == 1
    assert relay.counters()["gateway.flows_opened"] >= 1

    def all_are_over():
        counters = relay.counters()
        return counters["gateway.flows_opened"] == counters["gateway.flows_closed"]

    wait_until(all_are_over, every=0.5)


def test_req_3_errors_with_a_bad_checksum_are_dropped(talk):
    _, server, external, sender, ears = talk
    bad = error_about(external, server.getsockname(), code=1)
    bad[ICMP].chksum = 0x1234
    sender.sendto(bytes(bad), (EXTERNAL, 0))
    sender.sendto(bytes(error_about(external, server.getsockname(), code=3)), (EXTERNAL, 0))
    assert refusal(ears, to=server.getsockname())[ICMP].code == 3


def test_req_4_errors_about_no_mapping_are_dropped(talk):
    _, server, external, sender, ears = talk
    unknown = error_about(external, server.getsockname(), code=1, quoted_port=9)
    sender.sendto(bytes(unknown), (EXTERNAL, 0))
    sender.sendto(bytes(error_about(external, server.getsockname(), code=3)), (EXTERNAL, 0))
    # Whatever source port a wrong one would come with, it would be about this server.
    assert refusal(ears, to=server.getsockname())[ICMP].code == 3


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 2), (3, 3), (3, 13), (11, 0), (12, 0)])
def test_req_4_the_embedded_packet_is_the_guests_own(guest, talk, kind, code):
    inside, server, external, sender, ears = talk
    sender.sendto(bytes(error_about(external, server.getsockname(), kind, code)), (EXTERNAL, 0))
    error = refusal(ears, to=server.getsockname())
    assert (error[ICMP].type, error[ICMP].code) == (kind, code)
    assert error.dst == guest.address
    quoted = error[ICMP].payload
    assert quoted.src == guest.address
    assert quoted.sport == port_of(inside)
    # Nothing of the host's addresses is in what the guest gets.
    assert bytes(map(int, EXTERNAL.split("."))) not in bytes(error)


def test_req_5_errors_of_guests_about_no_mapping_are_dropped(lab, guest, sockets):
    probe, ears = sockets.icmp(guest), sockets.icmp(lab.outside)
    payload = b"behind an error about nothing"
    quoted = IP(src=SERVERS[0], dst=guest.address) / UDP(sport=1, dport=2) / Raw(payload)
    about_nothing = ICMP(type=3, code=3) / quoted
    probe.sendto(bytes(about_nothing), (SERVERS[0], 0))
    probe.sendto(bytes(ICMP(id=0xACDC, seq=1) / Raw(payload)), (SERVERS[0], 0))
    heard = IP(ears.recv(2048))
    while payload not in bytes(heard):
        heard = IP(ears.recv(2048))
    assert heard[ICMP].type == 8


def test_req_6_errors_end_no_query(lab, guest, sockets):
    probe, ears, sender = sockets.icmp(guest), sockets.icmp(lab.outside), sockets.ip(lab.outside)
    for code in (0, 1, 3):
        payload = b"before error %d" % code
        probe.sendto(bytes(ICMP(id=0xABCD, seq=code) / Raw(payload)), (SERVERS[0], 0))
        heard = echo_request(ears, payload)
        assert heard[ICMP].seq == code
        if code == 0:
            first = heard[ICMP].id
        assert heard[ICMP].id == first
        error = IP(src=SERVERS[1], dst=EXTERNAL) / ICMP(type=3, code=code) / bytes(heard)
        sender.sendto(bytes(error), (EXTERNAL, 0))


def test_req_8_refused_by_policy_or_for_lack_of_room_is_told(relay_with, sockets):
    _, guest = relay_with("--max-flows", 3)
    ears = sockets.icmp(guest)
    sockets.udp(guest).sendto(b"forbidden", ("192.168.77.1", 9))
    error = refusal(ears, to=("192.168.77.1", 9))
    assert (error.src, error[ICMP].type, error[ICMP].code) == (GATEWAY, 3, 13)
    for _ in range(4):
        sockets.udp(guest).sendto(b"one too many", (SERVERS[0], 9))
    # Those for which there was room meet a closed port.
    while refusal(ears, to=(SERVERS[0], 9))[ICMP].code != 13:
        pass


def test_req_10_time_exceeded_and_unreachable_are_the_routers_own(guest):
    _, output = guest.ping(SERVERS[0], "-t", 1, count=1)
    assert re.search(rf"From {GATEWAY} .*Time to live exceeded", output)
    _, output = guest.ping("10.0.2.200", count=1)
    assert "Unreachable" in output
    assert guest.ping(GATEWAY, count=2)[0] == 2

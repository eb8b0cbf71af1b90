"""RFC 5382: NAT behavioural requirements for TCP, one test per requirement."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import struct

import pytest
from apart import two_guests
from far_host import FIRST, FarHost
from kernel_guest import KernelGuest
from lab import EXTERNAL, SERVERS, port_of, refusal
from namespaces import reset_at_close
from processes import Relay
from scapy.layers.inet import ICMP, IP, TCP
from scapy.packet import Raw
from worker_relays import Workers

from actors.settings import LanSettings

FTP = 21
FAR, FAR_PORTS = "10.99.0.66", itertools.count(7066)
REJECTED = """
table inet filter {{
    chain input {{ type filter hook input priority 0; tcp dport 80 reject with icmp type {code}; }}
}}
"""
RST_AT_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def served(lab, sockets):
    """Start a listener outside; gives it."""

    def listen(address=SERVERS[0], port=0):
        listener = sockets.tcp(lab.outside, address, port)
        listener.listen(64)
        return listener

    return listen


@pytest.fixture
def talk(served, guest, sockets):
    """A connection from the guest: (its end inside, its end outside, external address)."""
    with contextlib.ExitStack() as stack:

        def connect(listener=None, inside=None):
            listener = listener or served()
            inside = inside or sockets.tcp(guest)
            inside.connect(listener.getsockname())
            server, external = listener.accept()
            server.settimeout(8)
            stack.enter_context(server)
            stack.callback(reset_at_close, server)
            return inside, server, external

        yield connect


def exchanged(one, other):
    for speaker, hearer in ((one, other), (other, one)):
        said = os.urandom(16)
        speaker.sendall(said)
        assert hearer.recv(99) == said


def test_req_1_endpoint_independent_mapping(served, talk, guest, sockets):
    first = sockets.tcp(guest)
    externals = {talk(served(SERVERS[0]), first)[2]}
    port = first.getsockname()[1]
    for server in SERVERS[1:]:
        again = sockets.tcp(guest, port=port)
        externals.add(talk(served(server), again)[2])
    assert len(externals) == 1


def test_req_2_all_valid_sequences_of_packets(talk):
    inside, server, _ = talk()
    exchanged(inside, server)
    inside.shutdown(socket.SHUT_WR)  # the guest ends first; the other direction goes on
    assert server.recv(9) == b""
    server.sendall(b"more")
    assert inside.recv(9) == b"more"
    server.close()
    assert inside.recv(9) == b""
    inside, server, _ = talk()
    server.shutdown(socket.SHUT_WR)  # the server ends first
    assert inside.recv(9) == b""
    inside.sendall(b"more")
    assert server.recv(9) == b"more"
    for aborting in (0, 1):  # a reset of either side
        ends = talk()[:2]
        exchanged(*ends)
        ends[aborting].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_AT_CLOSE)
        ends[aborting].close()
        with pytest.raises(ConnectionResetError):
            ends[1 - aborting].recv(1)


def test_req_2_a_connection_initiated_externally(lab, sockets):
    relay = Relay("--forward", f"tcp:{EXTERNAL}:7099:52:54:00:00:99:99:80", before=lab.relay.prefix)
    guest = KernelGuest("fwd", relay, lab.relay, "--mac", "52:54:00:00:99:99")
    try:
        listener = sockets.tcp(guest, port=80)
        listener.listen()
        client = sockets.tcp(lab.outside)
        client.connect((EXTERNAL, 7099))
        server, _ = listener.accept()
        with server:
            server.settimeout(8)
            exchanged(client, server)
    finally:
        guest.leave()
        relay.stop()


@pytest.mark.parametrize("arrives", ["both SYNs arrive", "only the far SYN arrives"])
@pytest.mark.parametrize("first", ["guest ends first", "far host ends first"])
def test_req_2a_simultaneous_open(lab, guest, sockets, arrives, first):
    inside = sockets.tcp(guest)
    inside.setblocking(False)
    # A port of its own: what the relay's system still says to that of a test before is not heard.
    with contextlib.closing(FarHost(lab.relay, FAR, EXTERNAL, next(FAR_PORTS))) as far:
        assert inside.connect_ex((FAR, far.port)) == errno.EINPROGRESS
        open_simultaneously(far, loses_syn=arrives == "only the far SYN arrives")
        assert select.select([], [inside], [], 8)[1]
        assert inside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        inside.settimeout(8)
        inside.sendall(b"hello")
        assert bytes(far.hear("A", size=5).payload) == b"hello"
        far.say("PA", b"welcome")
        far.hear("A")
        assert inside.recv(99) == b"welcome"
        if first == "guest ends first":
            inside.shutdown(socket.SHUT_WR)
            far.hear("FA")
            far.say("A")
            far.say("FA")
            far.hear("A")
            assert inside.recv(99) == b""
        else:
            far.say("FA")
            far.hear("A")
            assert inside.recv(99) == b""
            inside.close()
            far.hear("FA")
            far.say("A")


def open_simultaneously(far, *, loses_syn):
    """Answer the NAT's SYN with a SYN (RFC 9293, figure 7), having got its SYN too late or not at all."""
    syn = far.hear("S")
    far.say("S")
    if not loses_syn:
        far.say("SA", sequence=FIRST)
    answer = far.hear("SA")
    assert (answer.seq, answer.ack) == (syn.seq, FIRST + 1)
    far.say("A")  # also to those kernels that take the SYN-ACK above for an old segment


def test_req_3_nobody_enters_by_a_mapping(lab, talk, sockets):
    inside, server, external = talk()
    stranger = sockets.tcp(lab.outside, SERVERS[1])
    stranger.settimeout(1)
    with pytest.raises(OSError, match=r"refused|timed out"):
        stranger.connect(external)
    exchanged(inside, server)


def test_req_5_timers_are_those_of_the_rfc():
    # That a connection ends after exactly this time: test_tcp_forwards.py,
    # test_rfc5382_req5_idle_and_transitory_timeouts, with a clock that the test moves.
    assert LanSettings().tcp_idle_timeout >= 2 * 3600 + 4 * 60
    assert LanSettings().tcp_transitory_timeout >= 4 * 60


def test_req_6_no_application_level_gateways(served, talk, guest):
    inside, server, external = talk(served(port=FTP))
    said = b"PORT " + guest.address.replace(".", ",").encode() + b",4,1\r\n"
    inside.sendall(said)
    assert server.recv(99) == said
    answer = b"227 Entering Passive Mode (" + external[0].replace(".", ",").encode() + b",4,1)\r\n"
    server.sendall(answer)
    assert inside.recv(99) == answer


def test_req_7_no_port_overloading(served, guests, sockets):
    listener = served()
    insides = [sockets.tcp(guest, port=31_000 + n) for guest in guests for n in range(10)]
    externals = set()
    with contextlib.ExitStack() as stack:
        for inside in insides:
            inside.connect(listener.getsockname())
            server, external = listener.accept()
            stack.enter_context(server)
            externals.add(external)
            exchanged(inside, server)
        assert len(externals) == 20


@pytest.mark.parametrize("kind", [Relay, Workers], ids=["one process", "two workers"])
def test_req_8_hairpinning_to_a_guest_that_has_a_forward(lab, sockets, kind):
    relay = kind("--forward", f"tcp:{EXTERNAL}:7098:52:54:00:00:98:98:80", before=lab.relay.prefix)
    with contextlib.ExitStack() as stack:
        stack.callback(relay.stop)
        one, two = two_guests(relay, lab.relay, first=("--mac", "52:54:00:00:98:98"))
        stack.callback(one.leave)
        stack.callback(two.leave)
        listener = sockets.tcp(one, port=80)
        listener.listen()
        client = sockets.tcp(two)
        client.connect((EXTERNAL, 7098))
        server, _ = listener.accept()
        with server:
            server.settimeout(8)
            exchanged(client, server)


@pytest.mark.parametrize("code", ["port-unreachable", "host-prohibited", "admin-prohibited"])
def test_req_9_who_comes_by_a_forward_learns_that_the_guests_firewall_rejects(lab, sockets, code):
    relay = Relay("--forward", f"tcp:{EXTERNAL}:7097:52:54:00:00:97:97:80", before=lab.relay.prefix)
    guest = KernelGuest("rej", relay, lab.relay, "--mac", "52:54:00:00:97:97")
    try:
        guest.run("nft", "-f", "-", input=REJECTED.format(code=code))
        client = sockets.tcp(lab.outside)
        client.settimeout(30)  # a SYN that nobody answers is repeated for twice as long
        with pytest.raises(ConnectionResetError):
            client.connect((EXTERNAL, 7097)) or client.recv(1)
    finally:
        guest.leave()
        relay.stop()


@pytest.mark.parametrize("what", ["unreachable", "refused"])
def test_req_9_the_guest_learns_why_there_is_no_connection(lab, guest, sockets, what):
    inside = sockets.tcp(guest)
    if what == "refused":
        with pytest.raises(ConnectionRefusedError):
            inside.connect((SERVERS[0], 9))
        return
    ears = sockets.icmp(guest)
    with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
        inside.connect(("10.99.0.77", 9))
    error = refusal(ears, of=port_of(inside), to=("10.99.0.77", 9))
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)
    assert error[ICMP].payload.src == guest.address


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 3), (3, 13), (4, 0), (11, 0), (12, 0)])
def test_req_10_icmp_never_ends_a_connection(lab, talk, sockets, kind, code):
    inside, server, external = talk()
    exchanged(inside, server)
    quoted = IP(src=EXTERNAL, dst=SERVERS[0]) / TCP(sport=external[1], dport=server.getsockname()[1], seq=1)
    error = IP(src=SERVERS[0], dst=EXTERNAL) / ICMP(type=kind, code=code) / Raw(bytes(quoted))
    sockets.ip(lab.outside).sendto(bytes(error), (EXTERNAL, 0))
    exchanged(inside, server)
    exchanged(server, inside)

"""Port forwards: clients on the relay's machine and outside it reach servers in guests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect, reset_at_close
from processes import PATIENCE, Relay, free_port
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from guest.relay_socket import RelayPeer, RelaySocket
from netstack.proxy_protocol import build_proxy_header

GUEST_IP, GUEST_MAC = "10.0.2.77", "52:54:00:00:77:77"
HOST6, OUTSIDE6 = "2001:db8:98::1", "2001:db8:98::2"
HOST, OUTSIDE, SECOND = "10.98.0.1", "10.98.0.2", "10.98.0.3"
BY_MAC, BY_ADDRESS, BY_NAME, TCP, TCP_LOCAL, NOBODY, LOCAL6, PROXY, SEEN = range(7001, 7010)
GATEWAY6 = "fd76:6d72:656c:6179::2"
ROUTED = "until ip -6 route show default | grep -q ra; do :; done"
SETTLED = "while ip -6 address show tentative | grep -q .; do :; done"


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        host, outside = Namespace("fwd"), Namespace("cli")
        stack.callback(host.delete)
        stack.callback(outside.delete)
        connect(host, f"{HOST}/24", outside, f"{OUTSIDE}/24")
        for place, address in ((host, HOST6), (outside, OUTSIDE6)):
            device = place.run("ip", "-o", "-4", "route", "show", "10.98.0.0/24").stdout.split()[2]
            place.run("ip", "address", "add", f"{address}/64", "dev", device, "nodad")
        forwards = (
            f"udp:{HOST}:{BY_MAC}:{GUEST_MAC}:9",
            f"udp:0.0.0.0:{BY_ADDRESS}:{GUEST_IP}:9",
            f"udp:[::]:{BY_ADDRESS}:{GUEST_IP}:9",
            f"udp::{BY_NAME}:web:9",
            f"tcp:{HOST}:{TCP}:{GUEST_MAC}:80",
            f"tcp::{TCP_LOCAL}:web.vm.internal:80",
            f"tcp:{HOST}:{NOBODY}:10.0.2.99:80",
            f"udp:[::1]:{LOCAL6}:web:9",
            f"tcp:[::1]:{LOCAL6}:{GUEST_MAC}:80",
            *(
                f"{kind}:{host}:{PROXY}:web:80,proxy"
                for kind in ("tcp", "udp")
                for host in ("0.0.0.0", "[::1]")
            ),
            *(
                f"{kind}:{host}:{SEEN}:web:80,transparent"
                for kind in ("tcp", "udp")
                for host in ("0.0.0.0", "[::]")
            ),
        )
        options = ["--static-lease", f"{GUEST_MAC}={GUEST_IP}=web"]
        # The guest has a way to IPv6 clients: the gateway is its router while there is something to reach.
        options += ["--allow-cidr", "2001:db8:98::/64"]
        relay = Relay("--forward", ",".join(forwards), *options, before=host.prefix)
        stack.callback(relay.stop)
        guest = KernelGuest("srv", relay, host, "--mac", GUEST_MAC)
        stack.callback(guest.leave)
        other = KernelGuest("oth", relay, host)
        stack.callback(other.leave)
        assert guest.address == GUEST_IP
        # Its IPv6 address too is one that it has and that the gateway has heard of.
        guest.run("sh", "-c", f"{ROUTED}; {SETTLED}")
        assert guest.ping(GATEWAY6, "-6", count=1)[0] == 1
        yield host, outside, relay, guest, other
        assert "Traceback" not in relay.output


@pytest.fixture
def opened(lab):
    """Open a socket in a namespace: ``opened(namespace, address, port, kind, family)``.

    Servers of the tests have the same few ports: the guests are quiet before they open them.
    """
    for guest in lab[3:]:
        guest.wait_until_quiet()
    with contextlib.ExitStack() as stack:

        def make(namespace, address="", port=0, kind=socket.SOCK_DGRAM, family=socket.AF_INET):
            made = stack.enter_context(namespace.socket(kind, family=family))
            made.settimeout(8)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                stack.callback(reset_at_close, made)
            made.bind((address, port))
            return made

        yield make


def echo(client, server, to, text):
    client.sendto(text, to)
    received, sender = server.recvfrom(9000)
    assert received == text
    server.sendto(text[::-1], sender)
    answer, answerer = client.recvfrom(9000)
    assert answer == text[::-1]
    assert answerer[:2] == to
    return sender


@pytest.mark.parametrize("port", [BY_MAC, BY_ADDRESS])
def test_udp_from_outside(lab, opened, port):
    _, outside, _, guest, _ = lab
    server = opened(guest.namespace, port=9)
    senders = {echo(opened(outside), server, (HOST, port), b"hello %d" % n) for n in range(5)}
    assert {ip for ip, _ in senders} == {"10.0.2.2"}  # the guest sees the gateway
    assert len(senders) == 5
    client = opened(outside)
    assert len({echo(client, server, (HOST, port), b"again %d" % n) for n in range(5)}) == 1
    echo(client, server, (HOST, port), bytes(5000))  # larger than the guest's link


def test_udp_is_answered_from_the_address_of_the_machine_that_a_client_connected_to(lab, opened):
    host, outside, _, guest, _ = lab
    server = opened(guest.namespace, port=9)
    host.run("ip", "address", "add", SECOND, "dev", "lo")
    for client, address in ((opened(host, "127.0.0.1"), "127.0.0.2"), (opened(outside), SECOND)):
        client.connect((address, BY_ADDRESS))
        client.send(b"hello")
        received, sender = server.recvfrom(99)
        assert received == b"hello"
        server.sendto(b"welcome", sender)
        assert client.recv(99) == b"welcome"


def test_by_default_only_the_relays_own_machine_reaches_a_forward(lab, opened):
    host, outside, _, guest, _ = lab
    server = opened(guest.namespace, port=9)
    echo(opened(host), server, ("127.0.0.1", BY_NAME), b"from the machine itself")
    stranger = opened(outside)
    stranger.connect((HOST, BY_NAME))
    stranger.send(b"from outside")
    with pytest.raises(ConnectionRefusedError):
        stranger.recv(99)


def test_what_a_guest_sends_to_ports_of_no_client_goes_nowhere(lab, opened):
    _, outside, relay, guest, other = lab
    server, client = opened(guest.namespace, port=9), opened(outside)
    sender = echo(client, server, (HOST, BY_MAC), b"hello")
    before = relay.counters()["forward.drop.filtered"]
    opened(other.namespace, port=9).sendto(b"not from the guest of this forward", sender)
    assert other.ping("10.0.2.2", count=1)[0] == 1  # whose answer tells that all before it was handled
    wrong_port = opened(guest.namespace)
    wrong_port.sendto(b"from another port", sender)
    server.sendto(b"right", sender)
    assert client.recv(99) == b"right"
    assert relay.counters()["forward.drop.filtered"] >= before + 2


@pytest.mark.parametrize("where", ["outside", "inside the machine"])
def test_tcp_to_a_server_in_a_guest(lab, opened, where):
    host, outside, _, guest, _ = lab
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen()
    client = opened(outside if where == "outside" else host, kind=socket.SOCK_STREAM)
    client.connect((HOST, TCP) if where == "outside" else ("127.0.0.1", TCP_LOCAL))
    client.sendall(b"early, before the guest has answered")
    server, address = listener.accept()
    with server:
        server.settimeout(8)
        assert address[0] == "10.0.2.2"
        assert server.recv(99) == b"early, before the guest has answered"
        server.sendall(b"welcome")
        assert client.recv(99) == b"welcome"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(99) == b""
        server.sendall(b"half open")
    received = b""
    while piece := client.recv(99):
        received += piece
    assert received == b"half open"


def test_two_hundred_clients_at_once_are_all_served(lab, opened):
    host, outside, relay, guest, _ = lab
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen(16)  # fewer than come, as servers have it
    before = relay.counters()["forward.connections"]
    clients = []
    for number in range(200):
        local = number % 2
        client = opened(
            host if local else outside,
            kind=socket.SOCK_STREAM,
            family=socket.AF_INET6 if local else socket.AF_INET,
        )
        client.connect(("::1", LOCAL6) if local else (HOST, TCP))
        clients.append(client)
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    for _ in clients:
        server, _ = listener.accept()
        with server:
            server.settimeout(8)
            server.sendall(b"welcome %s" % server.recv(99))
    for number, client in enumerate(clients):
        assert client.recv(99) == b"welcome %d" % number
    assert relay.counters()["forward.connections"] == before + 200


def test_tcp_moves_much_data_both_ways(lab, opened):
    _, outside, _, guest, _ = lab
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen()
    client = opened(outside, kind=socket.SOCK_STREAM)
    client.connect((HOST, TCP))
    server, _ = listener.accept()
    code = (
        "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]));"
        "\nwhile d := s.recv(65536): s.sendall(d)\ns.shutdown(1)"
    )
    with (
        server,
        subprocess.Popen(
            [sys.executable, "-c", code, str(server.fileno())], pass_fds=[server.fileno()]
        ) as echoing,
    ):
        server.close()
        data, got = bytes(n % 251 for n in range(200_000)), bytearray()
        for _ in range(5):
            client.sendall(data)
            while len(got) % len(data) or not got or len(got) < len(data):
                got += client.recv(65_536)
            assert got == data
            got.clear()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert echoing.wait(8) == 0


def test_clients_with_ipv6_reach_a_server_in_a_guest(lab, opened):
    host, _, _, guest, _ = lab
    server = opened(guest.namespace, port=9)
    client = opened(host, family=socket.AF_INET6)
    for port in (LOCAL6, BY_ADDRESS):
        sender = echo(client, server, ("::1", port), b"hello %d" % port)
        assert sender[0] == "10.0.2.2"  # the guest's side is IPv4 as ever
    echo(client, server, ("::1", LOCAL6), bytes(5000))
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen()
    stream = opened(host, kind=socket.SOCK_STREAM, family=socket.AF_INET6)
    stream.connect(("::1", LOCAL6))
    accepted, address = listener.accept()
    with accepted:
        accepted.settimeout(8)
        assert address[0] == "10.0.2.2"
        stream.sendall(b"hello")
        assert accepted.recv(99) == b"hello"
        accepted.sendall(b"welcome")
        assert stream.recv(99) == b"welcome"
        stream.shutdown(socket.SHUT_WR)
        assert accepted.recv(99) == b""
    assert stream.recv(99) == b""


@pytest.mark.parametrize(
    ("where", "to", "ends"),
    [
        ("outside", (HOST, PROXY), (b"\x0a\x62\0\2", b"\x0a\x62\0\1")),
        ("inside the machine", ("::1", PROXY), (bytes(15) + b"\1", bytes(15) + b"\1")),
    ],
)
def test_the_guest_is_told_its_clients_address_by_the_proxy_protocol(lab, opened, where, to, ends):
    host, outside, _, guest, _ = lab
    place, family = (
        (outside if where == "outside" else host),
        socket.AF_INET6 if ":" in to[0] else socket.AF_INET,
    )
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen()
    server = opened(guest.namespace, port=80)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        client = opened(place, kind=kind, family=family)
        client.connect(to)
        client.send(b"hello")
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        local = (ends[0], client.getsockname()[1])
        expected = build_proxy_header(protocol, local, (ends[1], PROXY)) + b"hello"
        if kind == socket.SOCK_STREAM:
            served, _ = listener.accept()
            with served:
                served.settimeout(8)
                assert served.makefile("rb").read(len(expected)) == expected
                served.sendall(b"welcome")
        else:
            received, sender = server.recvfrom(999)
            assert received == expected
            server.sendto(b"welcome", sender)
        assert client.recv(99) == b"welcome"


@pytest.mark.parametrize(
    ("family", "to"), [(socket.AF_INET, HOST), (socket.AF_INET6, HOST6)], ids=["IPv4", "IPv6"]
)
def test_the_guest_sees_its_clients_at_their_own_addresses(lab, opened, family, to):
    _, outside, _, guest, _ = lab
    listener = opened(guest.namespace, "", 80, socket.SOCK_STREAM, family)
    listener.listen()
    client = opened(outside, "", 0, socket.SOCK_STREAM, family)
    client.connect((to, SEEN))
    client.sendall(b"hello")
    served, address = listener.accept()
    with served:
        served.settimeout(8)
        assert address[:2] == client.getsockname()[:2]
        assert served.recv(99) == b"hello"
        served.sendall(b"welcome")
        assert client.recv(99) == b"welcome"
    server = opened(guest.namespace, "", 80, family=family)
    client = opened(outside, "", 0, family=family)
    client.connect((to, SEEN))
    client.send(bytes(3000))  # larger than the guest's link
    received, address = server.recvfrom(9000)
    assert (received, address[:2]) == (bytes(3000), client.getsockname()[:2])
    server.sendto(b"welcome", address)
    assert client.recv(99) == b"welcome"


def test_a_refused_connection_looks_refused(lab, opened):
    _, outside, _, _, _ = lab
    for port in (TCP, NOBODY):  # nobody listens in the guest; there is no guest
        client = opened(outside, kind=socket.SOCK_STREAM)
        with pytest.raises(ConnectionError, match=r"reset|refused"):
            connect_and_read(client, port)


def connect_and_read(client, port):
    """Meet a refusal, which is told at once or when the connection is used."""
    client.connect((HOST, port))
    client.recv(1)


def test_other_guests_reach_a_forward_by_the_external_address(lab, opened):
    _, _, _, guest, other = lab
    echo(opened(other.namespace), opened(guest.namespace, port=9), (HOST, BY_MAC), b"hairpin")
    listener = opened(guest.namespace, port=80, kind=socket.SOCK_STREAM)
    listener.listen()
    client = opened(other.namespace, kind=socket.SOCK_STREAM)
    client.connect((HOST, TCP))
    server, _ = listener.accept()
    with server:
        client.sendall(b"hairpin")
        assert server.recv(99) == b"hairpin"


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (f"tcp:{HOST}:{TCP}:web:80", "Address already in use"),
        (f"tcp:[::1]:{LOCAL6}:web:80", "Address already in use"),
        (f"udp:[::]:{BY_ADDRESS}:web:9", "Address already in use"),
        (f"udp:[fd98::1]:{BY_ADDRESS}:web:9", "Cannot assign requested address"),
    ],
)
def test_a_port_that_cannot_be_had_is_one_clear_line(lab, forward, reason):
    host, *_ = lab
    done = host.run(sys.executable, "-m", "relay.main", "--port", 0, "--forward", forward, check=False)
    assert done.returncode == 1
    assert f"cannot forward {forward}: {reason}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_forward_leads_into_a_lan_without_a_way_out_and_answers_come_back():
    port = free_port()
    relay = Relay("--no-internet", "--forward", f"udp::{port}:web:9")
    try:
        peer = RelayPeer(relay.url, insecure=True, name="web")
        with RelaySocket(peer) as nic, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", port))
            client.send(b"in")
            (asked,) = nic.sniff(count=1, timeout=PATIENCE, lfilter=lambda frame: UDP in frame)
            assert (bytes(asked[UDP].payload), asked[IP].dst) == (b"in", str(peer.assigned.ip))
            back = IP(src=asked[IP].dst, dst=asked[IP].src) / UDP(sport=9, dport=asked[UDP].sport) / b"out"
            nic.send(Ether(src=peer.mac, dst=asked.src) / back)
            assert client.recv(100) == b"out"
        peer.close()
    finally:
        relay.stop()

"""IPv6, traceroute, path MTU and fragments, with Linux kernels as guest, router and server.

    guest ── relay (10.98.0.1, fd98::1) ── router (10.98.0.2, fd98::2) ── far (10.97.0.2, fd97::2)

The cable behind the router takes 1300 bytes only. Each box is a network namespace.
"""

from __future__ import annotations

import re
import socket
import threading
from ipaddress import ip_address

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import Relay

PREFIX = "fd76:6d72:656c:6179:"
GATEWAY4, GATEWAY6, LINK_LOCAL = "10.0.2.2", f"{PREFIX}:2", "fe80::5054:ff:fe12:3456"
ROUTER4, ROUTER6 = "10.98.0.2", "fd98::2"
FAR4, FAR6 = "10.97.0.2", "fd97::2"
HOST_ADDRESSES = ("10.98.0.1", "fd98::1")
NARROW = 1300
ECHO_PORT = 7000
SETTLED = "while ip -6 address show tentative | grep -q .; do :; done"


@pytest.fixture(scope="module")
def boxes():
    relay, router, far = boxes = [Namespace(role) for role in ("relay6", "router", "far")]
    connect(relay, "10.98.0.1/24", router, f"{ROUTER4}/24")
    connect(router, "10.97.0.1/24", far, f"{FAR4}/24")
    for box, at, address in (
        (relay, "10.98.", "fd98::1"),
        (router, "10.98.", ROUTER6),
        (router, "10.97.", "fd97::1"),
        (far, "10.97.", FAR6),
    ):
        box.run("ip", "address", "add", f"{address}/64", "dev", device_of(box, at), "nodad")
    for box in (router, far):
        box.run("ip", "link", "set", "mtu", NARROW, "dev", device_of(box, "10.97."))
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    relay.run("ip", "route", "add", "default", "via", ROUTER4)
    relay.run("ip", "-6", "route", "add", "default", "via", ROUTER6)
    far.run("ip", "route", "add", "default", "via", "10.97.0.1")
    far.run("ip", "-6", "route", "add", "default", "via", "fd97::1")
    relay.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    yield boxes
    for box in boxes:
        box.delete()


def device_of(box, address):
    for line in box.run("ip", "-o", "-4", "address", "show").stdout.splitlines():
        if f" {address}" in line:
            return line.split()[1]
    raise AssertionError(address)


@pytest.fixture(scope="module")
def relay(boxes):
    allowed = "10.97.0.0/24,10.98.0.2/32,fd97::/64,fd98::2/128"
    relay = Relay("--allow-cidr", allowed, before=boxes[0].prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture(scope="module")
def guest(relay, boxes):
    guest = KernelGuest("six", relay, boxes[0], "--mtu", "1500", "--name", "six")
    # A default route says that an advertisement came, and no tentative address that all are in use.
    routed = "until ip -6 route show default | grep -q ra; do :; done"
    guest.run("sh", "-c", f"{routed}; {SETTLED}")
    yield guest
    guest.leave()


@pytest.fixture(scope="module")
def far(boxes):
    """A namespace with UDP and TCP echo servers on ECHO_PORT, in both versions."""
    box = boxes[2]
    sockets = []
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            server = box.socket(kind, family=family)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((any_address, ECHO_PORT))
            server.settimeout(None)
            if kind == socket.SOCK_STREAM:
                server.listen()
            sockets.append(server)
            threading.Thread(target=echo, args=(server, kind), daemon=True).start()
    yield box
    for server in sockets:
        server.close()


def echo(server, kind):
    while True:
        try:
            if kind == socket.SOCK_DGRAM:
                data, peer = server.recvfrom(65536)
                if not data:
                    return
                server.sendto(data, peer)
            else:
                connection, _ = server.accept()
                with connection:
                    while data := connection.recv(65536):
                        connection.sendall(data)
        except OSError:
            return


def test_the_kernel_takes_an_address_and_a_route_from_the_advertisement(guest):
    addresses = guest.namespace.addresses(guest.device)
    assert any(address.startswith(f"{PREFIX}") for address in addresses), addresses
    route = guest.run("ip", "-6", "route", "show", "default").stdout
    assert f"via {LINK_LOCAL}" in route


def test_names_lead_to_ipv6_addresses_and_back(relay, guest, boxes):
    def asks(*question):
        by_ipv6 = other.run("dig", f"@{GATEWAY6}", "+short", *question).stdout.split()
        assert other.run("dig", f"@{GATEWAY4}", "+short", *question).stdout.split() == by_ipv6
        return by_ipv6

    other = KernelGuest("asks", relay, boxes[0])
    other.run("sh", "-c", f"until ip -6 route show default | grep -q ra; do :; done; {SETTLED}")
    addresses = [address.partition("/")[0] for address in guest.namespace.addresses(guest.device)]
    (address,) = (address for address in addresses if address.startswith(PREFIX))
    assert asks("six.vm.internal", "AAAA") == [address]
    assert asks("-x", address) == ["six.vm.internal."]
    assert asks("gateway.vm.internal", "AAAA") == [GATEWAY6]
    assert asks("-x", GATEWAY6) == ["gateway.vm.internal."]
    assert other.ping(address)[0] == 5
    by_hand = f"{PREFIX}:1234"
    guest.run("ip", "address", "add", f"{by_hand}/64", "dev", guest.device, "nodad")
    assert guest.ping(GATEWAY6, "-I", by_hand)[0] == 5
    assert asks("six.vm.internal", "AAAA") == [address, by_hand]
    assert asks("-x", by_hand) == ["six.vm.internal."]
    guest.run("ip", "address", "del", f"{by_hand}/64", "dev", guest.device)
    other.leave()


@pytest.mark.parametrize("address", [GATEWAY6, f"{LINK_LOCAL}%tap0"])
@pytest.mark.parametrize("size", [56, 3000])
def test_ping_the_gateway(guest, address, size):
    assert guest.ping(address, "-6", "-s", size)[0] == 5


@pytest.mark.parametrize("size", [16, 56, 1000, 3000])
def test_ping_a_host_outside(guest, far, size):
    replies, output = guest.ping(FAR6, "-6", "-s", size, errors_end_it=False)
    assert replies >= 4  # the first may be lost to the discovery of the narrow path
    assert "wrong data" not in output


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, FAR4), (socket.AF_INET6, FAR6)])
@pytest.mark.parametrize("size", [1, 1200, 1400, 4000, 20_000])
def test_datagrams_of_any_size_come_back(guest, far, family, address, size):
    data = bytes(n % 251 for n in range(size))
    with guest.namespace.socket(family=family) as client:
        client.settimeout(1)
        # The first may be lost to the discovery of the narrow path.
        for _ in range(10):
            client.sendto(data, (address, ECHO_PORT))
            try:
                assert client.recv(65536) == data
            except TimeoutError:
                continue
            return
    raise AssertionError("no answer")


def test_tcp_over_ipv6(guest, far):
    data = bytes(n % 251 for n in range(300_000))
    with guest.namespace.socket(socket.SOCK_STREAM, family=socket.AF_INET6) as client:
        client.connect((FAR6, ECHO_PORT))
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            piece = client.recv(65536)
            assert piece
            received += piece
        sender.join()
    assert received == data


@pytest.mark.parametrize("how", [[], ["-I"]], ids=["udp", "icmp"])
@pytest.mark.parametrize(
    ("version", "hops"),
    [("-4", [GATEWAY4, ROUTER4, FAR4]), ("-6", [GATEWAY6, ROUTER6, FAR6])],
    ids=["IPv4", "IPv6"],
)
def test_traceroute(guest, far, version, hops, how):
    with watched(guest) as seen:
        output = guest.run("traceroute", "-n", "-w", 3, "-q", 1, *how, version, hops[-1]).stdout
        found = re.findall(r"^ *\d+ +(\S+)", output, re.MULTILINE)
        assert found == hops, output
    for address in HOST_ADDRESSES:
        assert ip_address(address).packed not in seen[0]


class watched:  # noqa: N801 - reads as a word
    """What reached the guest meanwhile, all frames joined."""

    def __init__(self, guest):
        self._socket = guest.namespace.socket(socket.SOCK_RAW, socket.htons(3), family=socket.AF_PACKET)
        self._seen = []

    def __enter__(self):
        self._socket.bind(("tap0", 0))
        return self._seen

    def __exit__(self, *_):
        self._socket.setblocking(False)
        frames = []
        with self._socket:
            try:
                while True:
                    frame, address = self._socket.recvfrom(65536)
                    if address[2] != socket.PACKET_OUTGOING:
                        frames.append(frame)
            except BlockingIOError:
                pass
        assert frames
        self._seen.append(b"|".join(frames))


@pytest.mark.parametrize(("version", "address"), [("-4", FAR4), ("-6", FAR6)])
def test_a_narrow_path_is_told(guest, far, version, address):
    guest.ping(address, version, "-M", "do", "-s", 1400, count=3)
    assert f"mtu {NARROW}" in guest.run("ip", "route", "get", address).stdout
    assert guest.ping(address, version, "-M", "do", "-s", 1200)[0] == 5


def test_a_closed_port_and_a_refused_address_are_told(guest, far):
    with guest.namespace.socket(family=socket.AF_INET6) as client:
        client.connect((FAR6, 9))
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(9)
    replies, output = guest.ping("fd99::1", "-6", count=1)
    assert replies == 0
    assert re.search(rf"From {GATEWAY6} .*administratively prohibited", output, re.IGNORECASE), output


@pytest.fixture
def liar(relay, boxes):
    guest = KernelGuest("liar", relay, boxes[0])
    yield guest
    guest.leave()


def test_nothing_but_the_gateway_is_a_router(relay, guest, liar):
    liar.run(
        "sh",
        "-c",
        "sysctl -qw net.ipv6.conf.all.forwarding=1; ip -6 address add fd66::1/64 dev tap0 nodad; " + SETTLED,
    )
    before = relay.counters()["switch.drop.rogue_router"]
    advertisement = bytes.fromhex("860000004000070800000000000000000304c000ffffffff") + bytes(8)
    advertisement += socket.inet_pton(socket.AF_INET6, "fd66::")[:8]
    with liar.namespace.socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6, family=socket.AF_INET6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = int(liar.run("cat", "/sys/class/net/tap0/ifindex").stdout)
        sender.sendto(advertisement, ("ff02::1", 0, 0, index))
    assert liar.ping(f"{LINK_LOCAL}%tap0", "-6")[0] == 5  # by then the advertisement has been judged
    assert guest.ping(GATEWAY6, "-6")[0] == 5
    assert relay.counters()["switch.drop.rogue_router"] > before
    assert "fd66:" not in guest.run("ip", "-6", "route").stdout

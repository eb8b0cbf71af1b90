from __future__ import annotations

import contextlib
import errno
import select
import socket

import pytest
from host_parts import has_addresses, in_namespace, sysctl

from transport.binding import PORT_ATTEMPTS, bound_sockets, is_address, unmapped

KINDS = [socket.SOCK_DGRAM, socket.SOCK_STREAM]


def bound(kind, host, port=0):
    seen = []
    (opened,) = bound_sockets(
        kind, host, port, lambda made, address: seen.append((made.getsockname()[1], address))
    )
    ((port_before, address),) = seen
    assert port_before == 0, "options are set before the socket is bound"
    return opened, address


def takes(opened, family, host):
    """Whether a client of this family reaches the socket."""
    with socket.socket(family, opened.type) as client:
        client.settimeout(5)
        if opened.type == socket.SOCK_STREAM:
            opened.listen()
            return client.connect_ex((host, opened.getsockname()[1])) == 0
        client.connect((host, opened.getsockname()[1]))
        client.send(b"x")
        # Refused, the client has an error to read.
        ready, _, _ = select.select([opened, client], [], [], 5)
        return ready == [opened]


@pytest.mark.parametrize("kind", KINDS)
def test_every_address_is_of_both_ip_versions(kind):
    opened, address = bound(kind, "::")
    with opened:
        assert address == "::"
        assert not opened.getblocking()
        assert takes(opened, socket.AF_INET, "127.0.0.1")
        assert takes(opened, socket.AF_INET6, "::1")


@pytest.mark.parametrize("kind", KINDS)
def test_every_address_is_of_both_ip_versions_whatever_the_systems_habit(kind):
    async def main():
        sysctl("../ipv6/bindv6only", "1")
        opened, _ = bound(kind, "::")
        with opened:
            assert takes(opened, socket.AF_INET, "127.0.0.1")

    in_namespace(main)


@pytest.mark.parametrize("kind", KINDS)
def test_every_ipv4_address_is_ipv4_alone(kind):
    opened, address = bound(kind, "0.0.0.0")
    with opened:
        assert (opened.family, address) == (socket.AF_INET, "0.0.0.0")
        assert takes(opened, socket.AF_INET, "127.0.0.1")
        assert not takes(opened, socket.AF_INET6, "::1")


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_device_has_ipv6_every_address_is_taken_all_the_same(kind):
    async def main():
        sysctl("../ipv6/conf/all/disable_ipv6", "1")
        opened, _ = bound(kind, "::")
        with opened:
            assert takes(opened, socket.AF_INET, "127.0.0.1")

    in_namespace(main)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["made", "bound"])
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_system_without_ipv6_is_served_by_ipv4(monkeypatch, kind, when, number):
    class NoIpv6(socket.socket):
        def __init__(self, family=-1, *arguments, **options):
            if family == socket.AF_INET6 and when == "made":
                raise OSError(number, "no IPv6 here")
            super().__init__(family, *arguments, **options)

        def bind(self, address):
            if self.family == socket.AF_INET6:
                raise OSError(number, "no IPv6 here")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", NoIpv6)
    (opened,) = bound_sockets(kind, "::", 0, unprepared)
    with opened:
        assert opened.getsockname()[0] == "0.0.0.0"
    with pytest.raises(OSError, match="no IPv6 here"):
        bound_sockets(kind, "::1", 0, unprepared)


def unprepared(_opened, _host):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_all_of_its_addresses_with_one_port(monkeypatch, kind):
    has_addresses(monkeypatch, "relay.example", "::1", "127.0.0.1", "127.0.0.2", "127.0.0.1")
    opened = bound_sockets(kind, "relay.example", 0, unprepared)
    with contextlib.ExitStack() as stack:
        for each in opened:
            stack.enter_context(each)
        assert [each.getsockname()[0] for each in opened] == ["::1", "127.0.0.1", "127.0.0.2"]
        assert len({each.getsockname()[1] for each in opened}) == 1
        for each in opened:
            assert takes(each, each.family, each.getsockname()[0])


@pytest.mark.parametrize("addresses", [("2001:db8::1", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")])
def test_addresses_of_a_name_that_the_system_does_not_have_are_left_out(monkeypatch, addresses):
    has_addresses(monkeypatch, "relay.example", *addresses)
    (opened,) = bound_sockets(socket.SOCK_DGRAM, "relay.example", 0, unprepared)
    with opened:
        assert opened.getsockname()[0] == "127.0.0.1"
    has_addresses(monkeypatch, "relay.example", "2001:db8::1", "192.0.2.1")
    with pytest.raises(OSError, match="address"):
        bound_sockets(socket.SOCK_DGRAM, "relay.example", 0, unprepared)


def test_a_port_that_is_taken_at_one_address_of_a_name_is_taken(monkeypatch):
    """Where the number is the system's choice, another one is tried, and no socket is left behind."""
    has_addresses(monkeypatch, "relay.example", "127.0.0.1", "127.0.0.2")
    taken, _ = bound(socket.SOCK_DGRAM, "127.0.0.2")
    with taken, pytest.raises(OSError, match="in use"):
        bound_sockets(socket.SOCK_DGRAM, "relay.example", taken.getsockname()[1], unprepared)
    made, busy = [], PORT_ATTEMPTS - 1

    class Busy(socket.socket):
        def bind(self, address):
            nonlocal busy
            made.append(self)
            if address[1] and busy:
                busy -= 1
                raise OSError(errno.EADDRINUSE, "in use")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Busy)
    opened = bound_sockets(socket.SOCK_DGRAM, "relay.example", 0, unprepared)
    assert [each for each in made if each.fileno() >= 0] == opened
    for each in opened:
        each.close()
    busy = PORT_ATTEMPTS
    with pytest.raises(OSError, match="in use"):
        bound_sockets(socket.SOCK_DGRAM, "relay.example", 0, unprepared)
    assert [each for each in made if each.fileno() >= 0] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("holder", ["::", "0.0.0.0", "127.0.0.1"])
def test_a_port_that_is_taken_in_either_ip_version_is_taken(kind, holder):
    taken, _ = bound(kind, holder)
    if kind == socket.SOCK_STREAM:
        taken.listen()
    with taken, pytest.raises(OSError, match="in use"):
        bound(kind, "::", taken.getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_ipv4_address_within_an_ipv6_one_is_that_address(kind):
    opened, address = bound(kind, "::ffff:127.0.0.1")
    with opened:
        assert (opened.family, address) == (socket.AF_INET, "127.0.0.1")


def test_a_failure_leaves_no_socket_behind():
    with pytest.raises(OSError, match="enough"):
        bound_sockets(socket.SOCK_DGRAM, "127.0.0.1", 0, failing)


def failing(_opened, _host):
    raise OSError("enough")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::ffff:0:1234:5678", "::ffff:0:1234:5678"),  # RFC 2765's, which is another range
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
        ("localhost", "localhost"),
    ],
)
def test_mapped_addresses_are_told_from_others(host, expected):
    assert unmapped(host) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1", True), ("2001:db8::1", True), ("[::1]", False), ("localhost", False), ("1.2.3", False)],
)
def test_addresses_are_told_from_names(text, expected):
    assert is_address(text) is expected

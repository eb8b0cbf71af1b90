import contextlib
import socket
import sys
import threading
from itertools import pairwise

import pytest

from transport.host import recvmmsg
from transport.host.recvmmsg import DATAGRAMS, address_of, ancillary_of, reader_of_thread
from transport.packet_info import tell_local_addresses
from transport.quic.udp import UDP_GRO, send_run

pytestmark = pytest.mark.skipif(not recvmmsg.is_available, reason="the system has no such call")

IP_RECVTTL = 12
"""Linux; missing in the socket module of Python 3.11."""


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request):
    """A socket that does not block, and one that is connected to it."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
        reader, writer = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        reader.setblocking(False)
        reader.bind((request.param, 0))
        writer.connect(reader.getsockname())
        yield reader, writer


def read(opened):
    reader = reader_of_thread()
    filled = reader.read(opened.fileno())
    return [(bytes(reader.view[start:end]), address_of(name)) for start, end, name, _ in filled]


def test_what_waits_comes_in_order_with_its_sender(pair):
    reader, writer = pair
    for payload in (b"one", b"", b"three"):
        writer.send(payload)
    assert read(reader) == [(payload, writer.getsockname()[:2]) for payload in (b"one", b"", b"three")]


def test_a_call_brings_so_many_and_leaves_the_rest(pair):
    reader, writer = pair
    for number in range(DATAGRAMS + 5):
        writer.send(bytes((number,)))
    first, second = read(reader), read(reader)
    assert [payload[0] for payload, _ in first + second] == list(range(DATAGRAMS + 5))
    assert (len(first), len(second)) == (DATAGRAMS, 5)


def test_a_socket_at_which_nothing_waits_does_not_block(pair):
    assert read(pair[0]) == []


def test_a_socket_that_is_closed_raises(pair):
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(pair[0])


def test_a_socket_that_blocks_is_not_waited_for(pair):
    pair[0].setblocking(True)
    assert read(pair[0]) == []


def test_the_largest_datagrams_and_runs_are_whole(pair):
    reader, writer = pair
    reader.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    largest = [
        bytes((number,)) * (65_507 if reader.family == socket.AF_INET else 65_527) for number in (1, 2)
    ]
    for payload in largest:
        writer.send(payload)
    send_run(writer, [b"r" * 1000] * 60, None)
    assert [payload for payload, _ in read(reader)] == [*largest, b"r" * 60_000]


def test_an_icmp_error_is_raised_and_what_arrived_is_not_lost(pair):
    reader, writer = pair
    address = writer.getsockname()
    reader.connect(address)
    writer.send(b"before")
    writer.close()
    with contextlib.suppress(ConnectionRefusedError):
        reader.send(b"to nobody")
    with pytest.raises(ConnectionRefusedError):
        read(reader)
    assert read(reader) == [(b"before", address[:2])]


def test_ancillary_data_are_those_of_recvmsg(pair):
    reader, writer = pair
    tell_local_addresses(reader)
    if reader.family == socket.AF_INET:
        reader.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    else:
        reader.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    reader.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    for _ in range(2):
        send_run(writer, [b"r" * 100] * 3, None)
    expected = reader.recvmsg(65535, 1000)[1]
    assert len(expected) == 3
    [filled] = reader_of_thread().read(reader.fileno())
    assert list(ancillary_of(filled.control)) == expected


def test_a_datagram_without_ancillary_data_has_none_of_an_earlier_one(pair):
    reader, writer = pair
    reader.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    send_run(writer, [b"r" * 100] * 3, None)
    writer.send(b"x")
    with_some, without = reader_of_thread().read(reader.fileno())
    assert (len(ancillary_of(with_some.control)), ancillary_of(without.control)) == (1, ())
    writer.send(b"y")
    [after] = reader_of_thread().read(reader.fileno())
    assert after.control == b""


def test_a_name_has_no_rest_of_a_longer_one(pair):
    reader, writer = pair
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.bind(("::1", 0))
        other.sendto(b"x", other.getsockname())
        reader_of_thread().read(other.fileno())
    for _ in range(2):
        writer.send(b"x")
    one, two = reader_of_thread().read(reader.fileno())
    assert one.name == two.name
    assert one.name[28:] == bytes(4)
    if reader.family == socket.AF_INET:
        assert one.name[16:] == bytes(16)


def test_a_link_local_sender_is_named_as_recvmsg_does():
    name = socket.AF_INET6.to_bytes(2, sys.byteorder) + b"\x01\x02\0\0\0\x09"
    name += socket.inet_pton(socket.AF_INET6, "fe80::7") + (3).to_bytes(4, sys.byteorder) + bytes(4)
    assert address_of(name) == ("fe80::7", 0x102)


def test_broken_ancillary_data_end_where_they_break():
    header = b"".join(value.to_bytes(size, sys.byteorder) for value, size in ((20, 8), (17, 4), (104, 4)))
    assert ancillary_of(header + b"\x05\0\0\0" + bytes(4) + bytes(16)) == ((17, 104, b"\x05\0\0\0"),)


def test_threads_have_buffers_of_their_own():
    found = []
    threads = [threading.Thread(target=lambda: found.append(reader_of_thread())) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    found += [reader_of_thread(), reader_of_thread()]
    assert [one is other for one, other in pairwise(found)] == [False, False, True]

"""TCP flows between a guest and recorder sockets: what is dialled, and what each side learns of the other."""

from __future__ import annotations

import errno

import pytest
from lan_parts import GATEWAY_MAC, Box
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from tcp_parts import GUEST_MAC, SERVER, Lan
from test_upload_limit import RATE, tcp

from actors.flows.tcp_flow import CONNECT_TIMEOUT
from actors.line import LINE_BYTES
from actors.messages import (
    AssignAddress,
    ConnectionFailed,
    ConnectionMade,
    FramesToGateway,
    PortClosed,
    SocketReadable,
    SocketWritable,
)
from actors.ports import SendResult
from actors.runtime import run_ready
from actors.upload import Upload
from actors.upload_limit import UploadLimit
from netstack.tcp_receiver import MAX_PIECES


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def test_the_guest_is_answered_when_the_host_has_connected(lan):
    socket = lan.syn()
    assert socket.address == (SERVER, 80)
    assert lan.received() == []
    socket.tell(ConnectionMade())
    answer = lan.one()
    assert answer[IP].src == SERVER
    assert answer[TCP].flags == "SA"
    assert answer[TCP].ack == 101
    # What the link takes, less the IP and TCP headers: no frame has to travel in chunks.
    assert dict(answer[TCP].options)["MSS"] == 1100


@pytest.mark.parametrize(
    ("result", "icmp"),
    [
        (SendResult.UNREACHABLE, (3, 1)),
        (SendResult.NO_ROUTE, (3, 0)),
        (SendResult.DENIED, (3, 13)),
    ],
)
def test_what_cannot_be_reached_is_an_icmp_error(lan, result, icmp):
    lan.syn().tell(ConnectionFailed(result))
    error = lan.one()
    assert (error[ICMP].type, error[ICMP].code) == icmp
    quoted = error[ICMP].payload
    assert (quoted.dst, quoted.dport) == (SERVER, 80)
    assert lan.outside.tcp[0].closed


def test_what_fails_at_once_is_reported_too(lan):
    lan.outside.fails_at_once = SendResult.DENIED
    lan.syn()
    assert (lan.one()[ICMP].type, lan.counters["tcp.failed.denied"]) == (3, 1)


def test_a_refused_port_is_a_reset(lan):
    lan.syn().tell(ConnectionFailed(SendResult.REFUSED))
    reset = lan.one()[TCP]
    assert (reset.flags, reset.ack, reset.sport) == ("RA", 101, 80)


def test_a_time_out_is_silence(lan):
    lan.syn().tell(ConnectionFailed(SendResult.DROPPED))
    assert lan.received() == []


def test_a_host_that_does_not_answer_is_given_up(lan):
    socket = lan.syn()
    lan.loop.advance(CONNECT_TIMEOUT + 1)
    assert socket.closed == "abort"
    assert lan.received() == []
    assert lan.counters["tcp.connect_timeouts"] == 1


def test_a_repeated_syn_dials_once(lan):
    lan.syn()
    lan.syn()
    assert len(lan.outside.tcp) == 1


def test_the_guest_gives_up_while_the_host_connects(lan):
    socket = lan.syn()
    lan.send(flags="R", seq=101)
    assert socket.closed == "abort"


def test_no_socket_is_an_icmp_error(lan):
    lan.outside.error = OSError(errno.EMFILE, "too many")
    lan.send(flags="S", seq=1)
    assert (lan.one()[ICMP].type, lan.counters["gateway.drop.no_socket"]) == (3, 1)


@pytest.mark.parametrize("seconds", [300.0, 0.0])
def test_the_host_is_probed_as_the_setting_says(loop, counters, seconds):
    lan = Lan(loop, counters, tcp_keep_alive=seconds)
    assert lan.connect().kept_alive == seconds


def test_data_both_ways(lan):
    socket = lan.connect()
    lan.ack(payload=b"GET / HTTP/1.0\r\n\r\n")
    assert socket.written == b"GET / HTTP/1.0\r\n\r\n"
    assert lan.one()[TCP].ack == 101 + len(socket.written)
    socket.to_read.append(b"x" * 2500)
    socket.tell(SocketReadable())
    sizes = [len(packet[TCP].payload) for packet in lan.received()]
    assert sizes == [1100, 1100, 300]


def test_the_host_is_read_only_as_far_as_the_guest_takes(lan):
    socket = lan.connect()
    lan.ack(window=1000)
    socket.to_read.append(bytes(100_000))
    socket.tell(SocketReadable())
    assert sum(len(packet[TCP].payload) for packet in lan.received()) == 1000
    left = sum(map(len, socket.to_read))
    assert left >= 100_000 - 2 * 1100
    lan.ack(1000, window=1000)
    assert sum(len(packet[TCP].payload) for packet in lan.received()) == 1000


def test_the_host_is_read_only_as_far_as_the_line_takes(lan):
    socket = lan.connect()
    lan.session.queued_bytes = LINE_BYTES
    socket.to_read.append(bytes(100_000))
    socket.tell(SocketReadable())
    assert lan.received() == []
    lan.loop.run()
    lan.session.leave(LINE_BYTES)
    run_ready()
    # Whole segments, as many as fit the 8192 bytes of scapy's window.
    assert sum(len(packet[TCP].payload) for packet in lan.received()) == 7 * 1100


def test_what_the_host_does_not_take_is_not_acknowledged(lan):
    socket = lan.connect()
    socket.room = 4
    lan.ack(payload=b"abcdefgh")
    assert (socket.written, socket.waiting) == (b"abcd", True)
    assert lan.one()[TCP].ack == 105
    socket.room = 100_000
    socket.tell(SocketWritable())
    assert socket.written == b"abcdefgh"
    assert lan.received()[-1][TCP].ack == 109


def test_the_guest_ends_its_direction(lan):
    socket = lan.connect()
    lan.ack(flags="FA", payload=b"last")
    assert socket.was_shut_down
    assert socket.closed is None
    assert lan.one()[TCP].ack == 106
    socket.to_read += [b"answer", b""]
    socket.tell(SocketReadable())
    packets = lan.received()
    assert bytes(packets[0][TCP].payload) == b"answer"
    assert packets[-1][TCP].flags.F
    lan.ack(7, seq=106)
    assert socket.closed == "close"
    assert lan.counters["gateway.flows_closed"] == 1


def test_the_host_ends_its_direction(lan):
    socket = lan.connect()
    socket.to_read.append(b"")
    socket.tell(SocketReadable())
    assert lan.one()[TCP].flags.F
    lan.ack(1, payload=b"more")
    assert socket.written == b"more"
    lan.received()
    lan.ack(1, flags="FA", seq=105)
    assert socket.was_shut_down
    assert lan.one()[TCP].ack == 106
    lan.loop.advance(11)
    assert lan.counters["gateway.flows_closed"] == 1


def test_a_new_connection_may_follow_in_time_wait(lan):
    socket = lan.connect()
    socket.to_read.append(b"")
    socket.tell(SocketReadable())
    lan.ack(1, flags="FA")
    lan.received()
    lan.send(flags="S", seq=90_000)
    assert socket.closed == "close"
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert lan.received()[-1][TCP].ack == 90_001


def test_a_reset_by_the_guest_resets_the_host(lan):
    socket = lan.connect()
    lan.send(flags="R", seq=101)
    assert socket.closed == "abort"


def test_a_reset_by_the_host_resets_the_guest(lan):
    socket = lan.connect()
    socket.error = ConnectionResetError()
    socket.tell(SocketReadable())
    assert lan.one()[TCP].flags == "RA"
    assert socket.closed == "abort"


def test_a_guest_that_leaves_resets_the_host(lan):
    socket = lan.connect()
    lan.gateway.tell(PortClosed(1))
    run_ready()
    assert socket.closed == "abort"


def test_idle_connections_live_for_two_hours_and_no_longer(lan):
    socket = lan.connect()
    lan.loop.advance(7439)
    assert socket.closed is None
    lan.loop.advance(2)
    assert socket.closed == "abort"
    assert lan.one()[TCP].flags == "RA"


def test_half_closed_connections_live_for_four_minutes(lan):
    socket = lan.connect()
    lan.ack(flags="FA")
    lan.loop.advance(239)
    assert socket.closed is None
    lan.loop.advance(2)
    assert socket.closed == "abort"


def test_tables_return_to_zero(lan):
    for port in range(20):
        lan.connect(sport=41000 + port)
        lan.send(flags="R", seq=101, sport=41000 + port)
    assert lan.counters["gateway.flows_opened"] == lan.counters["gateway.flows_closed"] == 20
    assert {socket.closed for socket in lan.outside.tcp} == {"abort"}


@pytest.mark.parametrize("destination", [SERVER, "2001:db8::80"], ids=["IPv4", "IPv6"])
def test_what_the_path_has_lost_goes_again_at_once(lan, destination):
    socket = lan.connect(destination=destination)
    socket.to_read.append(bytes(5000))
    socket.tell(SocketReadable())
    sent = lan.received()
    now = lan.loop.time()
    lan.line.lost([(bytes(packet), now) for packet in (sent[1], sent[3])])
    run_ready()
    assert [packet[TCP].seq for packet in lan.received()] == [sent[1][TCP].seq, sent[3][TCP].seq]
    assert lan.counters["tcp.lost_on_path"] == 2
    lan.line.lost([(bytes(packet), now - 1) for packet in sent])
    lan.line.lost([(bytes(60), now), (b"", now), (bytes(sent[0])[:50], now)])
    run_ready()
    assert lan.received() == [], "these have left again since, or are none of the relay's segments"
    lan.send(flags="R", seq=101, destination=destination)
    lan.line.lost([(bytes(sent[0]), now)])
    run_ready()
    assert lan.received() == []
    assert lan.line._flows == {}, "the line forgets a flow that has ended"


def too_big(lan, packet, mtu, moved=0):
    """Have the guest say that a segment is too big, or one that begins so many bytes later."""
    layer = IPv6 if IPv6 in packet else IP
    quoted = packet[layer].copy()
    quoted[TCP].seq += moved
    if layer is IPv6:
        error = IPv6(src=lan.ip6, dst=quoted.src) / ICMPv6PacketTooBig(mtu=mtu) / Raw(bytes(quoted)[:1232])
    else:
        error = (
            IP(src=lan.ip, dst=quoted.src) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(quoted)[:28])
        )
    lan.gateway.tell(FramesToGateway(1, [bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / error)]))
    run_ready()
    return lan.received()


def test_what_a_guest_opened_itself_it_does_not_refuse_by_icmp(lan):
    socket = lan.connect()
    socket.to_read.append(bytes(100))
    socket.tell(SocketReadable())
    error = IP(src=lan.ip, dst=SERVER) / ICMP(type=3, code=3) / Raw(bytes(lan.one()[IP]))
    lan.gateway.tell(FramesToGateway(1, [bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / error)]))
    run_ready()
    assert lan.counters["gateway.drop.icmp_type"] == 1
    lan.ack(100, payload=b"on we go")
    assert socket.written == b"on we go"


def payloads(packets):
    return [bytes(packet[TCP].payload) for packet in packets]


@pytest.mark.parametrize(
    ("destination", "told", "taken"),
    [
        (SERVER, 1000, 1000),
        (SERVER, 100, 576),
        (SERVER, 0, 576),
        ("2001:db8::80", 1300, 1300),
        ("2001:db8::80", 1000, 1280),
    ],
)
def test_what_is_too_big_behind_the_guest_goes_again_at_once_in_smaller_segments(
    lan, destination, told, taken
):
    lan.gateway.tell(AssignAddress(1, GUEST_MAC, Box(), link_mtu=lambda: 1400, line=lan.line))
    socket = lan.connect(destination=destination)
    headers = 60 if ":" in destination else 40
    data = bytes(n % 251 for n in range(3 * (1400 - headers)))
    socket.to_read.append(data)
    socket.tell(SocketReadable())
    sent = lan.received()
    assert b"".join(payloads(sent)) == data
    again = too_big(lan, sent[0], told)
    assert b"".join(payloads(again)) == data
    assert max(map(len, payloads(again))) == taken - headers
    lan.ack(len(data), destination=destination)
    socket.to_read.append(data)
    socket.tell(SocketReadable())
    assert max(map(len, payloads(lan.received()))) == taken - headers
    assert lan.counters["tcp.path_narrowed"] == 1


def test_a_guest_is_believed_about_what_is_on_its_way_and_only_that_less_passes(lan):
    socket = lan.connect()
    socket.to_read.append(bytes(2200))
    socket.tell(SocketReadable())
    first, second = lan.received()
    assert too_big(lan, first, 1000, moved=-1) == too_big(lan, second, 1000, moved=1100) == []
    assert too_big(lan, first, 1140) == too_big(lan, first, 1500) == []
    assert list(map(len, payloads(too_big(lan, second, 1000)))) == [960, 140] * 2
    assert too_big(lan, first, 1100) == []
    lan.ack(2200)
    assert too_big(lan, second, 700) == []
    socket.to_read.append(bytes(1100))
    socket.tell(SocketReadable())
    assert list(map(len, payloads(lan.received()))) == [960, 140]
    assert lan.counters["tcp.path_narrowed"] == 1


def test_segments_beyond_gaps_for_which_there_is_no_room_are_counted_once_each(lan):
    socket = lan.connect()
    for number in range(MAX_PIECES + 3):
        lan.ack(payload=b"x", seq=200 + 10 * number, flags="PA")
    assert (socket.written, lan.counters["tcp.drop.out_of_order"]) == (b"", 3)
    lan.ack(payload=b"x" * 99, flags="PA")
    assert (socket.written, lan.counters["tcp.drop.out_of_order"]) == (b"x" * 100, 3)


# -- rates ------------------------------------------------------------------------------------------


def test_what_a_guest_with_a_limited_rate_sends_is_taken_at_the_rate_and_to_its_end(loop, lan):
    size, count = 1000, 20
    limit = UploadLimit(8 * RATE // 10, 0, loop.time())
    upload = lan.line.upload = Upload(limit)
    socket = lan.connect()
    assert lan.answer.window == size * count, "as much as the rate moves in a moment"
    limit.take([tcp(size)] * 100, loop.time(), GATEWAY_MAC)  # as the peer's actor lets them pass
    for number in range(count):
        flags = "FPA" if number == count - 1 else "PA"
        lan.ack(payload=bytes(size), seq=101 + number * size, flags=flags)
    assert (socket.written, socket.was_shut_down) == (b"", False)
    begun, seconds = loop.time(), limit.owed(loop.time()) / (RATE // 10)
    while not socket.was_shut_down and loop.time() < begun + 2 * seconds:
        loop.advance(0.05)
        assert len(socket.written) < size * count or socket.was_shut_down
    assert len(socket.written) == size * count
    assert loop.time() - begun == pytest.approx(seconds, rel=0.3)
    upload.admit(lan.gateway, [b"x"])
    assert upload.window(1) == size * count, "no share of it is this flow's any more"
    assert lan.counters["tcp.stalled"] == 0

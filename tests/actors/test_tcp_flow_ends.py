"""What follows the end of a connection: the next one of the same ports, TIME-WAIT, and attempts given up."""

from __future__ import annotations

import pytest
from lan_parts import GATEWAY_MAC, mac
from scapy.layers.inet import ICMP, IP, TCP, TCPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from tcp_parts import GUEST_MAC, SERVER, Lan

from actors.flows.host_drain import DRAIN_PATIENCE, DRAIN_TIMEOUT
from actors.flows.tcp_flow import CONNECT_TIMEOUT, SYN_PATIENCE
from actors.messages import (
    ConnectionFailed,
    ConnectionMade,
    FramesToGateway,
    SettingsChanged,
    SocketReadable,
    SocketWritable,
)
from actors.ports import SendResult
from actors.runtime import run_ready
from actors.settings import LanSettings
from netstack.contests import PROBE_INTERVAL, PROBES
from netstack.tcp_time_wait import MAX_TIME_WAITS, NEW_START, TIME_WAIT

SERVER6 = "2606:4700::80"

DESTINATIONS = pytest.mark.parametrize("to", [SERVER, SERVER6], ids=["IPv4", "IPv6"])


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def send_at_once(lan, to, *segments):
    """Send segments in one batch."""
    header = IPv6(src=lan.ip6, dst=to) if ":" in to else IP(src=lan.ip, dst=to)
    packets = [header / TCP(sport=40000, dport=80, **fields) for fields in segments]
    frames = [bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet) for packet in packets]
    lan.gateway.tell(FramesToGateway(1, frames))
    run_ready()


def finish(lan, **fields):
    """End a connection, the host first: the relay has the last word, and so TIME-WAIT."""
    lan.outside.tcp[-1].to_read.append(b"")
    lan.outside.tcp[-1].tell(SocketReadable())
    lan.ack(1, flags="FA", **fields)
    lan.received()


# -- a SYN behind a RST -------------------------------------------------------------------------------


@DESTINATIONS
@pytest.mark.parametrize("number", [90_000, 100], ids=["another number", "the same number"])
def test_a_syn_right_behind_a_reset_opens_another_connection(lan, to, number):
    first = lan.connect(destination=to)
    send_at_once(lan, to, {"flags": "R", "seq": 101}, {"flags": "S", "seq": number})
    assert first.closed == "abort"
    assert len(lan.outside.tcp) == 2
    lan.outside.tcp[-1].tell(ConnectionMade())
    answer = lan.one()[TCP]
    assert (answer.flags, answer.ack) == ("SA", number + 1)


@DESTINATIONS
def test_the_same_while_the_host_connects(lan, to):
    first = lan.syn(destination=to)
    send_at_once(lan, to, {"flags": "R", "seq": 101}, {"flags": "S", "seq": 100})
    assert (first.closed, len(lan.outside.tcp)) == ("abort", 2)
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert lan.one()[TCP].flags == "SA"


def test_attempts_that_are_taken_back_in_the_batch_in_which_they_begin_are_looked_at_once(lan):
    attempts = [{"flags": flags, "seq": number} for number in range(100) for flags in ("S", "R")]
    send_at_once(lan, SERVER, *attempts, {"flags": "S", "seq": 90_000})
    assert lan.counters["gateway.received"] == len(attempts) + 2
    assert [socket.closed for socket in lan.outside.tcp] == ["abort", None]
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert lan.one()[TCP].ack == 90_001


def test_aborting_and_connecting_again_works_every_time(lan):
    lan.connect()
    for number in range(100):
        reset, syn = {"flags": "R", "seq": 101 + 1000 * number}, {"flags": "S", "seq": 1100 + 1000 * number}
        send_at_once(lan, SERVER, reset, syn)
        lan.outside.tcp[-1].tell(ConnectionMade())
        answer = lan.one()[TCP]
        assert (answer.flags, answer.ack) == ("SA", 1101 + 1000 * number)
        lan.send(flags="A", seq=answer.ack, ack=answer.seq + 1)
    assert lan.received() == []
    assert len(lan.outside.tcp) == 101


def test_a_syn_whose_reset_was_lost_is_challenged_and_opens_when_the_guest_confirms(lan):
    first = lan.connect()
    lan.send(flags="S", seq=90_000)
    challenge = lan.one()[TCP]
    assert (challenge.flags, challenge.ack) == ("A", 101)
    assert first.closed is None
    lan.send(flags="R", seq=challenge.ack)
    assert (first.closed, len(lan.outside.tcp)) == ("abort", 2)
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert lan.one()[TCP].ack == 90_001


def test_a_syn_with_another_number_in_syn_received_is_challenged_at_once(lan):
    first = lan.syn()
    first.tell(ConnectionMade())
    lan.received()
    lan.send(flags="S", seq=90_000)
    challenge = lan.one()[TCP]
    assert (challenge.flags, challenge.ack) == ("A", 101)
    lan.send(flags="R", seq=challenge.ack)
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert (first.closed, lan.one()[TCP].ack) == ("abort", 90_001)


def test_a_reset_at_the_number_that_was_acknowledged_counts_while_data_are_held(lan):
    socket = lan.connect()
    socket.room = 0
    lan.ack(payload=b"held")
    lan.send(flags="R", seq=101)
    lan.loop.advance(DRAIN_PATIENCE)  # what is held may still be taken
    assert (socket.closed, socket.written) == ("abort", b"")


def test_a_syn_that_is_repeated_as_the_host_refuses_asks_it_only_once(lan):
    socket = lan.syn()
    socket.flow.tell(ConnectionFailed(SendResult.REFUSED))
    lan.send(flags="S", seq=100)
    assert (lan.one()[TCP].flags, len(lan.outside.tcp)) == ("RA", 1)


# -- TIME-WAIT ----------------------------------------------------------------------------------------


@DESTINATIONS
def test_time_wait_costs_neither_flow_nor_socket(lan, to):
    socket = lan.connect(destination=to)
    finish(lan, destination=to)
    assert socket.closed == "close"
    counters = lan.counters
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == counters["tcp.time_waits"]


@DESTINATIONS
def test_a_fin_whose_acknowledgement_was_lost_is_acknowledged_again(lan, to):
    lan.connect(destination=to)
    finish(lan, destination=to)
    lan.ack(1, flags="FA", destination=to)
    again = lan.one()[TCP]
    assert (again.flags, again.seq, again.ack) == ("A", (lan.answer.seq + 2) % 2**32, 102)
    lan.ack(1, seq=102, destination=to)
    assert lan.received() == []
    lan.loop.advance(TIME_WAIT + 0.1)
    lan.ack(1, flags="FA", destination=to)
    assert lan.one()[TCP].flags == "R"


@DESTINATIONS
def test_a_new_connection_in_time_wait_begins_beyond_the_old_one(lan, to):
    lan.connect(destination=to)
    finish(lan, destination=to)
    lan.send(flags="S", seq=102, destination=to)
    assert lan.received() == []
    lan.outside.tcp[-1].tell(ConnectionMade())
    answer = lan.one()[TCP]
    assert (answer.flags, answer.ack, len(lan.outside.tcp)) == ("SA", 103, 2)
    assert NEW_START <= (answer.seq - lan.answer.seq) % 2**32 < 2**31


def test_an_old_syn_in_time_wait_is_challenged_and_opens_nothing(lan):
    lan.connect()
    finish(lan)
    lan.send(flags="S", seq=100)
    challenge = lan.one()[TCP]
    assert (challenge.flags, challenge.ack, len(lan.outside.tcp)) == ("A", 102, 1)
    lan.send(flags="R", seq=challenge.ack)
    lan.send(flags="S", seq=100)  # the guest confirmed that nothing is left of the old one
    assert len(lan.outside.tcp) == 2


def test_the_socket_is_kept_until_it_has_taken_everything(lan):
    socket = lan.connect()
    socket.room = 0
    socket.to_read.append(b"")
    socket.tell(SocketReadable())
    lan.ack(1, flags="FA", payload=b"the last words")
    lan.loop.advance(2 * TIME_WAIT)
    assert socket.closed is None
    socket.room = 1000
    socket.tell(SocketWritable())
    assert (socket.written, socket.was_shut_down, socket.closed) == (b"the last words", True, "close")


def test_an_address_that_another_guest_has_got_leaves_no_old_connection_in_its_way(lan):
    lan.connect()
    finish(lan)
    syn = IP(src=lan.ip, dst=SERVER) / TCP(sport=40000, dport=80, flags="S", seq=100)
    message = FramesToGateway(1, [bytes(Ether(src=mac(2), dst=GATEWAY_MAC) / syn)])
    lan.gateway.tell(message)
    lan.loop.advance(PROBES * PROBE_INTERVAL)  # the first guest does not answer for it any more
    assert len(lan.outside.tcp) == 1
    lan.gateway.tell(message)
    run_ready()
    assert len(lan.outside.tcp) == 2


@pytest.mark.no_cover
def test_2000_short_connections_in_a_row_stay_far_from_the_limit(loop, counters):
    lan = Lan(loop, counters, max_flows_per_peer=4, new_flows_per_second=10_000)
    for number in range(2000):
        loop.advance(0.001)
        lan.connect(sport=1024 + number)
        finish(lan, sport=1024 + number)
    assert {socket.closed for socket in lan.outside.tcp} == {"close"}
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 2000
    assert counters["tcp.time_waits"] == 2000
    assert counters["tcp.time_waits_cut_short"] == 2000 - MAX_TIME_WAITS


# -- openings that are given up -----------------------------------------------------------------------


@DESTINATIONS
def test_an_opening_whose_syn_is_not_repeated_is_given_up_early(lan, to):
    socket = lan.syn(destination=to)
    lan.loop.advance(SYN_PATIENCE - 0.1)
    assert socket.closed is None
    lan.loop.advance(0.2)
    assert socket.closed == "abort"
    assert lan.counters["tcp.connect_timeouts"] == 1


@pytest.mark.parametrize(
    "times",
    [(1, 3, 7, 15, 31), (3, 9, 21, 45), (1, 2, 3, 4, 5, 7, 11, 19, 35)],
    ids=["RFC 6298", "RFC 2988", "linear first"],
)
def test_one_whose_syn_is_repeated_as_systems_do_is_kept_for_a_minute(lan, times):
    socket = lan.syn()
    passed = 0
    for when in times:
        lan.loop.advance(when - passed)
        passed = when
        lan.syn()
    assert (socket.closed, len(lan.outside.tcp)) == (None, 1)
    lan.loop.advance(CONNECT_TIMEOUT - passed + 0.1)
    assert (socket.closed, len(lan.outside.tcp)) == ("abort", 1)


def test_64_silent_destinations_do_not_stop_others_for_long(lan):
    for port in range(64):
        lan.syn(sport=1000 + port, destination="192.0.2.99")
    lan.send(flags="S", seq=1, sport=3000)
    assert len(lan.outside.tcp) == 64
    lan.loop.advance(SYN_PATIENCE + 0.1)
    assert {socket.closed for socket in lan.outside.tcp} == {"abort"}
    lan.connect(sport=3000)


# -- what is not allowed any more ---------------------------------------------------------------------


def forbid(lan, to):
    """Change the egress policy, as a reload does."""
    lan.outside.denied.add(to)
    lan.gateway.tell(SettingsChanged(LanSettings()))
    run_ready()


@DESTINATIONS
def test_both_ends_of_a_connection_hear_that_it_is_forbidden_now(lan, to):
    socket = lan.connect(destination=to)
    socket.to_read.append(bytes(100))
    socket.tell(SocketReadable())
    last = lan.one()[TCP]
    forbid(lan, to)
    assert socket.closed == "abort"
    reset = lan.one()[TCP]
    assert (reset.flags, reset.seq, reset.dport) == ("RA", last.seq + 100, 40000)
    assert lan.counters["gateway.flows_closed"] == lan.counters["tcp.forbidden"] == 1
    lan.outside.denied.clear()
    lan.connect(destination=to)


@DESTINATIONS
def test_so_does_a_guest_whose_connection_is_not_there_yet(lan, to):
    socket = lan.syn(destination=to)
    forbid(lan, to)
    assert socket.closed == "abort"
    error = lan.one()
    if IPv6 in error:
        assert (error[ICMPv6DestUnreach].code, error[TCPerror].sport) == (1, 40000)
    else:
        assert (error[ICMP].type, error[ICMP].code, error[TCPerror].sport) == (3, 13, 40000)
    assert lan.counters["gateway.flows_closed"] == 1


# -- resets that come behind data ---------------------------------------------------------------------


def answers_early(lan, *answer, to=SERVER):
    """Connect, and let the host answer and fail while the guest still sends."""
    socket = lan.connect(destination=to)
    socket.to_read += answer
    socket.write_error = BrokenPipeError()
    lan.ack(payload=b"x" * 1000, destination=to)
    return socket


@DESTINATIONS
@pytest.mark.parametrize("end", [b"", ConnectionResetError()], ids=["end", "reset"])
def test_the_guest_gets_the_answer_of_a_host_that_resets_before_the_reset(lan, to, end):
    socket = answers_early(lan, b"413 Too Large", end, to=to)
    answer, *others = lan.received()
    assert bytes(answer[TCP].payload) == b"413 Too Large"
    assert (others, socket.closed) == ([], None)
    lan.ack(13, seq=1101, payload=b"y" * 1000, destination=to)  # nobody takes it, and the guest may not know
    resets = [packet[TCP] for packet in lan.received() if packet[TCP].flags.R]
    assert [(reset.seq, reset.ack) for reset in resets] == [((lan.answer.seq + 14) % 2**32, 2101)]
    assert (socket.closed, socket.written) == ("abort", b"")
    assert lan.counters["gateway.flows_closed"] == 1


def test_an_answer_that_is_lost_is_sent_again_before_the_reset(lan):
    answers_early(lan, b"413 Too Large", b"")
    lan.received()
    lan.loop.advance(1.5)
    again = lan.received()
    assert {bytes(packet[TCP].payload) for packet in again} == {b"413 Too Large"}
    assert not any(packet[TCP].flags.R for packet in again)
    lan.ack(13, seq=1101)
    assert lan.one()[TCP].flags.R


def test_a_long_answer_comes_whole_though_the_guest_goes_on_sending(lan):
    answer = bytes(range(250)) * 400
    socket = answers_early(lan, answer, b"")
    received, sent, is_reset = b"", 1000, False
    while not is_reset:
        assert sent < 500_000
        for packet in lan.received():
            is_reset = bool(packet[TCP].flags.R)
            if (packet[TCP].seq - lan.answer.seq - 1) % 2**32 == len(received):
                received += bytes(packet[TCP].payload)
        lan.loop.advance(0.01)  # segments are paced
        lan.ack(len(received), seq=101 + sent, payload=b"y" * 1000)
        sent += 1000
    assert (received == answer, socket.closed) == (True, "abort")
    assert sent > 10_000


def test_a_host_that_ended_and_then_fails_resets_the_guest_behind_its_end(lan):
    socket = lan.connect()
    socket.to_read += [b"answer", b""]
    socket.tell(SocketReadable())
    lan.received()
    socket.write_error = BrokenPipeError()
    lan.ack(payload=b"more")
    assert not any(packet[TCP].flags.R for packet in lan.received())
    lan.ack(7, seq=105)
    assert (lan.one()[TCP].flags.R, socket.closed) == (True, "abort")


@pytest.mark.parametrize("end", [b"", None, ConnectionResetError()], ids=["end", "silence", "reset"])
def test_a_host_that_fails_with_nothing_to_say_resets_the_guest(lan, end):
    socket = answers_early(lan)
    assert not any(packet[TCP].flags.R for packet in lan.received())
    socket.to_read.append(end)
    socket.tell(SocketReadable())
    assert (lan.one()[TCP].flags, socket.closed) == ("RA", "abort")


@DESTINATIONS
def test_what_a_guest_sent_before_its_reset_is_delivered_before_the_hosts(lan, to):
    socket = lan.connect(destination=to)
    socket.room = 6
    lan.ack(payload=b"the answer", destination=to)
    socket.room, socket.unsent = 0, 6
    lan.send(flags="R", seq=111, destination=to)
    assert (socket.written, socket.closed) == (b"the an", None)
    socket.room = 100
    lan.loop.advance(1)
    assert (socket.written, socket.closed) == (b"the answer", None)
    socket.unsent = 0
    lan.loop.advance(1)
    assert socket.closed == "abort"
    assert lan.counters["gateway.flows_closed"] == 1


def test_a_far_end_that_reads_slowly_is_waited_for_but_not_for_ever(lan):
    socket = lan.connect()
    lan.ack(payload=b"the answer")
    socket.unsent = 1000
    lan.send(flags="R", seq=111)
    passed = 0
    while socket.closed is None:
        passed += 1
        socket.unsent -= 1
        lan.loop.advance(1)
    assert passed == DRAIN_TIMEOUT


def test_a_far_end_that_does_not_read_is_reset_soon(lan):
    socket = lan.connect()
    lan.ack(payload=b"the answer")
    socket.unsent = 10
    lan.send(flags="R", seq=111)
    lan.loop.advance(DRAIN_PATIENCE - 0.1)
    assert socket.closed is None
    lan.loop.advance(0.1)
    assert socket.closed == "abort"


def test_a_new_connection_does_not_wait_for_what_the_old_one_left(lan):
    socket = lan.connect()
    lan.ack(payload=b"the answer")
    socket.unsent = 10
    lan.send(flags="R", seq=111)
    lan.send(flags="S", seq=90_000)
    assert (socket.closed, len(lan.outside.tcp)) == ("abort", 2)

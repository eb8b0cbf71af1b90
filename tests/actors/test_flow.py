"""UDP and ping through the NAT, by the requirements of RFC 4787 and RFC 5508."""

from __future__ import annotations

import pykka
import pytest
from flow_parts import SERVER, echo_reply, lan_of_both, lan_of_three, ping, udp, udp6
from gateway_parts import Lan, assert_intact, guest_ip, packet
from lan_parts import GATEWAY_MAC, mac
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from actors.flows.flow import MAX_HEADS, MAX_REMOTES
from actors.flows.udp_flow import UdpFlowActor
from actors.flows.udp_frames import MAX_TEMPLATES
from actors.messages import ErrorFromNet, PortClosed, SettingsChanged
from actors.ports import SendResult
from actors.runtime import run_ready
from actors.settings import LanSettings


@pytest.fixture
def lan(loop, counters):
    return lan_of_three(counters)


@pytest.fixture
def both(loop, counters):
    return lan_of_both(counters)


# -- UDP --------------------------------------------------------------------------------------------


def test_a_question_goes_out_and_the_answer_comes_back(lan):
    assert lan.sends(1, udp(1)) == []
    (socket,) = lan.outside.udp
    assert socket.sent == [(b"question", SERVER)]
    socket.reply(b"answer", SERVER, ttl=50)
    (answer,) = lan.received()
    assert (answer.dst, answer.src) == (mac(1).hex(":"), GATEWAY_MAC.hex(":"))
    assert (answer[IP].src, answer[IP].dst, answer[IP].ttl) == ("192.0.2.1", "10.0.2.10", 49)
    assert (answer[UDP].sport, answer[UDP].dport, bytes(answer[UDP].payload)) == (7000, 4000, b"answer")
    assert_intact(answer)


def test_rfc4787_req1_one_socket_for_all_destinations_of_a_guest_port(lan):
    lan.sends(1, udp(1), udp(1, dst="192.0.2.2"), udp(1, dport=5353), udp(1, dst="198.51.100.1", dport=9))
    assert len(lan.outside.udp) == 1
    assert len(lan.outside.udp[0].sent) == 4


def test_rfc4787_req3_no_two_guests_or_ports_share_a_socket(lan):
    lan.sends(1, udp(1), udp(1, sport=4001))
    lan.sends(2, udp(2))
    assert len(lan.outside.udp) == 3


def test_rfc4787_req5_and_6_only_what_the_guest_sends_keeps_a_mapping(loop, lan):
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    for _ in range(3):
        loop.advance(299)
        lan.sends(1, udp(1))
    assert socket.open
    for _ in range(10):
        loop.advance(30.1)
        if socket.open:
            socket.reply(b"unasked", SERVER)
    assert not socket.open
    lan.sends(1, udp(1))
    assert len(lan.outside.udp) == 2
    assert lan.outside.udp[1].open


def test_a_mapping_ends_by_a_shorter_timeout_once_it_was_used_since(loop, lan):
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    loop.advance(100)
    lan.tell(SettingsChanged(LanSettings(ipv6_prefix=None, udp_idle_timeout=100.0)))
    lan.sends(1, udp(1))
    loop.advance(99)
    assert socket.open
    loop.advance(1)
    assert not socket.open


def test_rfc4787_req5a_a_mapping_for_name_servers_only_ends_sooner(loop, lan):
    lan.sends(1, udp(1, 4000, dport=53), udp(1, 4001, dport=53), udp(1, 4002))
    lan.sends(1, udp(1, 4001))
    loop.advance(29)
    assert [socket.open for socket in lan.outside.udp] == [True, True, True]
    loop.advance(1.1)
    assert [socket.open for socket in lan.outside.udp] == [False, True, True]
    lan.sends(1, udp(1, 4001, dport=53))
    loop.advance(299)
    assert [socket.open for socket in lan.outside.udp] == [False, True, False]


NAME_SERVERS = pytest.mark.parametrize(
    ("question", "server"), [(udp, "192.0.2.53"), (udp6, "2606:4700::53")], ids=["IPv4", "IPv6"]
)


@NAME_SERVERS
def test_rfc4787_req5a_an_answered_mapping_for_name_servers_ends_after_ten_seconds(
    loop, both, question, server
):
    both.sends(1, question(1, dst=server, dport=53))
    (socket,) = both.outside.udp
    loop.advance(2)
    socket.reply(b"answer", (server, 53))
    loop.advance(9.9)
    assert socket.open
    loop.advance(0.2)
    assert not socket.open


@NAME_SERVERS
def test_a_mapping_with_a_question_that_waits_is_not_over(loop, both, question, server):
    both.sends(1, question(1, dst=server, dport=53), question(1, dst=server, dport=53))
    (socket,) = both.outside.udp
    socket.reply(b"the first answer", (server, 53))
    socket.reply(b"not from the name server's port", (server, 54))
    loop.advance(29)
    socket.reply(b"the second answer, late", (server, 53))
    assert len(both.received()) == 3
    assert socket.open
    loop.advance(1.1)  # an answer never makes a mapping last (REQ-6)
    assert not socket.open


@NAME_SERVERS
def test_the_next_question_renews_an_answered_mapping(loop, both, question, server):
    for _ in range(5):
        both.sends(1, question(1, dst=server, dport=53))
        both.outside.udp[0].reply(b"answer", (server, 53))
        loop.advance(9)
    assert len(both.outside.udp) == 1
    both.sends(1, question(1, dst=server, dport=53))
    loop.advance(29)  # this one is not answered yet
    assert both.outside.udp[0].open


@NAME_SERVERS
def test_a_mapping_for_more_than_name_servers_lives_its_full_time(loop, both, question, server):
    both.sends(1, question(1, dst=server, dport=53), question(1, dst=server, dport=123))
    (socket,) = both.outside.udp
    socket.reply(b"answer", (server, 53))
    loop.advance(299)
    assert socket.open


@pytest.mark.no_cover
@NAME_SERVERS
def test_name_servers_are_asked_twenty_times_a_second_without_end(loop, both, question, server):
    for number in range(20 * 60):
        assert both.sends(1, question(1, 1024 + number, dst=server, dport=53)) == []
        both.outside.udp[-1].reply(b"answer", (server, 53))
        assert len(both.received()) == 1
        loop.advance(0.05)
        both.switch.clear()  # what the gateway advertises meanwhile
    assert both.drops() == {}
    assert len(both.outside.udp) == 20 * 60


def test_a_mapping_renewed_at_the_last_moment_does_not_close_its_successor(loop, lan):
    lan.sends(1, udp(1))
    loop.advance(299.9)
    for _ in range(5):
        loop.advance(300)
        lan.sends(1, udp(1))
    loop.advance(1)
    assert len(lan.outside.open_sockets()) == 1
    assert len(pykka.ActorRegistry.get_by_class(UdpFlowActor)) == 1


def test_rfc4787_req8_only_addresses_that_the_guest_wrote_to_may_answer(lan):
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    socket.reply(b"from elsewhere", ("192.0.2.99", 53))
    socket.reply(b"IPv6", ("2001:db8::1", 53))
    assert lan.received() == []
    assert lan.counters["udp.drop.filtered"] == 2
    socket.reply(b"another port", ("192.0.2.1", 9999))
    (frame,) = lan.received()
    assert frame[UDP].sport == 9999
    assert_intact(frame)


def test_rfc4787_req8_anyone_may_write_where_that_is_the_setting(loop, counters):
    lan = Lan(counters, endpoint_independent_filtering=True)
    lan.assign(1)
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    socket.reply(b"from elsewhere", ("192.0.2.99", 53))
    (frame,) = lan.received()
    assert (frame[IP].src, frame[UDP].sport) == ("192.0.2.99", 53)


def test_runs_of_frames_keep_their_order_and_every_frame_its_own_way(loop, lan):
    sizes = [20, 20, 20, 7, 30, 30, 0, 5]
    batch = [udp(1, data=bytes([n]) * size) for n, size in enumerate(sizes)]
    batch += [udp(1, data=b"elsewhere", dst="192.0.2.2"), udp(1, data=b"hops", ttl=9), udp(1, data=b"end")]
    lan.sends(1, *batch)
    (socket,) = lan.outside.udp
    assert [payload for payload, _ in socket.sent] == [
        *[bytes([n]) * size for n, size in enumerate(sizes)],
        b"elsewhere",
        b"hops",
        b"end",
    ]
    assert [address[0] for _, address in socket.sent] == ["192.0.2.1"] * 8 + ["192.0.2.2"] + ["192.0.2.1"] * 2
    assert [ttl for ttl, _ in socket.options] == [63] * 9 + [8, 63]
    assert lan.counters["gateway.to_flows"] == lan.counters["udp.frames_to_net"] == 11


def test_a_bad_frame_amid_a_run_is_dropped_and_the_others_are_not(loop, lan):
    good, bad = bytes(udp(1)), bytearray(bytes(udp(1)))
    bad[-1] ^= 1
    lan.sends(1, good, bytes(bad), good, good[:30], good)
    (socket,) = lan.outside.udp
    assert [payload for payload, _ in socket.sent] == [b"question"] * 3
    assert lan.drops() == {"bad_udp_checksum": 1, "truncated": 1}


def test_the_number_of_remembered_addresses_is_bounded(loop, lan):
    for n in range(MAX_REMOTES + 10):
        lan.sends(1, udp(1, dst=f"198.51.{n // 250}.{n % 250}"))
        lan.sends(1, udp(1))  # used all the time, hence never the oldest
    (socket,) = lan.outside.udp
    for address in ("198.51.0.0", "192.0.2.1", "198.51.1.15"):
        socket.reply(b"x", (address, 53))
    assert [f[IP].src for f in lan.received()] == ["192.0.2.1", "198.51.1.15"]
    for port in range(1, 1000):  # a talkative remote with many ports fills no table
        socket.reply(b"x", ("192.0.2.1", port))
    assert len(lan.received()) == 999
    assert len(socket.flow._actor_weakref()._to_guest._templates) <= MAX_TEMPLATES


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 4000, 65_507])
def test_answers_of_any_size_arrive(lan, size):
    lan.sends(1, udp(1))
    data = bytes(n % 251 for n in range(size))
    lan.outside.udp[0].reply(data, SERVER)
    frames = lan.received()
    assert max(len(f) for f in frames) <= 1514
    whole = b"".join(bytes(f[IP].payload) for f in sorted(frames, key=lambda f: f[IP].frag))
    assert whole[8:] == data
    assert len({f[IP].id for f in frames}) == 1


def test_one_turn_of_answers_is_one_message(lan):
    from actors.messages import DatagramFromNet, DatagramsFromNet, FramesFromGateway

    lan.sends(1, udp(1))
    lan.outside.udp[0].flow.tell(DatagramsFromNet([DatagramFromNet(b"%d" % n, SERVER, 64) for n in range(9)]))
    run_ready()
    (message,) = lan.switch.take(FramesFromGateway)
    assert len(message.frames) == 9


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (SendResult.DENIED, 13),
        (SendResult.TOO_BIG, 4),
        (SendResult.UNREACHABLE, 1),
        (SendResult.NO_ROUTE, 0),
        (SendResult.REFUSED, 3),
        (SendResult.DROPPED, None),
    ],
)
@pytest.mark.parametrize("send", [udp, ping], ids=["udp", "icmp"])
def test_the_guest_learns_why_nothing_was_sent(lan, send, result, code):
    lan.sends(1, send(1))
    (socket,) = lan.outside.udp + lan.outside.echo
    socket.result = result
    errors = lan.sends(1, send(1))
    assert [(e[ICMP].type, e[ICMP].code) for e in errors] == ([] if code is None else [(3, code)])
    for error in errors:
        assert error[IP].src == "10.0.2.2"
        assert error[ICMP].payload.dst == "192.0.2.1"
        assert_intact(error)
    assert lan.counters[f"{'udp' if send is udp else 'icmp'}.drop.{result.value}"] == 1
    assert socket.open  # RFC 4787 REQ-12: an error never ends a mapping


def test_errors_of_a_flow_are_limited(lan):
    lan.sends(1, udp(1))
    lan.outside.udp[0].result = SendResult.DENIED
    assert len(lan.sends(1, *[udp(1)] * 100)) == 10
    assert lan.counters["udp.drop.denied"] == 100


def test_nobody_answers_a_denied_address(lan):
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    socket.result = SendResult.DENIED
    lan.sends(1, udp(1, dst="192.0.2.66"))
    socket.reply(b"x", ("192.0.2.66", 53))
    assert [f[IP].src for f in lan.received() if UDP in f] == []


def test_fifty_flows_of_two_guests_with_the_same_ports_are_never_confused(lan):
    for sport in range(5000, 5050):
        lan.sends(1, udp(1, sport, data=b"1:%d" % sport))
        lan.sends(2, udp(2, sport, data=b"2:%d" % sport))
    assert len(lan.outside.udp) == 100
    for socket in reversed(lan.outside.udp):
        ((question, server),) = socket.sent
        socket.reply(b"re " + question, server)
    answers = lan.received()
    assert len(answers) == 100
    for answer in answers:
        of_guest, of_port = bytes(answer[UDP].payload)[3:].split(b":")
        assert answer.dst == mac(int(of_guest)).hex(":")
        assert answer[IP].dst == guest_ip(int(of_guest))
        assert answer[UDP].dport == int(of_port)


# -- ping -------------------------------------------------------------------------------------------


def test_ping_carries_the_guests_own_payload_sequence_and_ttl(lan):
    assert lan.sends(1, ping(1, identifier=0xBEEF, seq=3, data=b"my own data", ttl=17)) == []
    (socket,) = lan.outside.echo
    assert socket.sent == [(3, b"my own data", "192.0.2.1", 16)]
    socket.reply(echo_reply(0x5555, 3, b"my own data"), ("192.0.2.1", 0), ttl=60)
    (reply,) = lan.received()
    assert (reply[IP].src, reply[IP].dst, reply[IP].ttl) == ("192.0.2.1", "10.0.2.10", 59)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 0xBEEF, 3)
    assert bytes(reply[ICMP].payload) == b"my own data"
    assert_intact(reply)


def test_one_socket_per_guest_and_identifier(lan):
    lan.sends(1, ping(1, 1), ping(1, 1, seq=2), ping(1, 1, dst="192.0.2.2"), ping(1, 2))
    lan.sends(2, ping(2, 1))
    assert [len(s.sent) for s in lan.outside.echo] == [3, 1, 1]


def test_rfc5508_req2_a_query_mapping_lives_for_a_minute(loop, lan):
    lan.sends(1, ping(1))
    loop.advance(59)
    lan.sends(1, ping(1, seq=2))
    loop.advance(59.9)
    assert lan.outside.echo[0].open
    loop.advance(0.2)
    assert not lan.outside.echo[0].open


@pytest.mark.parametrize(
    ("payload", "address", "reason"),
    [
        (echo_reply(1, 1, b"x"), "192.0.2.9", "filtered"),
        (b"\0\0", "192.0.2.1", "truncated"),
        (echo_reply(1, 1, b"x")[:-1] + b"y", "192.0.2.1", "bad_icmp_checksum"),
        (bytes(ICMP(type=8, id=1)), "192.0.2.1", "not_echo"),
    ],
)
def test_what_is_no_reply_is_dropped(lan, payload, address, reason):
    lan.sends(1, ping(1))
    lan.outside.echo[0].reply(payload, (address, 0))
    assert lan.received() == []
    assert lan.counters[f"icmp.drop.{reason}"] == 1


def test_a_large_reply_is_fragmented(lan):
    lan.sends(1, ping(1))
    lan.outside.echo[0].reply(echo_reply(1, 1, bytes(3000)), ("192.0.2.1", 0))
    frames = lan.received()
    assert len(frames) == 3
    assert sum(len(bytes(f[IP].payload)) for f in frames) == 3008


# -- fragments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "out of order"])
def test_rfc4787_req14_fragments_go_out_as_one_datagram(lan, order):
    data = bytes(n % 251 for n in range(4000))
    pieces = [Ether(bytes(f)) for f in fragment(udp(1, data=data), 1480)]
    assert len(pieces) == 3
    assert lan.sends(1, *pieces[::order]) == []
    (socket,) = lan.outside.udp
    assert socket.sent == [(data, SERVER)]
    assert socket.options == [(63, False)]
    assert lan.counters["gateway.fragments"] == 2
    assert lan.counters["gateway.to_flows"] == 1


def test_a_large_ping_of_the_gateway_is_answered_in_fragments(lan):
    request = packet(1, "10.0.2.2") / ICMP(id=1, seq=1) / Raw(bytes(range(250)) * 12)
    replies = lan.sends(1, *fragment(request, 1400))
    assert max(len(r) for r in replies) <= 1514
    whole = b"".join(bytes(r[IP].payload) for r in sorted(replies, key=lambda r: r[IP].frag))
    assert whole[8:] == bytes(range(250)) * 12


def test_a_guest_that_leaves_takes_its_fragments_along(lan):
    lan.sends(1, *fragment(udp(1, data=bytes(4000)), 1480)[:2])
    reassembler = lan.ref._actor_weakref()._reassembler
    assert reassembler.cost > 0
    lan.tell(PortClosed(1))
    assert reassembler.cost == 0


# -- errors from the network ------------------------------------------------------------------------

ROUTER = "198.51.100.7"


def error(kind, code=0, *, rest=0, router=ROUTER, address=SERVER, quoted=b"question"):
    return ErrorFromNet(address, kind, code, rest, router, quoted)


@pytest.mark.parametrize("router", [ROUTER, ""], ids=["a router in public", "one the guest must not know"])
@pytest.mark.parametrize(
    ("kind", "code", "rest"), [(3, 3, 0), (3, 1, 0), (11, 0, 0), (3, 4, 1400), (12, 0, 9 << 24)]
)
def test_rfc5508_req4_an_error_about_udp_quotes_what_the_guest_sent(lan, router, kind, code, rest):
    sent = udp(1, sport=4321)
    lan.sends(1, sent)
    lan.outside.udp[0].complain(error(kind, code, rest=rest, router=router))
    (told,) = lan.received()
    assert (told.dst, told.src) == (mac(1).hex(":"), GATEWAY_MAC.hex(":"))
    assert (told[IP].src, told[IP].dst) == (router or "10.0.2.2", "10.0.2.10")
    assert (told[ICMP].type, told[ICMP].code) == (kind, code)
    assert bytes(told[ICMP])[4:8] == rest.to_bytes(4, "big")
    assert bytes(sent[IP]).startswith(bytes(told[ICMP].payload))
    assert len(told[ICMP].payload) >= 28
    assert_intact(told)
    assert lan.counters["udp.errors_from_net"] == 1
    assert lan.outside.udp[0].open  # RFC 4787 REQ-12


@pytest.mark.parametrize(
    ("question", "address", "kind", "headers"),
    [
        (udp(1, data=b"x"), SERVER, 3, 20 + 8),
        (ping(1, data=b""), (SERVER[0], 0), 11, 20 + 8),
        (udp6(1, data=b"x"), ("2606:4700::1111", 7000), 1, 40 + 8),
    ],
    ids=["IPv4", "ping", "IPv6"],
)
def test_what_a_card_has_padded_a_short_frame_with_is_not_quoted(both, question, address, kind, headers):
    frame = bytes(question)
    both.sends(1, Raw(frame.ljust(90, b"\xa5")))
    (socket,) = both.outside.udp + both.outside.echo
    socket.complain(error(kind, router="", address=address, quoted=bytes(ICMP(type=8, id=0x5555, seq=1))))
    (told,) = both.received()
    assert bytes(told)[14 + headers :] == frame[14:]


def test_rfc5508_req5_an_error_about_a_ping_quotes_that_very_ping(lan):
    probes = [ping(1, identifier=0xBEEF, seq=n, ttl=n + 2) for n in range(1, 5)]
    lan.sends(1, *probes)
    (socket,) = lan.outside.echo
    assert socket.options == [(n + 1, False) for n in range(1, 5)]
    foreign = bytes(ICMP(type=8, id=0x5555, seq=3) / Raw(b"payload"))
    socket.complain(error(11, address=("192.0.2.1", 0), quoted=foreign))
    (told,) = lan.received()
    assert (told[ICMP].type, told[IP].src) == (11, ROUTER)
    assert bytes(probes[2][IP]).startswith(bytes(told[ICMP].payload))


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        (error(3, 3, address=("192.0.2.1", 54)), "error_unmatched"),
        (error(3, 3, address=("192.0.2.2", 53)), "error_unmatched"),
        (error(5, 1), "error_type"),
        (error(4), "error_type"),
    ],
)
def test_errors_about_nothing_the_guest_sent_are_dropped(lan, complaint, reason):
    lan.sends(1, udp(1))
    lan.outside.udp[0].complain(complaint)
    assert lan.received() == []
    assert lan.counters[f"udp.drop.{reason}"] == 1


def test_rfc5508_req6_errors_do_not_keep_a_mapping(loop, lan):
    lan.sends(1, udp(1, dport=99))
    loop.advance(299)
    lan.outside.udp[0].complain(error(3, 3, address=("192.0.2.1", 99)))
    loop.advance(1.1)
    assert not lan.outside.udp[0].open


def test_errors_from_the_network_are_limited_and_so_is_what_they_need(lan):
    lan.sends(1, *[udp(1, dport=1000 + n) for n in range(200)])
    (socket,) = lan.outside.udp
    socket.complain(*[error(11, address=("192.0.2.1", 1000 + n)) for n in range(200)])
    assert len(lan.received()) == MAX_HEADS
    assert lan.counters["udp.drop.error_unmatched"] == 200 - MAX_HEADS
    socket.complain(*[error(11, address=("192.0.2.1", 1199))] * 100)
    assert len(lan.received()) == 100 - MAX_HEADS
    assert lan.counters["udp.drop.error_rate"] == MAX_HEADS


@pytest.mark.parametrize("flags", [0, "DF"])
def test_ttl_and_df_of_udp_go_out(lan, flags):
    lan.sends(1, packet(1, ttl=9, flags=flags) / UDP(sport=4000, dport=53) / Raw(b"x"))
    assert lan.outside.udp[0].options == [(8, flags == "DF")]


@pytest.mark.parametrize(("told", "expected"), [(1400, 1400), (0, 1280)])
def test_too_big_tells_what_the_path_takes(lan, told, expected):
    lan.sends(1, udp(1))
    (socket,) = lan.outside.udp
    socket.result, socket.path_mtu = SendResult.TOO_BIG, told
    (reply,) = lan.sends(1, udp(1))
    assert (reply[ICMP].code, reply[ICMP].nexthopmtu) == (4, expected)


# -- more of ping -----------------------------------------------------------------------------------


def test_where_the_host_cannot_ping_the_guest_is_told(lan):
    lan.outside.can_ping = False
    (error,) = lan.sends(1, ping(1))
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    assert lan.drops() == {"no_ping": 1}


def test_icmp_that_is_no_query_stays_inside(lan):
    assert lan.sends(1, packet(1) / ICMP(type=3, code=3) / bytes(packet(1))) == []
    assert lan.drops() == {"icmp_type": 1}
    assert lan.outside.echo == []


def test_an_ended_flow_leaves_no_timer(loop, lan):
    before = loop.pending()
    lan.sends(1, udp(1), ping(1))
    assert len(loop.pending()) == len(before) + 2
    loop.advance(90)  # the ping is over
    assert len(loop.pending()) == len(before) + 1
    lan.tell(PortClosed(1))
    assert loop.pending() == before

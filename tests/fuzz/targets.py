"""What is fuzzed: for each parser of what peers, guests and hosts outside send, a function of bytes.

It ends without an exception whatever the bytes are, or raises those that the parser says it raises; these are
caught here. Where two ways to read the same thing have to agree, that is asserted. Packets whose checksum
would have to be guessed get the right one, unless the fuzzer says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pylsqpack

from netstack import dhcp, dhcpv6, dns_messages, encapsulation, vlan
from netstack.address_pool import AddressPool
from netstack.arp import parse_arp
from netstack.checksum import add_up, finish, pseudo_header
from netstack.chunks import MAX_BYTES as MOST_OF_CHUNKS
from netstack.control import Refused, encode_error, parse_control
from netstack.counters import Counters
from netstack.dns_answers import accept, respond
from netstack.dns_wire import A, MalformedMessageError, WireMessage
from netstack.encapsulation import Kind
from netstack.icmp import parse_icmp
from netstack.icmpv6 import may_report6, parse_icmpv6
from netstack.ipv4 import build_ipv4, build_whole, parse_fragment, parse_ipv4
from netstack.ipv4 import fragment as cut
from netstack.ipv6 import build_ipv6, build_whole6, parse_fragment6, parse_ipv6, plain
from netstack.ipv6 import fragment6 as cut6
from netstack.mac_rewriter import MacRewriter
from netstack.malformed import MalformedPacket
from netstack.multicast import MulticastGroups
from netstack.neighbour import (
    AddressBindings,
    check_router_solicitation,
    parse_advertisement,
    parse_solicitation,
)
from netstack.ra_guard import refusal
from netstack.reassembly import MAX_BYTES_PER_OWNER, Reassembler
from netstack.source_guard import SourceGuard
from netstack.tcp_segment import parse_sack, parse_syn_options, parse_tcp, read_quote, read_tcp, reset_for
from netstack.udp import is_intact_udp, parse_udp, read_udp, udp_head
from relay.admission import read_target
from transport.origins import OriginPolicy, parse_origins, read_origin
from transport.quic import frames as quic_frames
from transport.quic.qpack import FIELD_OVERHEAD, field_section_size
from transport.quic.webtransport import (
    CapsuleReader,
    answer,
    client_request,
    encode_close_capsule,
    read_request,
)
from transport.web.http1 import BadRequestError, RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from netstack.dns_answers import Answer

GUEST, GATEWAY = bytes.fromhex("525400aa0001"), bytes.fromhex("525400123456")
MACS = GATEWAY + GUEST
IP4, HOST4 = bytes((10, 0, 2, 10)), bytes((192, 0, 2, 1))
IP6 = bytes.fromhex("fd766d72656c6179") + bytes(7) + b"\x10"
HOST6 = bytes.fromhex("20010db8") + bytes(11) + b"\x01"
LINK_LOCAL = bytes.fromhex("fe80") + bytes(13) + b"\x01"
ALL_NODES = bytes.fromhex("ff02") + bytes(13) + b"\x01"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


class Target(NamedTuple):
    """A group of parsers that read the same bytes, and what such bytes look like when they are right."""

    run: Callable[[bytes], None]
    seeds: list[bytes]


TARGETS: dict[str, Target] = {}


def target(*seeds: bytes) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a target by its function's name."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[run.__name__] = Target(run, [b"", *seeds])
        return run

    return register


def parts(data: bytes) -> list[bytes]:
    """Split what the fuzzer gives into several messages: each begins with its length, in two bytes."""
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def joined(*messages: bytes) -> bytes:
    """Undo :func:`parts`."""
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def slices(data: bytes, sizes: bytes) -> Iterator[bytes]:
    """Cut ``data`` into pieces of so many bytes, in turns."""
    at = turn = 0
    while at < len(data):
        size = 1 + (sizes[turn % len(sizes)] if sizes else 7)
        yield data[at : at + size]
        at, turn = at + size, turn + 1


def summed(segment: bytes, at: int, pseudo: int = 0) -> bytes:
    """Put the right checksum into a message, ``at`` so many bytes."""
    if len(segment) < at + 2:
        return segment
    blank = segment[:at] + b"\0\0" + segment[at + 2 :]
    return blank[:at] + finish(pseudo + add_up(blank)).to_bytes(2, "big") + blank[at + 2 :]


def over(protocol: int, segment: bytes, at: int | None, version: int) -> bytes:
    """Put a segment into a frame of IP version 4 or 6, its checksum ``at`` right."""
    if version == 4:
        pseudo = 0 if protocol == ICMP else pseudo_header(IP4, HOST4, protocol, len(segment))
        return build_ipv4(MACS, IP4, HOST4, protocol, segment if at is None else summed(segment, at, pseudo))
    pseudo = pseudo_header(IP6, HOST6, protocol, len(segment))
    return build_ipv6(MACS, IP6, HOST6, protocol, segment if at is None else summed(segment, at, pseudo))


_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_SYN = bytes.fromhex("1388005000000001000000006002ffff00000000020405b4010303080402")
_DATA = bytes.fromhex("138800500000000200000003501800ff00000000") + b"GET / HTTP/1.0\r\n\r\n"
_SACKED = bytes.fromhex("1388005000000002000000038010ffff000000000101050a0000000400000005")
_DATAGRAM = bytes.fromhex("0fa00035000d0000") + b"hello"
_ECHO = bytes.fromhex("0800000000010001") + b"ping"
_ECHO6 = bytes.fromhex("8000000000010001") + b"ping"
_SOLICITATION = bytes.fromhex("8700000000000000") + IP6 + b"\1\1" + GUEST
_ADVERTISEMENT = bytes.fromhex("8800000060000000") + IP6 + b"\2\1" + GUEST


# -- packets --------------------------------------------------------------------------------------


@target(MACS + bytes.fromhex("08060001080006040001") + GUEST + IP4 + bytes(6) + HOST4 + bytes(18))
def arp(data: bytes) -> None:
    try:
        packet = parse_arp(data)
    except MalformedPacket:
        return
    assert len(packet.sender_mac) == 6


@target(over(UDP, _DATAGRAM, 6, 4), over(TCP, _SYN, 16, 4), *cut(over(UDP, bytes(2000), None, 4))[:2])
def ipv4(data: bytes) -> None:
    data = data[:14] + summed(data[14:34], 10) + data[34:]
    try:
        packet = parse_ipv4(data)
        assert packet.payload in data
        assert len(packet.source) == len(packet.destination) == 4
    except MalformedPacket:
        pass
    try:
        piece = parse_fragment(data)
        assert piece.offset % 8 == 0
    except MalformedPacket:
        pass


@target(
    over(UDP, _DATAGRAM, 6, 6),
    over(0, b"\x11\0" + bytes(6) + _DATAGRAM, None, 6),
    over(43, b"\x3a\0\0\0" + bytes(4) + _ECHO6, None, 6),
    over(44, b"\x06\0\0\0" + bytes(4) + _SYN, None, 6),
    *cut6(over(UDP, bytes(2000), None, 6))[:2],
)
def ipv6(data: bytes) -> None:
    may_report6(data)
    try:
        packet = parse_ipv6(data)
        assert packet.payload in data
        again = parse_ipv6(plain(data, packet))
        assert again[:5] == packet[:5]
    except MalformedPacket:
        pass
    try:
        piece = parse_fragment6(data)
        assert piece.offset % 8 == 0
    except MalformedPacket:
        pass


@target(b"\0" + _DATAGRAM, b"\1" + _DATAGRAM, b"\2" + _DATAGRAM)
def udp(data: bytes) -> None:
    kind, segment = data[:1], data[1:]
    at = None if kind >= b"\2" else 6
    frame = over(UDP, segment, at, 4)
    intact = is_intact_udp(frame)
    try:
        datagram = parse_udp(parse_ipv4(frame))
    except MalformedPacket:
        assert not intact or segment[2:4] == b"\0\0"
    else:
        assert intact
        assert udp_head(frame)
        assert read_udp(frame) == datagram
    frame = over(UDP, segment, at, 6)
    try:
        datagram = parse_udp(parse_ipv6(frame))
    except MalformedPacket:
        return
    assert read_udp(frame) == datagram


@target(b"\0" + _SYN, b"\0" + _DATA, b"\0" + _SACKED, b"\1" + _SYN)
def tcp(data: bytes) -> None:
    at = None if data[:1] >= b"\1" else 16
    for version in (4, 6):
        frame = over(TCP, data[1:], at, version)
        packet = parse_ipv4(frame) if version == 4 else parse_ipv6(frame)
        try:
            parse_tcp(packet.source, packet.destination, packet.payload)
        except MalformedPacket:
            continue
        segment = read_tcp(frame)
        assert segment.payload == packet.payload[20 + len(segment.options) :]
        quoted = read_quote(frame[14:])
        assert quoted is not None
        assert (quoted.source, quoted.destination) == (packet.source, packet.destination)
        assert quoted.sequence == segment.sequence
        offer = parse_syn_options(segment.options)
        assert 0 < offer.mss <= 0xFFFF
        assert offer.window_shift is None or offer.window_shift <= 14
        assert len(parse_sack(segment.options)) <= 4
        answer = reset_for(frame)
        if answer is not None:
            reply = parse_ipv4(answer) if version == 4 else parse_ipv6(answer)
            assert parse_tcp(reply.source, reply.destination, reply.payload).flags & 4


@target(b"\0" + _ECHO, b"\0\3\4\0\0\0\0\5\xdc" + over(UDP, _DATAGRAM, 6, 4)[14:], b"\1" + _SOLICITATION)
def icmp(data: bytes) -> None:
    message = data[1:]
    with suppress(MalformedPacket):
        parse_icmp(summed(message, 2) if data[:1] == b"\0" else message)
    frame = over(ICMPV6, message, 2, 6)
    may_report6(frame)
    read_quote(message[8:])
    try:
        packet = parse_ipv6(frame)
        discovery = parse_icmpv6(packet)
    except MalformedPacket:
        return
    with suppress(MalformedPacket):
        check_router_solicitation(discovery, packet.source)
    with suppress(MalformedPacket):
        assert len(parse_advertisement(discovery, packet.destination)) == 16
    with suppress(MalformedPacket):
        asked = parse_solicitation(discovery, packet.source, packet.destination)
        assert len(asked.target) == 16
        assert len(asked.source_mac) in (0, 6)


_FIXED = b"\1\1\6\0" + b"xid!" + bytes(20) + GUEST + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63"
_DISCOVER = _FIXED + b"\x35\1\1\x37\4\1\3\6\x0c\x0c\2vm\x3d\7\1" + GUEST + b"\x39\2\5\xdc\xff"
_OVERLOADED = _FIXED[:-132] + b"\x0c\2vm\xff" + _FIXED[-127:] + b"\x35\1\3\x34\1\1\x51\6\1\0\0\2vm\xff"


@target(_DISCOVER, _OVERLOADED, _FIXED[:-4] + bytes(64), _FIXED + b"\x35\1\3\x32\4" + IP4 + b"\x5d\2\0\7\xff")
def dhcp_messages(data: bytes) -> None:
    dhcp.is_for_client(over(UDP, data, None, 4))
    dhcp.is_for_client(data)
    try:
        message = dhcp.parse_dhcp(data)
    except MalformedPacket:
        return
    assert len(message.mac) == 6
    assert isinstance(message.host_name, str)
    assert message.client_identifier is not None
    assert message.asked_for is not None
    assert message.is_boot_loader in (True, False)
    offered = {dhcp.Code.SUBNET_MASK: b"\xff\xff\xff\0", dhcp.Code.SERVER_ID: HOST4}
    reply = dhcp.build_reply(message, dhcp.MessageType.OFFER, IP4, offered)
    assert len(reply) <= max(message.longest_answer, 548)


@target(
    b"\x0bxid\0\1\0\x0a\0\3\0\1" + GUEST + b"\0\6\0\2\0\x17",
    b"\1xid\0\1\0\x0e\0\1\0\1time" + GUEST,
)
def dhcpv6_messages(data: bytes) -> None:
    for start, end in dhcpv6.identifier_spans(data):
        assert 4 < start <= end <= len(data)
    try:
        request = dhcpv6.parse_information_request(data)
    except MalformedPacket:
        return
    if request is not None:
        dhcpv6.Dhcpv6Server(GATEWAY, IP6, ["vm.internal"]).answer(request)


# -- names ----------------------------------------------------------------------------------------

_QUESTION = dns_messages.Question(dns.name.from_text("example.org."), dns.rdatatype.A, False, False)
_QUERY = dns.message.make_query("example.org.", "A", use_edns=True)


def _response(*records: str) -> bytes:
    response = dns.message.make_response(_QUERY, recursion_available=True)
    for record in records:
        response.answer += dns.message.from_text(f";ANSWER\n{record}\n").answer
    return response.to_wire()


@target(
    _QUERY.to_wire(),
    dns.message.make_query("10.2.0.10.in-addr.arpa.", "PTR").to_wire(),
    b"\0\1\1\0\0\1\0\0\0\0\0\1\xc0\x0c\0\1\0\1\0\0\x29\2\0\0\0\0\0\0\0",
)
def dns_queries(data: bytes) -> None:
    _wire(data)
    query = dns_messages.parse_query(data)
    if isinstance(query, dns_messages.Query):
        assert len(query.refuse(dns.rcode.SERVFAIL)) <= 512
        assert len(query.render(query.skeleton(), over_stream=False, limit=512)) <= 512
    else:
        assert query is None or len(query) <= 512


@target(
    _response("example.org. 300 IN A 192.0.2.1", "example.org. 300 IN A 10.0.0.1"),
    _response("example.org. 60 IN CNAME a.example.org.", "a.example.org. 60 IN AAAA 2001:db8::1"),
    _response("example.org. 60 IN HTTPS 1 . ipv4hint=10.0.0.1 alpn=h3"),
    _response("example.org. 60 IN SOA ns. me. 1 2 3 4 5"),
)
def dns_answers(data: bytes) -> None:
    _wire(data)
    try:
        answer = _run(accept(data, _QUESTION, lambda address: address[:1] != b"\x0a"))
    except MalformedMessageError:
        return
    records = WireMessage(answer.wire).records
    assert not any(kind == A and answer.wire[at : at + 1] == b"\x0a" for _, kind, at, _ in records)
    query = dns_messages.parse_query(_QUERY.to_wire())
    assert isinstance(query, dns_messages.Query)
    for seconds, size in ((0, 4096), (5, 4096), (0, 512), (5, 512)):
        response = respond(query, answer.wire, seconds, size)
        assert len(response) <= size
        assert WireMessage(response).end == len(response)
    assert response[:2] == query.wire[:2]


def _run(steps: Generator[None, None, Answer]) -> Answer:
    """Run a generator to its end; give what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _wire(data: bytes) -> None:
    try:
        message = WireMessage(data)
    except MalformedMessageError:
        return
    assert message.end <= len(data)
    assert 0 <= message.rcode() < 1 << 12
    for start, _, begin, end in message.records:
        assert 12 <= start < begin <= end <= len(data)


# -- what clients say -----------------------------------------------------------------------------


@target(
    b'{"type":"Register","mac":[82,84,0,1,2,3],"name":"vm","resume":"abc"}',
    b'{"type":"Heartbeat"}',
    b'{"type":"PeerList","x":[[[1e999,"\\ud800"]]]}',
)
def control(data: bytes) -> None:
    said = parse_control(data)
    if isinstance(said, Refused):
        assert len(encode_error(said.message)) < 1100


_FRAME = over(UDP, _DATAGRAM, 6, 4)


@target(
    joined(b"\1" + _FRAME, b'\0{"type":"Heartbeat"}'),
    joined(b"\2\0\1\0\2" + _FRAME[:20], b"\2\0\1\1\2" + _FRAME[20:]),
    joined(_FRAME, _FRAME),
)
def encapsulations(data: bytes) -> None:
    datagrams = parts(data)
    for kind in Kind:
        counters = Counters()
        one = encapsulation.create(kind, counters)
        frames = []
        for number, datagram in enumerate(datagrams):
            encapsulation.kind_of_first(datagram)
            frames += one.unwrap([datagram], number / 10).frames
        assert all(14 <= len(frame) <= 65_550 for frame in frames)
        other = encapsulation.create(kind, Counters())
        carried = [frame for frame in frames if kind is Kind.FRAMED or len(frame) <= 1200]
        if sum(len(frame) + 200 for frame in carried) < MOST_OF_CHUNKS // 2:
            assert other.unwrap(one.wrap(carried, 1200), 0.0).frames == carried


_REPORT2 = bytes.fromhex("16000000ef010203")
_REPORT3 = bytes.fromhex("220000000000000104000000ef010203")
_REPORT_MLD = bytes.fromhex("8300000000000000") + bytes.fromhex("ff0e") + bytes(13) + b"\7"
_REPORT_MLD2 = bytes.fromhex("8f000000000000010400000000000000")[:12] + bytes.fromhex("ff0e") + bytes(14)


@target(
    joined(over(2, summed(_REPORT2, 2), None, 4), over(2, summed(_REPORT3, 2), None, 4)),
    joined(over(0, b"\x3a\0\5\2\0\0\1\0" + _REPORT_MLD, None, 6), over(ICMPV6, _REPORT_MLD2, 2, 6)),
)
def multicast(data: bytes) -> None:
    groups = MulticastGroups(Counters())
    for number, frame in enumerate(parts(data)):
        port = number % 3
        groups.hear(frame, port, number * 10.0)
        assert set(groups.members(frame, number * 10.0) or ()) <= {0, 1, 2}
    for port in range(3):
        groups.forget_port(port)
    assert len(groups) == 0


@target(
    _FRAME,
    MACS + b"\x81\0\0\0" + _FRAME[12:],
    MACS + b"\0\x20\xaa\xaa\3\0\0\0" + _FRAME[12:],
    over(0, b"\x3a\0" + bytes(6) + b"\x86" + bytes(15), None, 6),
    over(ICMPV6, _ADVERTISEMENT, 2, 6),
)
def guards(data: bytes) -> None:
    frame = vlan.without_priority_tags(data)
    assert vlan.without_priority_tags(frame) == frame
    inner = vlan.without_tags(frame)
    if inner is None:
        return
    vlan.hides_protocol(inner)
    said = refusal(inner, frozenset({IP6, LINK_LOCAL}))
    if inner[12:14] == _ETHERTYPES[6] and inner[22:38] in (IP6, LINK_LOCAL):
        assert said == "gateway_ipv6"
    dhcp.is_for_client(inner)
    pool, bindings = AddressPool(), AddressBindings()
    assert pool.claim(GUEST, IP4).accepted
    guard = SourceGuard(pool, bindings, IP6[:8])
    suspicion = guard.look(inner)
    if suspicion is not None and not suspicion.drop:
        guard.claim(inner[6:12], suspicion.address)
    own = inner[6:12] == GUEST and inner[12:14] == _ETHERTYPES[4] and inner[26:30] == IP4
    assert not own or suspicion is None


@target(
    joined(*cut(over(UDP, bytes(4000), None, 4))),
    joined(*cut6(over(UDP, bytes(4000), None, 6))),
)
def reassembly(data: bytes) -> None:
    counters: Counters = Counters()
    reassembler = Reassembler(counters)
    held: dict[int, int] = defaultdict(int)
    for number, frame in enumerate(parts(data)):
        sealed = frame[:14] + summed(frame[14:34], 10) + frame[34:]
        for parse, build, read in (
            (parse_fragment, build_whole, parse_ipv4),
            (parse_fragment6, build_whole6, parse_ipv6),
        ):
            try:
                piece = parse(sealed if read is parse_ipv4 else frame)
                whole = reassembler.accept(number % 2, piece, number / 4)
                held[number % 2] += len(piece.data)
                if whole is not None:
                    assert len(whole.data) <= held[number % 2]
                    assert read(build(whole)).source
            except MalformedPacket:
                pass
        assert reassembler.cost <= 2 * MAX_BYTES_PER_OWNER
    for owner in (0, 1):
        reassembler.forget(owner)
    assert reassembler.cost == 0


@target(
    joined(_FRAME, over(UDP, b"\0\x44\0\x43\0\0\0\0" + _DISCOVER, None, 4)),
    joined(over(ICMPV6, _SOLICITATION, 2, 6), over(UDP, b"\2\x22\2\x23\0\0\0\0\1xid\0\1\0\4abcd", 6, 6)),
)
def mac_rewriting(data: bytes) -> None:
    rewriter = MacRewriter(b"seed")
    frames = parts(data)
    sent = rewriter.to_lan(frames)
    assert [len(frame) for frame in sent] == [len(frame) for frame in frames]
    assert [len(frame) for frame in rewriter.to_guest(sent)] == [len(frame) for frame in frames]


# -- transport ------------------------------------------------------------------------------------


@target(
    b"\x31\x05\0\1abc\x01" + bytes(20),
    b"\x02\x40\xff\x05\x02\x03\x01\x02\0\1\x30\0tail",
    b"\x03\x0a\x05\x00\x03\x01\x02\x03\x06\x02hi",
)
def frames(data: bytes) -> None:
    found = quic_frames.read_frames(data)
    if found is None:
        return
    assert sum(map(len, found.datagrams)) <= len(data)
    for ack in found.acks:
        spans = [low for low, _ in ack.ranges]
        assert spans == sorted(spans, reverse=True)
        assert all(0 <= low <= high for low, high in ack.ranges)


_UPGRADE = (
    b"GET /raw?x=1 HTTP/1.1\r\nHost: relay.example:443\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: x\r\n\r\n"
)


@target(
    b"\2\1\7" + _UPGRADE,
    b"\1\3" + _CHUNKED + _UPGRADE,
    b"\0HEAD http://[::1]:80/ HTTP/1.0\r\nContent-Length: 2\r\n\r\nokGET",
)
def http1(data: bytes) -> None:
    """What comes out does not depend on how the bytes were cut."""
    count = data[0] if data else 0
    sizes, text = data[1 : 1 + count], data[1 + count :]
    assert _requests([text]) == _requests(list(slices(text, sizes)))


def _requests(pieces: list[bytes]) -> list[object]:
    reader = RequestReader()
    found: list[object] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (request := reader.next()) is not None:
                found.append((request.method, request.target, request.fields))
    except BadRequestError as problem:
        found.append(problem.status)
    return found


@target(
    b"\2\1\7" + encode_close_capsule(7, "gone"),
    b"\0" + b"\x40\x99\x03abc" + encode_close_capsule(0, ""),
    b"\1\0\x68\x43\x44\x06",
)
def capsules(data: bytes) -> None:
    """What comes out does not depend on how the bytes were cut."""
    count = data[0] if data else 0
    sizes, text = data[1 : 1 + count], data[1 + count :]
    assert _closure([text]) == _closure(list(slices(text, sizes)))


def _closure(pieces: list[bytes]) -> object:
    reader = CapsuleReader()
    try:
        for piece in pieces:
            if (said := reader.feed(piece)) is not None:
                return said
    except ValueError:
        return "bad"
    return None


_HEADERS = [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), (b":path", b"/raw"), (b"x", b"y" * 50)]


@target(pylsqpack.Encoder().encode(0, _HEADERS)[1], b"\0\0\xd1\x23abc\x03xyz\x50\x02hi", b"\0\0\xff\x80\x01")
def qpack(data: bytes) -> None:
    """What is let through to the decoder does not grow there to more than 1.6 times what was counted."""
    limit = 4096
    try:
        size = field_section_size(data, limit)
    except ValueError:
        return
    if size > limit:
        return
    try:
        _, fields = pylsqpack.Decoder(0, 0).feed_header(0, data)
    except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked):
        return
    assert sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields) <= size * 1.65


class _Certificates:
    """In the place of the relay's: one of an authority, for one name."""

    current = SimpleNamespace(is_self_signed=False, names=frozenset({"relay.example"}))


@target(
    b"https://example.org\nrelay.example:443\n/raw",
    b"null\n127.0.0.1\n/",
    b"http://[::1]:8080\n[::1]:4433\n/cert-hash",
    b"https://*.example.org\n\n/",
)
def origins(data: bytes) -> None:
    lines = [line.decode("latin-1") for line in (data + b"\n\n").split(b"\n")[:3]]
    origin = read_origin(lines[0])
    if origin is not None:
        assert read_origin(str(origin)) == origin
    with suppress(ValueError):
        parse_origins(lines[0])
    fields = [(b":path", lines[2].encode("latin-1")), (b"origin", lines[0].encode("latin-1"))]
    fields += [
        (b":authority", lines[1].encode("latin-1")),
        (b":method", b"CONNECT"),
        (b":protocol", data[:12]),
    ]
    assert answer(read_request(fields), fields, has_session=False).status in {200, 405, 431, 501}
    asked = client_request(fields, "192.0.2.1")
    assert read_target(asked.path, asked.query)
    policy = OriginPolicy(("https://example.org",), _Certificates, on_loopback=False)  # type: ignore[arg-type]
    for carrier in ("webtransport", "websocket", "http"):
        refused = policy.admit(asked._replace(carrier=carrier))
        if carrier != "http" and origin is not None and origin.host == "elsewhere.example":
            assert refused is not None

"""A LAN of real actors on a fake loop, guests that send anything, and a neighbour whom that must not hurt.

Three clients (framed, raw, and whatever the first datagram says) send frames of all protocols, nearly right.
Outside, hosts answer UDP and TCP, refuse, or are silent; name servers answer. After each step the neighbour
is served by the gateway as ever, and has seen nothing that speaks for the gateway or for itself.
"""

from __future__ import annotations

from functools import partial

import dns.message
import dns.rrset
from fake_loop import FakeLoop
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC, FakeOutside, control, mac, register
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from tcp_parts import FakeTcpSocket

from actors.messages import ConnectionFailed, ConnectionMade, NameServerAnswered, SocketReadable
from actors.ports import SendResult
from actors.runtime import Scheduler, run_ready
from netstack.checksum import add_up, finish, pseudo_header
from netstack.counters import Counters

GOOD = mac(0x500)
PREFIX = "fd76:6d72:656c:6179::"
GATEWAY_IP6, GOOD_IP6 = PREFIX + "2", PREFIX + "500"
GUEST_IP, GUEST_IP6 = "10.0.2.11", PREFIX + "11"
"""Of the first of the guests; the second has the address after it."""
PATHS = ("/", "/?encap=raw", "/?encap=framed")
PAUSES = (0, 0, 0, 0.3, 2, 31)
"""Seconds after a step, of which there are as many kinds."""
_ARP_CLAIM = ARP(op=2, hwsrc=mac(1).hex(":"), psrc="10.0.2.2", pdst="10.0.2.10")


class EchoingSocket(FakeTcpSocket):
    """What the guest writes comes back, and so does its end."""

    def write(self, chunks):
        data = b"".join(chunks)
        self.to_read.append(data)
        self.flow.tell(SocketReadable())
        return len(data)

    def shut_down(self):
        self.to_read.append(b"")
        self.flow.tell(SocketReadable())


class Hosts(FakeOutside):
    """By their ports they answer, refuse, or are silent."""

    def __init__(self):
        super().__init__()
        self.tcp = []

    def open_tcp(self, flow, address, owner):
        self.tcp.append(EchoingSocket(flow, address, owner))
        if address[1] % 3 == 0:
            flow.tell(ConnectionFailed(SendResult.REFUSED))
        elif address[1] % 3 == 1:
            flow.tell(ConnectionMade())
        return self.tcp[-1]

    def answer(self):
        """Send back what came by UDP."""
        for socket in self.udp:
            if socket.open and socket.sent:
                (payload, address), socket.sent = socket.sent[-1], []
                socket.reply(payload, address)


class Names:
    """Name servers that know one address."""

    def ask(self, query, token, asker):
        response = dns.message.make_response(dns.message.from_wire(query))
        name = response.question[0].name
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
        asker.tell(NameServerAnswered(token, response.to_wire()))

    def may_show(self, address):
        return True

    def close(self):
        pass


def _frames():
    """Right frames of the first guest, of everything that the LAN knows how to read."""
    to_gateway = Ether(src=mac(1).hex(":"), dst=GATEWAY_MAC.hex(":"))
    to_good = Ether(src=mac(1).hex(":"), dst=GOOD.hex(":"))
    to_all = Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff")
    ip, ip6 = IP(src=GUEST_IP, dst="192.0.2.1"), IPv6(src=GUEST_IP6, dst="2001:db8::1")
    own, own6 = IP(src=GUEST_IP, dst="10.0.2.2"), IPv6(src=GUEST_IP6, dst=GATEWAY_IP6)
    syn = TCP(sport=40000, dport=82, flags="S", seq=100, options=[("MSS", 1460), ("SAckOK", b"")])
    data = TCP(sport=40000, dport=82, flags="PA", seq=101, ack=1) / Raw(b"x" * 30)
    discover = BOOTP(chaddr=mac(1), xid=7) / DHCP(options=[("message-type", "discover"), "end"])
    offer = BOOTP(op=2, yiaddr="10.0.2.66") / DHCP(options=[("message-type", "offer"), "end"])
    question = DNS(rd=1, qd=DNSQR(qname="www.example"))
    advertised = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8:6::", prefixlen=64)
    claim6 = ICMPv6ND_NA(tgt=GOOD_IP6, R=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac(1).hex(":"))
    inner = ip / UDP(sport=5000, dport=53) / Raw(b"x" * 20)
    yield from (
        to_all / ARP(hwsrc=mac(1).hex(":"), psrc=GUEST_IP, pdst="10.0.2.2"),
        to_good / _ARP_CLAIM,
        to_gateway / ip / UDP(sport=5000, dport=4000) / Raw(b"x" * 20),
        to_gateway / ip6 / UDP(sport=5000, dport=4000) / Raw(b"x" * 20),
        to_gateway / ip / syn,
        to_gateway / ip / data,
        to_gateway / ip / TCP(sport=40000, dport=82, flags="FA", seq=131, ack=1),
        to_gateway / ip / TCP(sport=40000, dport=82, flags="R", seq=131),
        to_gateway / ip / TCP(sport=40001, dport=81, flags="SU", urgptr=9),
        to_gateway / ip6 / syn,
        to_gateway / ip6 / data,
        to_gateway / own / ICMP(id=5, seq=6) / Raw(b"ping"),
        to_gateway / ip / ICMP(id=5, seq=6) / Raw(b"ping"),
        to_gateway / own6 / ICMPv6EchoRequest(id=5, data=b"ping"),
        to_gateway / ip / ICMP(type=3, code=4, nexthopmtu=600) / inner,
        to_good / IP(src="10.0.2.2", dst="10.0.2.10") / ICMP(type=5, code=1, gw=GUEST_IP) / inner,
        to_all / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / discover,
        to_all / own / UDP(sport=67, dport=68) / offer,
        to_gateway / own / UDP(sport=5001, dport=53) / question,
        to_gateway / own6 / UDP(sport=5001, dport=53) / question,
        to_gateway / own / TCP(sport=40003, dport=53, flags="S", seq=1),
        to_all / IPv6(src="fe80::11", dst="ff02::1") / advertised,
        to_all / IPv6(src="fe80::11", dst="ff02::1") / IPv6ExtHdrDestOpt() / advertised,
        to_all / IPv6(src="fe80::11", dst="ff02::2") / ICMPv6ND_RS(),
        to_good / IPv6(src=GUEST_IP6, dst=GOOD_IP6) / claim6,
        to_all / IPv6(src=GUEST_IP6, dst="ff02::1:ff00:500") / ICMPv6ND_NS(tgt=GOOD_IP6),
        to_gateway / own6 / ICMPv6ND_NS(tgt=GATEWAY_IP6) / ICMPv6NDOptSrcLLAddr(lladdr=mac(1).hex(":")),
        to_good / IPv6(src="fe80::1", dst=GOOD_IP6) / ICMPv6ND_Redirect(tgt=GUEST_IP6, dst="2001:db8::1"),
        to_all / IPv6(src="fe80::11", dst="ff02::16", hlim=1) / ICMPv6MLReport2(),
        to_all / IP(src=GUEST_IP, dst="224.0.0.22", proto=2) / Raw(bytes.fromhex("2200000000000000")),
        to_good / IP(src=GUEST_IP, dst="10.0.2.10") / UDP() / Raw(b"to a neighbour"),
        to_all / Dot1Q(vlan=0, prio=3) / _ARP_CLAIM,
        to_all / Dot1AD(vlan=7) / Dot1Q(vlan=0) / _ARP_CLAIM,
        to_all / Dot1Q(vlan=0) / IPv6(src="fe80::11", dst="ff02::1") / advertised,
        Ether(bytes(to_all)[:12] + b"\0\x24") / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP() / _ARP_CLAIM,
        to_gateway / Dot1Q(vlan=0) / own / ICMP(id=5, seq=6),
        *[to_gateway / piece for piece in fragment(ip / UDP(dport=4000) / Raw(bytes(900)), 320)],
        *[
            to_gateway / piece
            for piece in fragment6(ip6 / IPv6ExtHdrFragment() / UDP(dport=4000) / Raw(bytes(900)), 500)
        ],
    )


FRAMES = [bytes(frame) for frame in _frames()]
DATAGRAMS = [
    register(mac(1)),
    register(mac(2)),
    register(GOOD),
    control(type="PeerList"),
    control(type="Heartbeat"),
    control(type="Disconnect"),
    b"\2\0\1\0\2" + FRAMES[2][:20],
    b"\2\0\1\1\2" + FRAMES[2][20:],
]
"""What is no frame."""


def sealed(frame):
    """Give a frame the checksums that its headers need, whatever became of them."""
    frame = bytearray(frame)
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        at, protocol = 14 + 4 * (frame[14] & 15), frame[23]
        frame[24:26] = b"\0\0"
        frame[24:26] = finish(add_up(bytes(frame[14:at]))).to_bytes(2, "big")
        addresses = bytes(frame[26:30]), bytes(frame[30:34])
        end = min(len(frame), 14 + int.from_bytes(frame[16:18], "big"))
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 54:
        at, protocol = 54, frame[20]
        addresses = bytes(frame[22:38]), bytes(frame[38:54])
        end = min(len(frame), 54 + int.from_bytes(frame[18:20], "big"))
    else:
        return bytes(frame)
    place = {1: 2, 6: 16, 17: 6, 58: 2}.get(protocol)
    if place is not None and at + place + 2 <= end:
        place += at
        frame[place : place + 2] = b"\0\0"
        pseudo = 0 if protocol == 1 else pseudo_header(*addresses, protocol, end - at)
        frame[place : place + 2] = finish(pseudo + add_up(bytes(frame[at:end]))).to_bytes(2, "big")
    return bytes(frame)


class Neighbour:
    """A guest that does nothing wrong, and answers for its addresses."""

    def __init__(self, lan):
        self.lan = lan
        self.client, self.ip = lan.join(0x500)
        self._send = self.client.session.send
        self.client.session.send = self._answer

    def _answer(self, datagrams):
        self._send(datagrams)
        for frame in [Ether(datagram[1:]) for datagram in datagrams if datagram[:1] == b"\1"]:
            if ARP in frame and frame[ARP].op == 1 and frame[ARP].pdst == self.ip:
                answer = ARP(op=2, hwsrc=GOOD.hex(":"), psrc=self.ip, hwdst=frame.src, pdst=frame[ARP].psrc)
            elif ICMPv6ND_NS in frame and frame[ICMPv6ND_NS].tgt == GOOD_IP6 and frame[IPv6].src != "::":
                advertised = ICMPv6ND_NA(tgt=GOOD_IP6, R=0) / ICMPv6NDOptDstLLAddr(lladdr=GOOD.hex(":"))
                answer = IPv6(src=GOOD_IP6, dst=frame[IPv6].src) / advertised
            else:
                continue
            self.lan.loop.call_soon(partial(self.client.sends, self.client.to(GATEWAY_MAC) / answer))

    def looks(self):
        """Check what came: nobody spoke for the gateway or for this guest."""
        for frame in self.client.frames():
            if frame.src == GATEWAY_MAC.hex(":"):
                continue
            assert frame.src != GOOD.hex(":"), frame.summary()
            if ARP in frame:
                assert frame[ARP].psrc not in {"10.0.2.2", "10.0.2.3", self.ip}, frame.summary()
            if IP in frame:
                assert frame[IP].src not in {"10.0.2.2", "10.0.2.3", self.ip}, frame.summary()
                assert UDP not in frame or frame[UDP].dport != 68, frame.summary()
            if IPv6 in frame:
                assert frame[IPv6].src not in {GATEWAY_IP6, GOOD_IP6}, frame.summary()
            assert ICMPv6ND_RA not in frame, frame.summary()
            assert ICMPv6ND_Redirect not in frame, frame.summary()
            assert ICMPv6ND_NA not in frame or frame[ICMPv6ND_NA].tgt not in {GATEWAY_IP6, GOOD_IP6}

    def is_served(self, number):
        """Ping both addresses of the gateway, in the same way as ever."""
        data = b"alive? %d" % number
        to_gateway = self.client.to(GATEWAY_MAC)
        ask, ask6 = IP(src=self.ip, dst="10.0.2.2"), IPv6(src=GOOD_IP6, dst=GATEWAY_IP6)
        self.client.sends(
            to_gateway / ask / ICMP(id=1) / data, to_gateway / ask6 / ICMPv6EchoRequest(data=data)
        )
        self.lan.loop.run()
        frames = self.client.frames()
        assert [bytes(f[ICMP].payload) for f in frames if ICMP in f and f.src == GATEWAY_MAC.hex(":")] == [
            data
        ]
        assert [f[ICMPv6EchoReply].data for f in frames if ICMPv6EchoReply in f] == [data]


def run(steps):
    """Let clients send, for each step (which, pause, datagrams); check all, also that nothing stays."""
    loop, counters = FakeLoop(), Counters()
    with Scheduler(loop, counters).activate():
        lan = Lan(
            loop, counters, outside=Hosts(), names=Names(), ipv6_prefix=bytes.fromhex("fd766d72656c6179")
        )
        neighbour = Neighbour(lan)
        neighbour.is_served(0)
        clients = {}
        for number, (which, pause, frames) in enumerate(steps, 1):
            if which not in clients or not clients[which].alive:
                clients[which] = lan.connect(mac(which + 1), PATHS[which])
                if not clients[which].raw:
                    clients[which].hears(register(mac(which + 1)))
            clients[which].hears(*frames)
            loop.run()
            lan.outside.answer()
            loop.advance(PAUSES[pause % len(PAUSES)])
            neighbour.looks()
            neighbour.is_served(number)
            for client in clients.values():
                client.session.take()
        assert counters["actors.failed"] == 0
        assert not [name for name in counters if name.endswith("drop.internal")]
        for client in [*clients.values(), neighbour.client]:
            if client.alive:
                client.leaves()
        loop.run()
        assert lan.state() == (0, 0, 0)
        assert all(socket.closed for socket in lan.outside.tcp)
        for actor in (lan.switch, lan.gateway, lan.dns):
            actor.stop(block=False)
        loop.run()
        run_ready()

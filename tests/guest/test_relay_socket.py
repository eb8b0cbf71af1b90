from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import PATIENCE, Relay
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer

from guest import relay_socket as relay_socket_module
from guest.client import ConnectError
from guest.relay_socket import RelayPeer, RelaySocket, neighbour_reply

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"
MAC = "52:54:00:00:40:01"
LINK_LOCAL = "fe80::5054:ff:fe00:4001"
EXPERIMENTAL = 0x88B5


@pytest.fixture
def peer(live_relay):
    peer = RelayPeer(live_relay.url, insecure=True)
    yield peer
    peer.close()


def question(peer):
    """Ask for the gateway's MAC, leaving nothing for scapy to look up."""
    asker = {"hwsrc": peer.mac, "psrc": str(peer.assigned.ip)}
    return Ether(src=peer.mac, dst=BROADCAST) / ARP(pdst=GATEWAY, **asker)


def frame_to(peer, payload):
    return Ether(src="52:54:00:00:40:02", dst=peer.mac, type=EXPERIMENTAL) / Raw(payload)


def test_a_socket_of_its_own_attaches_and_leaves(fresh_relay):
    with RelaySocket(fresh_relay.url, cert_hash=fresh_relay.hash, mac=MAC) as one:
        answer = one.sr1(question(one.peer), timeout=PATIENCE, verbose=0)
        assert answer[ARP].hwsrc == GATEWAY_MAC
        assert answer.time > 0
    fresh_relay.wait_for("peer 1 closed: disconnected")
    assert one.peer.closed
    with pytest.raises(OSError, match="is over"):
        one.peer.send(bytes(60))
    one.close()


def test_several_sockets_share_a_peer_and_all_hear(peer):
    with RelaySocket(peer) as one, RelaySocket(peer) as two:
        assert one.send(question(peer)) == 42
        for each in (one, two):
            assert each.recv()[ARP].hwsrc == GATEWAY_MAC


def test_select_tells_which_socket_has_something(peer):
    with RelaySocket(peer) as one, RelaySocket(peer) as two:
        assert RelaySocket.select([one, two], 0) == []
        one.put([bytes(frame_to(peer, b"1")), bytes(frame_to(peer, b"2"))])
        assert RelaySocket.select([one, two], 0) == [one]
        assert one.recv()[Raw].load == b"1"
        assert RelaySocket.select([one, two], 0) == [one]
        assert one.recv()[Raw].load == b"2"
        assert RelaySocket.select([one, two], 0) == []


def test_received_frames_are_bounded_and_the_oldest_dropped(peer, monkeypatch):
    monkeypatch.setattr(relay_socket_module, "RECEIVE_QUEUE", 3)
    with RelaySocket(peer) as one:
        one.put([bytes(frame_to(peer, bytes([n]))) for n in range(10)])
        assert [one.recv()[Raw].load for _ in range(3)] == [b"\7", b"\x08", b"\x09"]
        assert peer.counters["scapy.drop.receive_queue"] == 7
        assert RelaySocket.select([one], 0) == []


def test_frames_that_nobody_takes_do_not_pile_up(peer):
    gone = RelaySocket(peer)
    gone.close()
    gone.put([bytes(60)])
    gone.end()
    assert gone.closed


def test_the_end_of_the_session_ends_a_sniff():
    relay = Relay()
    try:
        with RelaySocket(relay.url, insecure=True, reconnect=False) as one:
            sniffer = AsyncSniffer(opened_socket=one, lfilter=lambda packet: False)
            sniffer.start()
            relay.stop()
            sniffer.join(PATIENCE)
            assert not sniffer.thread.is_alive()
    finally:
        relay.stop()


def test_a_flood_is_sent_without_piling_up(peer):
    with RelaySocket(peer) as one:
        for sequence in range(1000):
            ping = IP(src=str(peer.assigned.ip), dst=GATEWAY) / ICMP(id=9, seq=sequence)
            one.send(bytes(Ether(src=peer.mac, dst=GATEWAY_MAC) / ping))
        replies = set()
        while len(replies) < 1000 and RelaySocket.select([one], 5):
            packet = one.recv()
            if ICMP in packet:
                replies.add(packet[ICMP].seq)
    assert len(replies) + peer.counters.total("") >= 990


def test_a_relay_that_is_not_there_is_an_error_at_once():
    threads = set(threading.enumerate())
    with pytest.raises(ConnectError, match="Connection refused"):
        RelayPeer("https://127.0.0.1:9/", insecure=True)
    with pytest.raises(ValueError, match="not a WebTransport address"):
        RelaySocket("http://127.0.0.1:9/")
    assert set(threading.enumerate()) == threads


def test_errors_do_not_show_the_token(fresh_relay):
    peer = RelayPeer(f"{fresh_relay.url}?token=SECRET", insecure=True)
    peer.close()
    with pytest.raises(OSError, match=r"token=\.\.\. is over"):
        peer.send(bytes(60))


def solicitation(source, target):
    to = "ff02::1:ff00:4001"
    return (
        Ether(src="52:54:00:00:40:02", dst="33:33:ff:00:40:01")
        / IPv6(src=source, dst=to, hlim=255)
        / ICMPv6ND_NS(tgt=target)
    )


def test_questions_for_its_mac_are_answered():
    asked = Ether(src="52:54:00:00:40:02", dst=BROADCAST) / ARP(
        hwsrc="52:54:00:00:40:02", psrc="10.0.2.11", pdst="10.0.2.10"
    )
    reply = Ether(neighbour_reply(bytes(asked), MAC, "10.0.2.10"))
    assert (reply.src, reply.dst) == (MAC, "52:54:00:00:40:02")
    arp = reply[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, MAC, "10.0.2.10", reply.dst, "10.0.2.11")

    reply = Ether(neighbour_reply(bytes(solicitation("fe80::1", LINK_LOCAL)), MAC, None))
    assert (reply.src, reply[IPv6].src, reply[IPv6].dst, reply[IPv6].hlim) == (
        MAC,
        LINK_LOCAL,
        "fe80::1",
        255,
    )
    assert (reply[ICMPv6ND_NA].tgt, reply[ICMPv6ND_NA].R, reply[ICMPv6ND_NA].S) == (LINK_LOCAL, 0, 1)
    assert reply[ICMPv6NDOptDstLLAddr].lladdr == MAC


@pytest.mark.parametrize(
    "frame",
    [
        Ether() / ARP(op=1, psrc="10.0.2.11", pdst="10.0.2.12"),
        Ether() / ARP(op=2, psrc="10.0.2.11", pdst="10.0.2.10"),
        Ether() / ARP(op=1, psrc="0.0.0.0", pdst="10.0.2.10"),
        Ether() / ARP(op=1, psrc="10.0.2.10", pdst="10.0.2.10"),
        solicitation("::", LINK_LOCAL),
        solicitation("fe80::1", "fe80::2"),
    ],
    ids=["another", "reply", "probe", "announcement", "detection", "another6"],
)
def test_nothing_else_is(frame):
    frame[Ether].src, frame[Ether].dst = "52:54:00:00:40:02", BROADCAST
    if ARP in frame:
        frame[ARP].hwsrc = "52:54:00:00:40:02"
    assert neighbour_reply(bytes(frame), MAC, "10.0.2.10") is None


@settings(derandomize=True, max_examples=300)
@given(
    st.one_of(
        st.builds(
            lambda frame, at, junk: frame[:at] + junk + frame[at + len(junk) :],
            st.sampled_from(
                [
                    bytes(solicitation("fe80::1", LINK_LOCAL)),
                    bytes(Ether(src=MAC, dst=BROADCAST) / ARP(hwsrc=MAC, psrc="10.0.2.11", pdst="10.0.2.10")),
                ]
            ),
            st.integers(14, 90),
            st.binary(max_size=6),
        ),
        st.binary(max_size=80).map(lambda rest: b"\xff" * 12 + b"\x08\x06" + rest),
        st.binary(max_size=80).map(lambda rest: b"\xff" * 12 + b"\x86\xdd" + rest),
    ),
    st.integers(14, 90),
)
def test_torn_and_odd_questions_harm_nobody(frame, length):
    neighbour_reply(frame[:length], MAC, "10.0.2.10")

"""The datagram path against a live aioquic client, on networks that are not kind to packets."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite, Epoch
from quic_parts import CLIENT_ADDRESS, NEVER, Network, Pair

from transport.quic.aioquic_internals import LONGEST_PROBE_WAIT
from transport.quic.path_mtu import BASE, CEILING, STEP
from transport.quic.session import MOST_ROOM, QUEUE_BYTES, QUEUE_SECONDS, DatagramQueue

NETWORKS: dict[str, Any] = {
    "instant": {"delay": 0.0},
    "calm": {},
    "2 % loss": {"loss": 0.02},
    "10 % loss": {"loss": 0.1},
    "30 % loss": {"loss": 0.3},
    "reordering": {"jitter": 0.03},
    "duplicates": {"duplicate": 0.3},
    "corruption": {"corrupt": 0.1},
    "everything": {"loss": 0.1, "jitter": 0.02, "duplicate": 0.1, "corrupt": 0.05},
    "narrow": {"mtu": 1300},
}

# Congestion control answers losses, and what looks like one, by sending less; then datagrams wait too long.
SHARE = {"instant": 1, "calm": 1, "2 % loss": 0.7, "duplicates": 0.9, "narrow": 0.9, "10 % loss": 0.3}
"""Of all datagrams that arrive, at least; a little on other networks."""
LITTLE = 0.05


@pytest.fixture(scope="module")
def established():
    return Pair.established(stock=True)


def datagram(direction, number):
    """A datagram whose content tells whether it is whole."""
    return b"%s %d " % (direction, number) + bytes([number % 256]) * (number * 37 % 900)


class Traffic:
    """Numbered datagrams in both directions through a pair."""

    def __init__(self, pair):
        self.pair = pair
        self.sent = 0

    def run(self, turns, *, seconds=0.005, each_turn=None):
        """Send two datagrams each way per turn."""
        pair = self.pair
        for turn in range(turns):
            if each_turn is not None:
                each_turn(turn)
            for _ in range(2):
                pair.client.send(datagram(b"up", self.sent))
                pair.relay.session.send([datagram(b"down", self.sent)])
                self.sent += 1
            pair.settle(seconds)

    def assert_intact(self, at_least):
        """All that came is what was sent, at most once each, and a share of ``at_least`` came."""
        for direction, arrived in (
            (b"up", self.pair.relay.peer.datagrams),
            (b"down", self.pair.client.datagrams),
        ):
            numbers = [int(content.split(b" ")[1]) for content in arrived]
            assert arrived == [datagram(direction, number) for number in numbers]
            assert len(numbers) == len(set(numbers))
            assert len(numbers) >= at_least * self.sent, direction

    def assert_flows_again(self):
        """On a kind network everything arrives, and nothing is left on its way."""
        pair = self.pair
        pair.network = Network()
        pair.settle(6)
        pair.client.datagrams.clear()
        pair.relay.peer.datagrams.clear()
        self.sent = 0
        self.run(40)
        pair.settle(1)
        self.assert_intact(1)
        assert_nothing_left(pair.relay)


def assert_nothing_left(relay):
    """No packet of the relay counts as on its way, neither in bytes nor in packets."""
    assert relay.bytes_in_flight == 0
    assert relay.space.ack_eliciting_in_flight == 0
    assert not [packet for packet in relay.space.sent_packets.values() if packet.in_flight]
    assert not relay.connection._path._ledger.sent
    assert relay.session.queued_bytes == 0


def live(established, **conditions):
    pair = established.fork()
    pair.network = Network(**conditions)
    return pair


def without_probes(pair):
    """Have no probes for the MTU among the packets that a test counts."""
    pair.relay.connection._path.mtu.next_at = NEVER


# -- losses, reordering, duplicates, damage ------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_arrives_is_whole_and_comes_once_and_all_flows_again_after(established, name, seed):
    pair = live(established, seed=seed, **NETWORKS[name])
    traffic = Traffic(pair)
    traffic.run(150)
    pair.settle(0.05)
    traffic.assert_intact(SHARE.get(name, LITTLE))
    assert pair.relay.bytes_in_flight >= 0
    traffic.assert_flows_again()
    assert pair.relay.quic.ended is None


@pytest.mark.parametrize("name", ["calm", "10 % loss", "30 % loss", "everything"])
def test_the_sessions_actor_is_told_of_what_did_not_arrive(established, name):
    pair = live(established, seed=3, **NETWORKS[name])
    traffic = Traffic(pair)
    traffic.run(150)
    pair.settle(1)
    pair.network = Network()
    pair.settle(3)
    pair.relay.session.send([datagram(b"down", 0)])
    pair.settle(1)
    arrived, lost = set(pair.client.datagrams), {content for content, _ in pair.relay.peer.lost}
    sent = {datagram(b"down", number) for number in range(traffic.sent)}
    assert sent == arrived | lost
    assert lost <= sent
    assert bool(lost) == (name != "calm")
    assert all(when <= pair.now for _, when in pair.relay.peer.lost)
    assert len(pair.relay.connection._path._contents) <= 2, "nothing is kept of what has arrived"
    assert pair.relay.connection._path.lost == []


@pytest.mark.parametrize("stock", [True, False], ids=["aioquic", "path"])
def test_a_calm_network_loses_nothing(established, stock):
    pair = established.fork(stock=stock)
    traffic = Traffic(pair)
    traffic.run(100)
    pair.settle(1)
    traffic.assert_intact(1)
    assert pair.relay.bytes_in_flight == 0
    assert pair.relay.quic._loss._rtt_smoothed == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("version", [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2])
@pytest.mark.parametrize(
    "cipher",
    [
        CipherSuite.AES_128_GCM_SHA256,
        CipherSuite.AES_256_GCM_SHA384,
        CipherSuite.CHACHA20_POLY1305_SHA256,
    ],
)
def test_every_cipher_and_version_carries_datagrams(cipher, version):
    pair = Pair.established(cipher=cipher, versions=[version])
    has_path = pair.relay.connection._path is not None
    assert has_path == (cipher != CipherSuite.CHACHA20_POLY1305_SHA256)
    traffic = Traffic(pair)
    traffic.run(50)
    pair.settle(1)
    traffic.assert_intact(1)


# -- key updates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calm", "10 % loss", "reordering", "everything"])
@pytest.mark.parametrize("initiator", ["client", "relay", "either", "both"])
def test_key_updates_at_any_point(established, initiator, name):
    pair = live(established, seed=5, **NETWORKS[name])
    relay, client = pair.relay.quic, pair.client.quic
    before = relay._cryptos[Epoch.ONE_RTT].send.secret

    def update(turn):
        # Not before both sides have followed the last one, as RFC 9001, section 6.1 demands.
        agreed = relay._cryptos[Epoch.ONE_RTT].send.secret == client._cryptos[Epoch.ONE_RTT].recv.secret
        if turn % 60 == 3 and agreed:
            if initiator in ("client", "both") or (initiator == "either" and turn % 120 < 60):
                client.request_key_update()
            if initiator in ("relay", "both") or (initiator == "either" and turn % 120 >= 60):
                relay.request_key_update()
                pair.relay.host.want_flush(pair.relay.connection)

    traffic = Traffic(pair)
    traffic.run(200, each_turn=update)
    assert relay._cryptos[Epoch.ONE_RTT].send.secret != before
    traffic.assert_intact(LITTLE)
    traffic.assert_flows_again()
    assert relay.ended is None


# -- addresses and connection IDs ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calm", "2 % loss", "reordering"])
def test_a_client_whose_address_changes_goes_on(established, name):
    pair = live(established, seed=3, **NETWORKS[name])

    def rebind(turn):
        if turn % 50 == 20:
            pair.address = ("192.0.2.1", pair.address[1] + 1)

    traffic = Traffic(pair)
    traffic.run(200, each_turn=rebind)
    assert pair.relay.connection.remote == f"192.0.2.1:{CLIENT_ADDRESS[1] + 4}"
    traffic.assert_intact(0.6 if name == "calm" else LITTLE)
    traffic.assert_flows_again()


def test_after_a_change_of_address_all_goes_to_the_new_one(established):
    pair = live(established)
    traffic = Traffic(pair)
    traffic.run(20)
    pair.address = ("198.51.100.7", 1)
    traffic.run(40)
    sent = pair.relay.send(b"x") + pair.relay.pass_time(0.1)
    assert {address for _, address in sent} == {pair.address}
    assert pair.relay.session.remote == "198.51.100.7:1"


@pytest.mark.parametrize("congestion", ["bbr", "cubic", "reno"])
@pytest.mark.parametrize(
    ("address", "is_new"), [(("198.51.100.7", 4000), True), ((CLIENT_ADDRESS[0], 4001), False)]
)
def test_at_another_address_the_path_is_measured_anew(congestion, address, is_new):
    pair = Pair.established(congestion=congestion)
    pair.network = Network(delay=0.2)
    relay, client = pair.relay, pair.client
    for _ in range(20):
        relay.session.send([bytes(1000)] * 60)
        pair.settle(0.4)
    pair.settle(2)
    former = relay.quic._loss._cc
    window = former.congestion_window
    assert window > 20 * 1200
    # The client goes while something is under way: nothing of it arrives.
    under_way = [b"%d" % number + bytes(1000) for number in range(8)]
    relay.send(*under_way)
    pair.network = Network(delay=0.02)
    pair.address = address
    client.send(b"elsewhere")
    relay.peer.lost.clear()
    pair.settle(0.1)
    assert relay.session.remote == f"{address[0]}:{address[1]}"
    assert (relay.quic._loss._cc is not former) == is_new
    if is_new:
        # Flows know at once, and nothing counts as on its way that nobody will acknowledge.
        assert [content for content, _ in relay.peer.lost] == under_way
        assert relay.quic._loss._cc.congestion_window < window
        for _ in range(10):
            relay.session.send([bytes(1000)] * 4)
            pair.settle(0.1)
        assert relay.connection.path_state().round_trip < 0.06
    assert_after_settling(pair)


def test_a_client_that_comes_back_to_an_address_is_sent_to_there_at_once(established):
    pair = live(established)
    without_probes(pair)
    traffic = Traffic(pair)
    traffic.run(20)
    pair.address = ("198.51.100.7", 1)
    traffic.run(40)
    pair.address = CLIENT_ADDRESS
    pair.client.send(b"back")
    sent = pair.relay.receive(*pair.client.packets(pair.now), now=pair.now) + pair.relay.send(b"welcome")
    assert pair.relay.session.remote == "192.0.2.1:4000"
    assert sent != []
    assert {address for _, address in sent} == {CLIENT_ADDRESS}


@pytest.mark.parametrize("moves", [False, True], ids=["where it was", "elsewhere"])
def test_what_an_outage_has_stopped_goes_on_soon_after_it(established, moves):
    """Both sides have the same code for it here, as with `vmrelay attach`."""
    pair = live(established)
    traffic = Traffic(pair)
    traffic.run(100)
    pair.network = Network(loss=1.0)
    traffic.run(400, seconds=0.05)
    pair.network = Network()
    if moves:
        pair.address = ("198.51.100.7", 1)
    traffic.run(20, seconds=(LONGEST_PROBE_WAIT + 0.5) / 20)
    pair.client.datagrams.clear()
    pair.relay.peer.datagrams.clear()
    traffic.sent = 0
    traffic.run(5)
    pair.settle(0.1)
    traffic.assert_intact(1)


def test_after_an_outage_packets_are_soon_as_large_as_before(established):
    pair = live(established)
    traffic = Traffic(pair)
    traffic.run(100)
    limit = pair.relay.session.datagram_limit
    assert pair.relay.connection._path.mtu.size == CEILING
    pair.network = Network(loss=1.0)
    for _ in range(700):
        pair.relay.session.send([bytes(pair.relay.session.datagram_limit)])
        pair.settle(0.05)
    assert pair.relay.connection._path.mtu.size == BASE
    pair.network = Network()
    traffic.run(100, seconds=0.05)
    assert pair.relay.connection._path.mtu.size == CEILING
    assert pair.relay.session.datagram_limit == limit


def test_a_copied_packet_from_elsewhere_moves_nobody(established):
    pair = live(established)
    relay = pair.relay
    Traffic(pair).run(10)
    pair.client.send(b"once")
    packets = pair.client.packets(pair.now)
    relay.receive(*packets, now=pair.now)
    sent = relay.receive(*packets, address=("203.0.113.9", 9), now=pair.now)
    assert [address for _, address in sent if address == ("203.0.113.9", 9)] == []
    assert relay.connection.remote == "192.0.2.1:4000"
    assert relay.peer.datagrams.count(b"once") == 1


def test_a_client_stolen_by_a_faster_copy_comes_back(established):
    pair = live(established)
    traffic = Traffic(pair)
    traffic.run(10)
    pair.client.send(b"stolen")
    for packet in pair.client.packets(pair.now):
        pair.relay.receive(packet, address=("203.0.113.9", 9), now=pair.now)
    traffic.run(20)
    assert pair.relay.connection.remote == "192.0.2.1:4000"
    pair.relay.peer.datagrams.remove(b"stolen")
    traffic.assert_intact(0.8)
    traffic.assert_flows_again()


def test_an_unvalidated_address_gets_no_more_than_three_times_what_it_sent(established):
    pair = live(established)
    pair.client.send(b"x")
    received = 0
    sent = []
    thief = ("203.0.113.9", 9)
    for packet in pair.client.packets(pair.now):
        received += len(packet)
        sent += pair.relay.receive(packet, address=thief, now=pair.now)
    for _ in range(200):
        pair.relay.session.send([bytes(1000)] * 5)
        sent += pair.relay.flush() + pair.relay.pass_time(0.005)
    assert sum(len(packet) for packet, address in sent if address == thief) <= 3 * received


def test_a_client_that_moved_long_ago_is_found_at_once(established):
    pair = live(established)
    relay = pair.relay
    without_probes(pair)
    relay.session.send([bytes(1000)] * 100)
    relay.flush()
    # All that is on its way is lost, then so is every probe: the client is not there any more.
    pair.address = ("192.0.2.1", 4001)
    pair.now += 20
    relay.pass_time(20)
    pair.network = Network()
    pair.client.send(b"here I am")
    pair.settle(0.1)
    assert relay.peer.datagrams == [b"here I am"]
    relay.session.send([b"welcome back"])
    pair.settle(0.1)
    assert pair.client.datagrams == [b"welcome back"]


@pytest.mark.parametrize("name", ["calm", "10 % loss"])
def test_a_client_may_change_its_connection_id(established, name):
    pair = live(established, seed=4, **NETWORKS[name])
    seen = set()

    def change(turn):
        if turn % 40 == 10:
            pair.client.quic.change_connection_id()
        seen.add(pair.relay.quic.host_cid)

    traffic = Traffic(pair)
    traffic.run(200, each_turn=change)
    pair.settle(0.1)
    seen.add(pair.relay.quic.host_cid)
    assert len(seen) == 6
    assert pair.relay.quic.host_cid in pair.relay.host.connection_ids
    assert len(pair.relay.host.connection_ids) <= 10
    traffic.assert_intact(0.9 if name == "calm" else LITTLE)
    traffic.assert_flows_again()


def test_the_path_follows_a_changed_connection_id(established, monkeypatch):
    pair = live(established)
    Traffic(pair).run(5)
    pair.client.quic.change_connection_id()
    Traffic(pair).run(20)
    monkeypatch.setattr(pair.relay.quic, "receive_datagram", None)
    pair.client.send(b"still on the path")
    pair.settle(0.1)
    assert pair.relay.peer.datagrams[-1] == b"still on the path"


# -- acknowledgements ----------------------------------------------------------------------------------


def test_every_second_packet_is_acknowledged_at_once(established):
    pair = live(established)
    without_probes(pair)
    client, relay = pair.client, pair.relay
    client.send(bytes(1000), bytes(1000))
    first, second = client.packets(pair.now)
    assert relay.receive(first, now=pair.now) == []
    assert relay.due - relay.host.now < 0.025
    assert len(relay.receive(second, now=pair.now)) == 1


def test_a_lone_packet_is_acknowledged_in_time(established):
    pair = live(established)
    pair.client.send(b"alone")
    assert pair.relay.receive(*pair.client.packets(pair.now), now=pair.now) == []
    sent = pair.relay.pass_time(0.01)
    assert len(sent) == 1
    pair.client.receive([sent[0][0]], pair.now + 0.01)
    assert not pair.client.space.sent_packets


def test_an_acknowledgement_rides_on_a_datagram(established):
    pair = live(established)
    without_probes(pair)
    pair.client.send(b"question")
    pair.relay.receive(*pair.client.packets(pair.now), now=pair.now)
    sent = pair.relay.send(b"answer")
    assert len(sent) == 1
    pair.client.receive([sent[0][0]], pair.now + 0.01)
    assert pair.client.datagrams == [b"answer"]
    assert not pair.client.space.sent_packets
    assert pair.relay.space.ack_at is None


def test_several_small_datagrams_share_a_packet(established):
    pair = live(established)
    without_probes(pair)
    sent = pair.relay.send(*[bytes(100)] * 30)
    assert len(sent) == 3
    assert max(len(packet) for packet, _ in sent) <= BASE


def test_acknowledged_ranges_are_forgotten_while_packets_go_missing(established):
    pair = live(established, seed=1, loss=0.2)
    Traffic(pair).run(400)
    pair.network = Network()
    Traffic(pair).run(100)
    pair.settle(1)
    assert len(pair.relay.space.ack_queue) <= 2
    assert len(pair.relay.connection._path._acks_sent) <= 64


# -- the path's MTU ------------------------------------------------------------------------------------


def test_the_largest_packet_size_is_found(established):
    pair = live(established)
    assert pair.relay.session.datagram_limit < BASE
    Traffic(pair).run(100, seconds=0.02)
    assert pair.relay.connection._path.mtu.size == CEILING
    limit = pair.relay.session.datagram_limit
    assert BASE < limit < CEILING
    pair.relay.session.send([bytes(limit)])
    pair.settle(0.1)
    assert pair.client.datagrams[-1] == bytes(limit)
    pair.relay.session.send([bytes(limit + 100)])
    assert pair.relay.flush() == []
    assert pair.relay.host.counters["session.drop.too_big"] == 1


@pytest.mark.parametrize("mtu", [1200, 1201, 1280, 1350, 1450, 1452])
def test_a_narrow_path_is_measured(established, mtu):
    pair = live(established, mtu=mtu)
    Traffic(pair).run(1200, seconds=0.02)
    assert mtu - STEP <= pair.relay.connection._path.mtu.size <= mtu
    assert pair.relay.host.counters["path.narrowed"] == 0
    assert_after_settling(pair)


@pytest.mark.parametrize("moves", [False, True], ids=["", "after a move"])
@pytest.mark.parametrize("limit", [1200, 1210, 1300, 1451, 65527])
def test_no_packet_is_larger_than_the_client_takes(limit, moves):
    parameter = encode_uint_var(0x03) + encode_uint_var(len(encode_uint_var(limit))) + encode_uint_var(limit)
    pair = Pair.established(parameters=parameter)
    sizes = []
    carry = pair.network.carry

    def measure(packets, now, *, to_relay):
        if not to_relay:
            sizes.extend(map(len, packets))
        carry(packets, now, to_relay=to_relay)

    pair.network.carry = measure
    if moves:
        Traffic(pair).run(20)
        pair.address = ("192.0.2.9", 4000)
    for _ in range(100):
        pair.client.send(b"x")
        pair.relay.session.send([bytes(pair.relay.session.datagram_limit)] * 5)
        pair.settle(0.02)
    assert max(sizes) <= limit
    assert pair.relay.connection._path.mtu.size == min(limit, CEILING)
    assert len(pair.client.datagrams) >= 500
    assert pair.relay.session.datagram_limit < limit
    assert pair.relay.quic.ended is None


def test_a_path_that_narrows_is_noticed(established):
    pair = live(established)
    Traffic(pair).run(100, seconds=0.02)
    pair.network.mtu = 1300
    limit = pair.relay.session.datagram_limit
    sent = [b"%03d" % number + bytes(limit - 3) for number in range(100)]
    for datagram_of_old in sent:
        pair.relay.session.send([datagram_of_old])
        pair.settle(0.05)
    # All of them are lost, some before they could leave, and TCP is told of each.
    assert pair.relay.host.counters["session.drop.too_big"] > 0
    assert sorted(content for content, _ in pair.relay.peer.lost) == sent
    assert pair.relay.connection._path.mtu.size <= 1300
    assert pair.relay.session.datagram_limit < 1300
    traffic = Traffic(pair)
    pair.client.datagrams.clear()
    pair.relay.peer.datagrams.clear()
    traffic.run(50)
    pair.settle(1)
    traffic.assert_intact(1)


def assert_after_settling(pair):
    pair.network = Network()
    pair.settle(2)
    assert_nothing_left(pair.relay)


# -- back-pressure -------------------------------------------------------------------------------------


def test_a_client_that_stops_acknowledging_costs_a_bounded_amount(established):
    pair = live(established)
    relay = pair.relay
    window = relay.quic._loss.congestion_window
    for _ in range(300):
        relay.session.send([bytes(1000)] * 20)
        relay.flush()
        relay.pass_time(0.01)
        assert relay.session.queued_bytes <= QUEUE_BYTES
        assert relay.bytes_in_flight <= window + 2 * CEILING
    assert not relay.session.writable
    assert relay.host.counters["session.drop.queue_full"] > 5000
    assert len(relay.connection._path._ledger.sent) < 40
    assert len(relay.session.queue) <= QUEUE_BYTES // 1000
    relay.pass_time(QUEUE_SECONDS)
    relay.session.send([b"new"])
    relay.flush()
    assert relay.session.queued_bytes <= len(b"new")
    assert relay.session.writable
    assert relay.host.counters["session.drop.stale"] > 100


def test_the_queue_is_told_the_rate_of_the_path_that_holds_it_back(established):
    relay = live(established).relay
    relay.send(b"alone")
    assert relay.session.room == MOST_ROOM
    relay.send(*[bytes(1000)] * 100)
    assert relay.session.queued_bytes > 0
    by_rate = DatagramQueue(relay.host.counters)
    by_rate.fit_room(relay.connection._path._congestion.pacer.rate)
    assert relay.session.room == by_rate.room < MOST_ROOM


def test_what_is_stale_is_not_sent_when_acknowledgements_come_again(established):
    pair = live(established)
    pair.network.loss = 1.0
    for _ in range(20):
        pair.relay.session.send([b"stale" + bytes(1000)] * 20)
        pair.settle(0.01)
    pair.settle(QUEUE_SECONDS + 0.5)
    pair.network.loss = 0.0
    pair.client.datagrams.clear()
    pair.client.send(b"I am back")
    pair.settle(3)
    assert [content for content in pair.client.datagrams if content.startswith(b"stale")] == []
    assert_nothing_left(pair.relay)


def test_the_sessions_actor_is_told_of_what_has_become_stale(established):
    pair = live(established)
    relay = pair.relay
    relay.send(*[bytes([number]) * 1000 for number in range(100)])
    queued = list(relay.session.queue.items)
    assert len(queued) > 10
    since = relay.host.now
    relay.pass_time(QUEUE_SECONDS + LONGEST_PROBE_WAIT + 0.1)
    assert relay.session.queued_bytes == 0
    dropped = relay.host.counters["session.drop.stale"]
    assert dropped > 50
    stale = [(datagram, since) for datagram in queued[-dropped:]]
    assert [each for each in relay.peer.lost if each in stale] == stale


def test_the_sessions_actor_is_told_of_it_also_where_aioquic_sends_the_datagrams():
    relay = Pair.established(cipher=CipherSuite.CHACHA20_POLY1305_SHA256).relay
    assert relay.connection._path is None
    relay.send(*[bytes([number]) * 1000 for number in range(200)])
    since, queued = relay.host.now, list(relay.session.queue.items)
    assert len(queued) > 10
    relay.pass_time(QUEUE_SECONDS + LONGEST_PROBE_WAIT + 0.1)
    assert relay.session.queued_bytes == 0
    dropped = relay.host.counters["session.drop.stale"]
    assert dropped > 10
    assert relay.peer.lost == [(datagram, since) for datagram in queued[-dropped:]]


def test_what_is_stale_is_dropped_before_the_window_opens(established):
    pair = live(established)
    relay = pair.relay
    sent = relay.send(*[bytes(1000)] * 100)
    assert relay.session.queued_bytes > 10_000
    pair.client.receive([packet for packet, _ in sent], pair.now)
    pair.client.datagrams.clear()
    pair.now += QUEUE_SECONDS + 0.1
    relay.host.now = pair.now
    relay.session.send([b"fresh"])
    # Nothing has run since, so the first that could drop what is stale also sees the window open.
    sent = relay.receive(*pair.client.packets(pair.now), now=pair.now)
    sent += relay.pass_time(0.5)
    pair.client.receive([packet for packet, _ in sent], pair.now)
    assert relay.session.queued_bytes == 0
    assert pair.client.datagrams == [b"fresh"]


def test_a_short_hiccup_is_not_a_loss(established):
    pair = live(established)
    pair.network.delay = 0.3
    pair.relay.session.send([b"patience"] * 3)
    pair.settle(2)
    assert pair.client.datagrams == [b"patience"] * 3
    assert_nothing_left(pair.relay)


def test_bulk_is_sent_as_fast_as_the_window_opens(established):
    pair = live(established)
    sent = [b"%6d" % number + bytes(900) for number in range(2000)]
    waiting = list(sent)
    while waiting:
        if pair.relay.session.writable:
            pair.relay.session.send(waiting[:20])
            del waiting[:20]
        pair.settle(0.001)
    pair.settle(1)
    assert pair.client.datagrams == sent
    assert_nothing_left(pair.relay)

"""The same packets through aioquic alone and through the datagram path must mean the same."""

from __future__ import annotations

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.tls import CipherSuite, Epoch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from quic_parts import (
    CLIENT_ADDRESS,
    NEVER,
    PREFIX,
    START,
    Forge,
    Pair,
    close_capsule_frame,
    datagram_frame,
)

from transport.quic.frames import MAX_SIGNS_READ

CLOCKS_DIFFER = 1e-4
"""Seconds: the relays' timers fire at different times, and each fires a little late."""
SENT_BEFORE = 12
"""Packets that both relays have on their way when a trace begins."""


@pytest.fixture(scope="module", params=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384])
def established(request):
    # Reno: BBR draws its conclusions once a turn, so the two windows are alike but not the same.
    return Pair.established(cipher=request.param, stock=True, congestion="reno")


@pytest.fixture(scope="module")
def pair128():
    return Pair.established(stock=True, congestion="reno")


class Both:
    """One client's packets, given to a relay of aioquic alone and to one with the path."""

    def __init__(self, pair):
        self.stock = pair.fork(stock=True).relay
        self.fast = pair.fork().relay
        # aioquic does not look for the path's MTU; probes would shift the numbers of all other packets.
        self.fast.connection._path.mtu.next_at = NEVER
        self.client = pair.fork(stock=True).client
        self.forge = Forge(self.client)
        self.capsules = self.client.quic._streams[0].sender._buffer_stop
        self.acknowledged = False

    @property
    def relays(self):
        return self.stock, self.fast

    def receive(self, *packets, **options):
        for relay in self.relays:
            relay.receive(*packets, **options)

    def send(self, *datagrams):
        for relay in self.relays:
            relay.send(*datagrams)

    def pass_time(self, seconds):
        for relay in self.relays:
            relay.pass_time(seconds)

    def with_packets_on_their_way(self, count=SENT_BEFORE):
        """Have both send ``count`` packets, one every 5 ms; return the numbers of the first and last."""
        first = self.stock.quic._packet_number
        for number in range(count):
            self.send(b"%4d" % number + bytes(400))
            self.pass_time(0.005)
        assert self.stock.quic._packet_number == self.fast.quic._packet_number == first + count
        assert self.stock.bytes_in_flight == self.fast.bytes_in_flight > count * 400
        return first, first + count - 1

    def next_capsule(self):
        """A STREAM frame with an HTTP/3 DATA frame with a capsule that nobody knows."""
        data = b"\0\x03\x21\x01x"
        frame = b"\x0e\0" + encode_uint_var(self.capsules) + bytes((len(data),)) + data
        self.capsules += len(data)
        return frame

    @property
    def understood(self):
        """Whether the relays follow the client's keys."""
        return self.stock.quic._cryptos[Epoch.ONE_RTT].recv.secret == self.forge._pair.send.secret

    def client_opens(self, packet):
        """Open a relay's packet with the client's present keys. Raises CryptoError."""
        pair = self.forge._pair
        pair.recv.decrypt_packet(packet, 1 + len(self.client.quic.host_cid), 0)

    def acknowledge_all(self):
        """Have the client acknowledge whatever each relay has sent."""
        # From now on each forgets what it need not acknowledge again, by what its own packets carried.
        self.acknowledged = True
        for _ in range(20):
            number = self.forge.number
            self.forge.number += 1
            for relay in self.relays:
                sent = ack_frame([(0, relay.quic._packet_number - 1)])
                relay.receive(self.forge.packet(sent, number=number))
            self.pass_time(0.03)

    def assert_same(self):
        stock, fast = self.relays
        assert fast.peer.datagrams == stock.peer.datagrams
        assert fast.peer.closed == stock.peer.closed
        assert fast.quic.ended == stock.quic.ended
        if stock.quic.ended is None:
            if not self.acknowledged:
                assert fast.acknowledges == stock.acknowledges
            assert fast.space.largest_received_packet == stock.space.largest_received_packet
            assert fast.quic.host_cid == stock.quic.host_cid
            assert fast.connection.remote == stock.connection.remote
            assert (
                fast.quic._cryptos[Epoch.ONE_RTT].recv.secret
                == stock.quic._cryptos[Epoch.ONE_RTT].recv.secret
            )

    def assert_same_round_trips(self):
        stock, fast = (relay.quic._loss for relay in self.relays)
        assert fast._rtt_latest == pytest.approx(stock._rtt_latest, abs=CLOCKS_DIFFER)
        assert fast._rtt_min == pytest.approx(stock._rtt_min, abs=CLOCKS_DIFFER)
        assert fast._rtt_smoothed == pytest.approx(stock._rtt_smoothed, abs=CLOCKS_DIFFER)
        assert fast._rtt_variance == pytest.approx(stock._rtt_variance, abs=CLOCKS_DIFFER)


@pytest.fixture
def both(established):
    return Both(established)


def ack_frame(ranges, delay=0, ecn=None):
    """An ACK frame of (lowest, highest) ranges, highest first."""
    low, high = ranges[0]
    plain = [high, delay, len(ranges) - 1, high - low]
    for next_low, next_high in ranges[1:]:
        plain += [low - next_high - 2, next_high - next_low]
        low = next_low
    encoded = b"".join(map(encode_uint_var, plain))
    if ecn is not None:
        return b"\x03" + encoded + b"".join(map(encode_uint_var, ecn))
    return b"\x02" + encoded


# -- receiving: any trace ------------------------------------------------------------------------------

PAYLOADS = st.one_of(st.binary(max_size=40), st.integers(0, 1400).map(lambda size: b"z" * size))
"""From nothing to more than a packet of ours takes."""

SMALL_FRAMES = st.one_of(
    PAYLOADS.map(datagram_frame),
    st.just(b"\x01"),
    st.integers(1, 40).map(bytes),
    st.binary(max_size=20).map(lambda data: datagram_frame(data, prefix=b"\x01")),
)


@st.composite
def acknowledgements(draw, first, last):
    chosen = sorted(draw(st.sets(st.integers(first, last), min_size=1)), reverse=True)
    ranges = []
    for number in chosen:
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = (number, ranges[-1][1])
        else:
            ranges.append((number, number))
    ecn = draw(st.none() | st.tuples(*[st.integers(0, 100_000)] * 3))
    return ack_frame(ranges, draw(st.integers(0, 3000)), ecn)


@st.composite
def traces(draw, first, last):
    """What a client does, and what the network makes of it."""
    count = draw(st.integers(1, 25))
    steps = []
    for _ in range(count):
        kind = draw(st.sampled_from(["frames"] * 8 + ["bare", "ack", "ack", "stream", "keys", "skip"]))
        if kind == "frames":
            content = b"".join(draw(st.lists(SMALL_FRAMES, min_size=1, max_size=3)))
        elif kind == "bare":
            content = b"\x30" + PREFIX + draw(st.binary(max_size=30))
        elif kind == "ack":
            content = draw(acknowledgements(first, last)) + draw(st.sampled_from([b"", datagram_frame(b"a")]))
        else:
            content = b""
        fate = draw(st.sampled_from(["arrives"] * 8 + ["lost", "twice", "late", "damaged", "cut"]))
        steps.append((kind, content, fate, draw(st.integers(1, 4)), draw(st.integers(0, 1 << 30))))
    batches = draw(st.lists(st.integers(1, 8), min_size=1, max_size=12))
    return steps, batches


def play(both, steps):
    """Write the packets of a trace; return them as they arrive."""
    packets, late = [], []
    for kind, frames, fate, number_size, chance in steps:
        content = frames
        if kind == "keys":
            both.forge.update_keys()
            content = datagram_frame(b"after a key update")
        elif kind == "skip":
            both.forge.number += chance % 40
            content = b"\x01"
        elif kind == "stream":
            content = both.next_capsule()
        # One byte of number is too few when packets go missing by the hundred, as a client knows.
        packet = both.forge.packet(content, number_size=max(2, number_size), flags=0x40)
        if fate == "late":
            late.append(packet)
            continue
        if fate == "damaged":
            at = chance % (len(packet) - 9) + 9
            packet = packet[:at] + bytes((packet[at] ^ (1 << chance % 8),)) + packet[at + 1 :]
        elif fate == "cut":
            packet = packet[: chance % len(packet)]
        packets += [packet] * {"lost": 0, "twice": 2}.get(fate, 1)
        if len(late) > 2:
            packets.append(late.pop(chance % len(late)))
    return packets + late[::-1]


@settings(derandomize=True, max_examples=120, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(st.data())
def test_any_trace_means_the_same(pair128, data):
    both = Both(pair128)
    first, last = both.with_packets_on_their_way()
    steps, batches = data.draw(traces(first, last))
    packets = play(both, steps)
    at = turn = 0
    while at < len(packets):
        size = batches[turn % len(batches)]
        both.receive(*packets[at : at + size])
        both.assert_same()
        both.pass_time(0.001)
        at += size
        turn += 1
    both.assert_same()
    both.assert_same_round_trips()
    both.acknowledge_all()
    # A client two key updates ahead is understood by neither.
    if both.stock.quic.ended is None and both.understood:
        for relay in both.relays:
            assert relay.bytes_in_flight == 0
            assert relay.space.ack_eliciting_in_flight == 0


def test_the_path_itself_takes_datagrams_pings_padding_and_acknowledgements(both, monkeypatch):
    first, last = both.with_packets_on_their_way()
    forge = both.forge
    packets = [
        forge.datagram(b"x" * 900),
        forge.datagram(b""),
        forge.packet(b"\x01"),
        forge.packet(bytes(50)),
        forge.packet(ack_frame([(first, last)])),
        forge.packet(ack_frame([(first, last)], ecn=(5, 6, 7)) + datagram_frame(b"y")),
        forge.packet(b"\x30" + PREFIX + b"to the end"),
        forge.packet(datagram_frame(b"1") + datagram_frame(b"2") + bytes(9)),
    ]
    both.stock.receive(*packets)
    monkeypatch.setattr(both.fast.quic, "receive_datagram", None)
    both.fast.receive(*packets)
    both.assert_same()
    assert both.fast.peer.datagrams == [b"x" * 900, b"", b"y", b"to the end", b"1", b"2"]


# -- receiving: what is out of the ordinary ------------------------------------------------------------

ODD_PACKETS = {
    "an unknown frame": lambda both: both.forge.packet(b"\x21" + bytes(20)),
    "a datagram, then an unknown frame": lambda both: both.forge.packet(datagram_frame(b"a") + b"\x21"),
    "a datagram longer than its packet": lambda both: both.forge.packet(b"\x31\x40\xff" + bytes(20)),
    "a datagram without a stream": lambda both: both.forge.packet(b"\x01\x01\x01\x01\x31\0"),
    "a datagram of another session": lambda both: both.forge.packet(datagram_frame(b"a", b"\x05")),
    "a stream number longer than it need be": lambda both: both.forge.packet(datagram_frame(b"a", b"\x40\0")),
    "a datagram of a bidirectional server stream": lambda both: both.forge.packet(
        datagram_frame(b"a", b"\xc0\0\0\0\0\0\0\x01")
    ),
    "a truncated stream number": lambda both: both.forge.packet(datagram_frame(b"", b"\xc0\0")),
    "reserved bits": lambda both: both.forge.datagram(b"a", flags=0x58),
    "no fixed bit": lambda both: both.forge.datagram(b"a", flags=0x00),
    "the other key phase with the same keys": lambda both: both.forge.packet(
        datagram_frame(b"a"), flags=0x44
    ),
    "another connection's ID": lambda both: both.forge.datagram(b"a", cid=b"\0another"),
    "an acknowledgement of what was never sent": lambda both: both.forge.packet(ack_frame([(0, 5000)])),
    "an acknowledgement of negative numbers": lambda both: both.forge.packet(b"\x02\x05\0\0\x06"),
    "an acknowledgement of a huge range": lambda both: both.forge.packet(
        ack_frame([((1 << 61) - 5, (1 << 61))])
    ),
    "CONNECTION_CLOSE": lambda both: both.forge.packet(b"\x1d\x41\0\x04over"),
    "HANDSHAKE_DONE from a client": lambda both: both.forge.packet(b"\x1e"),
    "RETIRE_CONNECTION_ID of the one in use": lambda both: both.forge.packet(b"\x19\0"),
    "RESET_STREAM of the session": lambda both: both.forge.packet(
        b"\x04\0\0" + encode_uint_var(both.capsules) + bytes(4)
    ),
    "a closing capsule": lambda both: both.forge.packet(
        close_capsule_frame(77, "enough", offset=both.capsules)
    ),
    "the end of the session's stream": lambda both: both.forge.packet(
        b"\x0f\0" + encode_uint_var(both.capsules) + b"\0"
    ),
    "noise": lambda both: b"\x40" + both.forge.cid + bytes(range(60)),
    "a handshake packet": lambda both: b"\xe3" + bytes(4) + b"\x08" + both.forge.cid + bytes(100),
    "too short for a sample": lambda both: b"\x40" + both.forge.cid + bytes(19),
    "an empty UDP datagram": lambda both: b"",
    "one byte": lambda both: b"\x40",
}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "amid"])
@pytest.mark.parametrize("name", ODD_PACKETS)
def test_odd_packets_mean_the_same(both, name, alone):
    before = [] if alone else [both.forge.datagram(b"before %d" % n) for n in range(3)]
    odd = ODD_PACKETS[name](both)
    after = [] if alone else [both.forge.datagram(b"after %d" % n) for n in range(3)]
    both.receive(*before, odd, *after)
    both.assert_same()
    both.receive(both.forge.datagram(b"next turn"))
    both.pass_time(0.05)
    both.assert_same()
    both.acknowledge_all()
    both.pass_time(2)
    both.assert_same()
    assert both.fast.host.ended == both.stock.host.ended


@pytest.mark.parametrize(("ahead", "number_size"), [(100, 1), (32_000, 2), (9000, 4), (1 << 30, 4)])
def test_numbers_far_ahead_are_understood(both, ahead, number_size):
    both.receive(*[both.forge.datagram(b"%d" % n) for n in range(3)])
    both.receive(both.forge.datagram(b"ahead", number=both.forge.number + ahead, number_size=number_size))
    both.assert_same()
    assert both.fast.peer.datagrams[-1] == b"ahead"


@pytest.mark.parametrize("first_byte", range(0x80, 0x100, 4))
def test_late_handshake_packets_hurt_nobody(both, first_byte):
    late = [bytes((first_byte,)) + b"\0\0\0\1\x08" + both.forge.cid + bytes((n,)) * 60 for n in range(32)]
    both.receive(both.forge.datagram(b"before"), *late, both.forge.datagram(b"after"))
    both.assert_same()
    assert both.fast.peer.datagrams == [b"before", b"after"]


@pytest.mark.parametrize("together", [True, False], ids=["in one turn", "in many turns"])
def test_duplicates_are_delivered_once(both, together):
    packets = [both.forge.datagram(b"%d" % n) for n in range(40)]
    arrivals = packets + packets[::-1] + packets
    if together:
        both.receive(*arrivals)
    else:
        for packet in arrivals:
            both.receive(packet)
    both.assert_same()
    assert both.fast.peer.datagrams == [b"%d" % n for n in range(40)]
    assert both.fast.host.counters["path.drop.duplicate"] == 80


def test_a_duplicate_beside_a_packet_for_aioquic_is_delivered_once(both):
    datagram = both.forge.datagram(b"once")
    capsule = both.forge.packet(both.next_capsule() + datagram_frame(b"with a capsule"))
    both.receive(datagram, capsule, datagram, capsule)
    both.receive(capsule, datagram)
    both.assert_same()
    assert both.fast.peer.datagrams == [b"once", b"with a capsule"]


def test_packets_older_than_the_duplicate_filter_remembers_are_dropped(both):
    packets = [both.forge.datagram(b"%d" % n) for n in range(1000)]
    both.receive(packets[999])
    both.receive(packets[0], packets[500], packets[800])
    both.receive(packets[998], packets[999], packets[990])
    both.assert_same()
    assert both.fast.peer.datagrams == [b"999", b"998", b"990"]


def test_acknowledgements_stay_small_when_every_second_packet_is_lost(both):
    packets = [both.forge.datagram(b"%d" % n) for n in range(1000)][::2]
    for at in range(0, 500, 10):
        both.receive(*packets[at : at + 10])
        both.pass_time(0.001)
    both.assert_same()
    assert len(both.fast.acknowledges) == 64


@pytest.mark.parametrize("number_size", [1, 2, 3, 4])
def test_numbers_of_every_size_are_completed(both, number_size):
    for turn in range(60):
        both.receive(*[both.forge.datagram(b"%d %d" % (turn, n), number_size=number_size) for n in range(10)])
    both.assert_same()
    assert len(both.fast.peer.datagrams) == 600


def test_client_key_updates_at_any_point_of_a_batch(both):
    forge = both.forge
    for turn in range(5):
        packets = [forge.datagram(b"%d before" % turn) for _ in range(turn)]
        forge.update_keys()
        both.receive(*packets, *[forge.datagram(b"%d after" % turn) for _ in range(5)])
        both.assert_same()
        for relay in both.relays:
            # A packet of the relay's own, sealed with the new keys.
            sent = relay.send(b"answer") + relay.pass_time(0.05)
            assert sent
            for packet, _ in sent:
                both.client_opens(packet)
    assert len(both.fast.peer.datagrams) == 35


def test_a_batch_of_noise_and_packets_delivers_the_packets(both):
    packets = []
    for n in range(20):
        packets += [both.forge.datagram(b"%d" % n), b"\x40" + both.forge.cid + bytes((n,)) * 40]
    both.receive(*packets)
    both.assert_same()
    assert both.fast.peer.datagrams == [b"%d" % n for n in range(20)]


# -- acknowledged, lost, round-trip times --------------------------------------------------------------


def test_round_trips_are_sampled_alike(both):
    first, _ = both.with_packets_on_their_way()
    for n in range(SENT_BEFORE):
        both.receive(both.forge.packet(ack_frame([(first, first + n)], delay=500 * n)))
        both.assert_same_round_trips()
        both.pass_time(0.003)
    for relay in both.relays:
        assert relay.bytes_in_flight == 0
    # aioquic's window grows whether or not it is used.
    assert both.fast.quic._loss.congestion_window <= both.stock.quic._loss.congestion_window


def test_losses_by_packets_and_by_time_are_counted_alike(both):
    first, last = both.with_packets_on_their_way()
    both.receive(both.forge.packet(ack_frame([(first + 6, first + 6)])))
    assert both.fast.bytes_in_flight == both.stock.bytes_in_flight
    window, grown = both.fast.quic._loss.congestion_window, both.stock.quic._loss.congestion_window
    assert 0.9 * grown < window <= grown
    both.receive(both.forge.packet(ack_frame([(last, last)])))
    assert both.fast.bytes_in_flight == both.stock.bytes_in_flight
    both.pass_time(1)
    both.acknowledge_all()
    for relay in both.relays:
        assert relay.bytes_in_flight == 0
        assert relay.space.ack_eliciting_in_flight == 0


def test_acknowledgements_twice_or_out_of_order_count_once(both):
    first, last = both.with_packets_on_their_way()
    early = both.forge.packet(ack_frame([(first, first + 3)]))
    late = both.forge.packet(ack_frame([(first, last)]))
    both.receive(late, early, late)
    both.receive(early)
    both.receive(both.forge.packet(ack_frame([(first, last)])))
    both.assert_same_round_trips()
    for relay in both.relays:
        assert relay.bytes_in_flight == 0


def test_an_acknowledgement_beside_a_stream_frame_counts_too(both):
    first, last = both.with_packets_on_their_way()
    both.receive(both.forge.packet(ack_frame([(first, last)]) + both.next_capsule()))
    both.assert_same_round_trips()
    for relay in both.relays:
        assert relay.bytes_in_flight == 0


def test_a_packet_of_many_frames_is_the_last_of_its_look(pair128):
    """Of others as many are read as there are: a hundred milliseconds, if each has a thousand PINGs."""
    pair = pair128.fork()
    forge, path = Forge(pair.client), pair.relay.connection._path
    usual = [forge.packet(b"\1" * MAX_SIGNS_READ) for _ in range(5)]
    costly = [forge.packet(b"\1" * (MAX_SIGNS_READ + 1)) for _ in range(5)]
    assert path.receive(usual, CLIENT_ADDRESS, START, []) == 5
    assert path.receive(costly, CLIENT_ADDRESS, START, []) == 1
    assert path.receive(usual[:1] + costly[1:], CLIENT_ADDRESS, START, []) == 2

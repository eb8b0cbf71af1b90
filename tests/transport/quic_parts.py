"""A client and a relay connection without sockets: packets are shuttled by hand, time is a number.

``Pair`` is a whole stack: aioquic as the client, ``connection.Connection`` as the relay. A pair can
be forked once its session stands, keys and all; so the same packets can be given to a relay with the datagram
path and to one that leaves everything to aioquic.
"""

from __future__ import annotations

import copy
import copyreg
import heapq
import random
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pylsqpack
from admission_parts import OpenDoor
from aioquic._crypto import AEAD, HeaderProtection
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, ProtocolNegotiated, StreamDataReceived
from aioquic.tls import CipherSuite, Context, Epoch

from actors.messages import DatagramsFromClient, DatagramsLost, SessionClosed
from netstack.counters import Counters
from transport.certificates import EphemeralCertificateStore
from transport.quic import webtransport
from transport.quic.aioquic_client import ClientQuicConnection
from transport.quic.aioquic_internals import CONNECTION_ID_LENGTH, RelayQuicConnection
from transport.quic.bbr import BBR
from transport.quic.connection import Connection

CERTIFICATES = EphemeralCertificateStore(["127.0.0.1", "localhost"], datetime.now(UTC))
CLIENT_ADDRESS = ("192.0.2.1", 4000)
RELAY_ADDRESS = ("192.0.2.2", 4433)
START = 1000.0
PREFIX = b"\0"
CONTROL_STREAM = 3
"""The relay's first unidirectional stream."""
NEVER = float("inf")
LATE = 1e-6
"""Seconds by which timers fire late, as they always do: exactly on time, rounding makes them fire in vain."""
MOST_TURNS_AT_ONCE = 1000
"""Turns without time passing that an instant network may take."""
MOST_TIMERS_AT_ONCE = 8
"""Calls of a connection's timer without time passing that are no busy loop yet."""

# What holds no state of a connection, or none that a test after the handshake reaches, is shared by forks.
for _shared in (
    AEAD,
    HeaderProtection,
    Buffer,
    Context,
    QuicConfiguration,
    pylsqpack.Decoder,
    pylsqpack.Encoder,
):
    copyreg.pickle(_shared, lambda _: "shared")


class Recorder:
    """The session's actor: keeps what it is told."""

    def __init__(self, session):
        self.session = session
        self.datagrams = []
        self.lost = []
        self.closed = []
        self.may_come_back = None

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            assert not self.closed, "a datagram after the end"
            self.datagrams += message.datagrams
        elif isinstance(message, DatagramsLost):
            self.lost += message.datagrams
        else:
            assert isinstance(message, SessionClosed)
            self.closed.append((message.code, message.reason))
            self.may_come_back = message.lost


class Host:
    """Implements ``transport.quic.connection.Host`` with a clock that stands still unless it is set."""

    def __init__(self):
        self.counters = Counters()
        self.now = START
        self.peers = []
        self.connection_ids = {}
        self.sent = []
        self.dirty = False
        self.handshakes_ended = 0
        self.handshakes_failed = []
        self.ended = False
        self.drains_until = None
        self.admit = OpenDoor(self.attach).admit

    def clock(self):
        return self.now

    def attach(self, session):
        self.peers.append(Recorder(session))
        return self.peers[-1]

    def add_connection_id(self, connection_id, connection):
        self.connection_ids[connection_id] = connection

    def remove_connection_id(self, connection_id):
        self.connection_ids.pop(connection_id, None)

    def want_flush(self, connection):
        self.dirty = True

    def handshake_ended(self, connection):
        self.handshakes_ended += 1

    def handshake_failed(self, connection, end):
        self.handshakes_failed.append(end)

    def connection_drains(self, connection, until):
        self.drains_until = until

    def connection_ended(self, connection):
        self.ended = True

    def serve_alone(self, connection):
        connection.flush(self.now)

    def drop_pending(self, connection, room):
        del connection.pending[room:]

    def send_packets(self, packets, address):
        self.sent += [(packet, address) for packet in packets]


class PairConnection(Connection):
    """The relay's connection; while it is ``stock``, aioquic does everything."""

    stock = False

    def _open_path(self):
        return None if self.stock else super()._open_path()


@dataclass
class Relay:
    """A connection of the relay with its host, worked as the endpoint works it."""

    host: Host
    connection: Connection
    timers_fired: int = 0

    @property
    def quic(self):
        return self.connection.quic

    @property
    def peer(self):
        return self.host.peers[0]

    @property
    def session(self):
        return self.peer.session

    @property
    def space(self):
        return self.quic._spaces[Epoch.ONE_RTT]

    @property
    def bytes_in_flight(self):
        return self.quic._loss.bytes_in_flight

    @property
    def acknowledges(self):
        """The packet numbers that an acknowledgement names."""
        return [(block.start, block.stop - 1) for block in self.space.ack_queue]

    def receive(self, *packets, address=CLIENT_ADDRESS, now=None):
        """Take packets of one turn; return what was sent in answer."""
        if now is not None:
            self.host.now = now
        left = list(packets)
        while left:
            del left[: self.connection.receive(left, address, self.host.now)]
        self.connection.deliver()
        return self.flush()

    def flush(self):
        for _ in range(10):
            self.host.dirty = False
            self.connection.flush(self.host.now)
            if not self.host.dirty:
                break
        else:
            raise AssertionError("the connection wants to be flushed for ever")
        sent, self.host.sent = self.host.sent, []
        return sent

    def send(self, *datagrams):
        self.session.send(list(datagrams))
        return self.flush()

    @property
    def due(self):
        return NEVER if self.host.ended else self.connection.next_timer()

    def run_timer(self):
        """Let the clock reach the connection's timer; return what was sent."""
        self.host.now = max(self.host.now, self.due + LATE)
        self.timers_fired += 1
        self.connection.handle_timer(self.host.now)
        self.connection.deliver()
        return self.flush()

    def pass_time(self, seconds):
        """Run every timer that is due within ``seconds``; return what was sent."""
        end = self.host.now + seconds
        sent = []
        in_vain = 0
        while self.due <= end:
            in_vain = in_vain + 1 if self.due <= self.host.now else 0
            assert in_vain < MOST_TIMERS_AT_ONCE, "a timer that is due at once, again and again"
            sent += self.run_timer()
        self.host.now = max(self.host.now, end)
        return sent


@dataclass
class Client:
    """An aioquic client, told the time."""

    quic: ClientQuicConnection
    h3: H3Connection | None = None
    status: bytes | None = None
    datagrams: list = field(default_factory=list)
    closure: tuple | None = None
    control: bytes = b""
    """What the relay said on its HTTP/3 control stream."""
    capsules: webtransport.CapsuleReader = field(default_factory=webtransport.CapsuleReader)

    @property
    def space(self):
        return self.quic._spaces[Epoch.ONE_RTT]

    def receive(self, packets, now):
        for packet in packets:
            self.quic.receive_datagram(packet, RELAY_ADDRESS, now)
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, ProtocolNegotiated):
                takes_datagrams = self.quic.configuration.max_datagram_frame_size is not None
                self.h3 = H3Connection(self.quic, enable_webtransport=takes_datagrams)
            if isinstance(event, StreamDataReceived) and event.stream_id == CONTROL_STREAM:
                self.control += event.data
            if isinstance(event, DatagramFrameReceived):
                assert event.data.startswith(PREFIX)
                self.datagrams.append(event.data[len(PREFIX) :])
            elif self.h3 is not None:
                for answer in self.h3.handle_event(event):
                    if isinstance(answer, HeadersReceived):
                        self.status = dict(answer.headers)[b":status"]
                    elif isinstance(answer, DataReceived) and self.status == b"200":
                        closure = self.capsules.feed(answer.data)
                        self.closure = self.closure or closure

    def send(self, *datagrams):
        for datagram in datagrams:
            self.quic.send_datagram_frame(PREFIX + datagram)

    def packets(self, now):
        return [packet for packet, _ in self.quic.datagrams_to_send(now)]


@dataclass
class Network:
    """What happens to packets on their way; everything by chance comes from one seed."""

    seed: int = 0
    delay: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    mtu: int = 1500

    def __post_init__(self):
        self._random = random.Random(self.seed)
        self._sent = 0  # copied with the rest, which later Pythons refuse to do with itertools.count
        self.on_the_way = []

    def carry(self, packets, now, *, to_relay):
        """Take packets; some will arrive, in some order."""
        chance = self._random.random
        for packet in packets:
            if chance() < self.loss or len(packet) > self.mtu:
                continue
            carried = packet
            if chance() < self.corrupt:
                at = self._random.randrange(len(packet))
                carried = (
                    packet[:at] + bytes((packet[at] ^ 1 << self._random.randrange(8),)) + packet[at + 1 :]
                )
            for _ in range(2 if chance() < self.duplicate else 1):
                arrival = now + self.delay + self.jitter * chance()
                self._sent += 1
                heapq.heappush(self.on_the_way, (arrival, self._sent, to_relay, carried))

    @property
    def next_arrival(self):
        return self.on_the_way[0][0] if self.on_the_way else NEVER

    def arrived(self, now):
        """Return what has arrived by now, as (for the relay, for the client)."""
        for_relay, for_client = [], []
        while self.next_arrival <= now:
            _, _, to_relay, packet = heapq.heappop(self.on_the_way)
            (for_relay if to_relay else for_client).append(packet)
        return for_relay, for_client


class TalkativeQuicConnection(ClientQuicConnection):
    """A client that says more in its transport parameters than aioquic does."""

    more_parameters = b""

    def _serialize_transport_parameters(self):
        return super()._serialize_transport_parameters() + self.more_parameters

    def _replenish_connection_ids(self):
        if self.configuration.connection_id_length:  # else there are none to be given
            super()._replenish_connection_ids()


class Pair:
    """A client and the relay's connection for it, with a network between them."""

    def __init__(
        self,
        *,
        cipher=CipherSuite.AES_128_GCM_SHA256,
        stock=False,
        versions=None,
        parameters=b"",
        congestion=BBR,
        ack_delay_exponent=3,
        **configured,
    ):
        """``parameters``: what the client says in its transport parameters beside aioquic's, encoded.

        ``configured``: further fields of the client's configuration.
        """
        configuration = client_configuration(cipher_suites=[cipher], **configured)
        if versions is not None:
            configuration.supported_versions = list(versions)
        quic = TalkativeQuicConnection(configuration=configuration)
        quic.more_parameters = parameters
        quic._local_ack_delay_exponent = ack_delay_exponent
        self.client = Client(quic)
        quic.connect(RELAY_ADDRESS, now=START)
        original = quic.original_destination_connection_id
        host = Host()
        relay_quic = RelayQuicConnection(relay_configuration(congestion), original)
        connection: Any = PairConnection(relay_quic, host, CLIENT_ADDRESS, START)
        connection.stock = stock
        self.relay: Any = Relay(host, connection)
        host.add_connection_id(relay_quic.host_cid, self.relay.connection)
        self.now = START
        self.address = CLIENT_ADDRESS
        self.network = Network()

    @classmethod
    def established(cls, **options):
        """Return a pair whose session stands and where nothing is left to be said."""
        pair = cls(**options)
        pair.settle()
        pair.request()
        pair.settle()
        assert pair.client.status == b"200"
        return pair

    def request(self):
        """Ask for a session; return the stream's number."""
        client = self.client
        stream = client.quic.get_next_available_stream_id()
        headers = [
            (b":method", b"CONNECT"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":authority", b"vm.test"),
            (b":path", b"/?encap=raw"),
        ]
        client.h3.send_headers(stream, headers)
        return stream

    def fork(self, *, stock=False):
        """Return a copy that shares keys but no state: the same packets mean the same to both."""
        assert self.relay.connection.stock, "fork before the path is opened"
        copied = copy.deepcopy(self)
        # Said again, for a copy of a compiled class has only its own fields.
        copied.relay.connection.stock = stock
        if not stock:
            copied.relay.flush()
            assert copied.relay.connection._path is not None
        return copied

    def client_sends(self):
        """Put on the way what the client has to send."""
        self.network.carry(self.client.packets(self.now), self.now, to_relay=True)

    def relay_sends(self, sent):
        """Put on the way what the relay has sent to where the client is."""
        packets = [packet for packet, address in sent if address == self.address]
        self.network.carry(packets, self.now, to_relay=False)

    def settle(self, seconds=0.2):
        """Let ``seconds`` pass: packets arrive when they do, timers run when they are due."""
        client, relay = self.client, self.relay
        end = self.now + seconds
        self.client_sends()
        if relay.host.dirty:
            self.relay_sends(relay.flush())
        in_vain = 0
        while True:
            timer = client.quic.get_timer()
            next_now = min(self.network.next_arrival, relay.due, NEVER if timer is None else timer)
            if next_now > end:
                break
            in_vain = in_vain + 1 if next_now <= self.now else 0
            assert in_vain < MOST_TURNS_AT_ONCE, "packets and timers go on without time passing"
            self.now = max(self.now, next_now + LATE)
            for_relay, for_client = self.network.arrived(self.now)
            if for_client:
                client.receive(for_client, self.now)
            if timer is not None and timer <= self.now:
                client.quic.handle_timer(self.now)
                client.receive([], self.now)
            self.client_sends()
            if for_relay:
                self.relay_sends(relay.receive(*for_relay, address=self.address, now=self.now))
            self.relay_sends(relay.pass_time(self.now - relay.host.now))
        self.now = max(self.now, end)
        self.relay_sends(relay.pass_time(self.now - relay.host.now))


def client_configuration(**options):
    """A client's configuration that accepts any certificate."""
    return QuicConfiguration(
        congestion_control_algorithm=BBR,
        alpn_protocols=H3_ALPN,
        is_client=True,
        verify_mode=ssl.CERT_NONE,
        **{"max_datagram_frame_size": 65536, **options},
    )


def relay_configuration(congestion=BBR):
    """The endpoint's configuration as far as the connection sees it."""
    certificate = CERTIFICATES.current
    return QuicConfiguration(
        congestion_control_algorithm=congestion,
        is_client=False,
        alpn_protocols=["h3"],
        cipher_suites=[
            CipherSuite.AES_128_GCM_SHA256,
            CipherSuite.AES_256_GCM_SHA384,
            CipherSuite.CHACHA20_POLY1305_SHA256,
        ],
        connection_id_length=CONNECTION_ID_LENGTH,
        idle_timeout=180.0,
        max_data=64 * 1024,
        max_stream_data=64 * 1024,
        max_datagram_frame_size=65535,
        certificate=certificate.leaf,
        certificate_chain=list(certificate.chain[1:]),
        private_key=certificate.private_key,
    )


class Forge:
    """Writes 1-RTT packets of any content and number in a client's name."""

    def __init__(self, client):
        quic = client.quic
        self._pair = quic._cryptos[Epoch.ONE_RTT]
        self.cid = quic._peer_cid.cid
        self.number = quic._packet_number

    def packet(self, plain, *, number=None, flags=0x40, number_size=2, cid=None):
        """Return a packet; without a number it takes the next."""
        if number is None:
            number = self.number
            self.number += 1
        send = self._pair.send
        head = bytes((flags | send.key_phase << 2 | number_size - 1,)) + (cid or self.cid)
        head += (number & (1 << 8 * number_size) - 1).to_bytes(number_size, "big")
        return send.encrypt_packet(head, plain.ljust(4 - number_size + 4, b"\0"), number)

    def datagram(self, data, **options):
        return self.packet(datagram_frame(data), **options)

    def update_keys(self):
        """Begin the next key phase, as a client does."""
        self._pair._update_key("test")


def datagram_frame(data, prefix=PREFIX):
    return b"\x31" + encode_uint_var(len(prefix) + len(data)) + prefix + data


def close_capsule_frame(code, reason, stream=0, offset=None):
    """STREAM frame with an HTTP/3 DATA frame that closes the session."""
    capsule = webtransport.encode_close_capsule(code, reason)
    data = b"\0" + encode_uint_var(len(capsule)) + capsule
    return b"\x0e" + encode_uint_var(stream) + encode_uint_var(offset) + encode_uint_var(len(data)) + data

"""The fast way for a session's datagrams, beside aioquic on the same connection.

Most packets of a relay carry nothing but DATAGRAM and ACK frames. Those are opened and sealed here, in
batches and without an object per packet; every other packet, and every packet that this path cannot open or
read, is handed to aioquic untouched. Both work on one state (``aioquic_one_rtt.OneRttState``), so either
can take the next packet.

Limits: at most what congestion control allows is in flight, and MOST_IN_FLIGHT; what waits is in the
session's bounded queue; the ledger holds no more than what is in flight.
"""

from __future__ import annotations

from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from mypy_extensions import mypyc_attr

from actors.descriptions import PathState
from transport.quic import frames
from transport.quic.frames import read_frames, write_varint
from transport.quic.ledger import Ledger
from transport.quic.path_mtu import CEILING, NEVER, PathMtu
from transport.quic.sent_contents import SentContents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netstack.counters import Counters
    from transport.quic.aioquic_one_rtt import OneRttState
    from transport.quic.frames import Ack
    from transport.quic.ledger import SentPacket
    from transport.quic.packet_keys import PacketKeys
    from transport.quic.session import DatagramQueue
    from transport.quic.udp import Address

CONNECTION_ID_END: Final = 9
"""Short header: flags, then our connection ID of 8 bytes, then the packet number (RFC 9000, 17.3.1)."""
SHORTEST: Final = CONNECTION_ID_END + 4 + 16
"""Bytes that a packet needs for header protection to have its sample."""
TAG: Final = 16
"""Bytes of the AEAD's tag."""
EXPECTED_FLAGS: Final = 0xDC
"""Flags that must be as expected: short header, fixed bit, two reserved bits that are zero, key phase.

The spin bit is ignored, and sent as zero, which is a way to disable it (RFC 9000, 17.4).
"""
FIXED: Final = 0x40
ACK_DELAY: Final = 0.002
"""Seconds that a lone packet's acknowledgement waits for a second one or for a datagram to ride on."""
ACK_EVERY: Final = 2
"""Ack-eliciting packets after which an acknowledgement leaves at once (RFC 9000, 13.2.2)."""
ACKS_REMEMBERED: Final = 64
"""Sent acknowledgements whose arrival lets old ranges be forgotten; only kept while packets are missing."""
SHORT_NUMBER_DISTANCE: Final = 1 << 14
"""Unacknowledged packets up to which two bytes of packet number are plenty (RFC 9000, 17.1)."""

MOST_ARRIVED: Final = 256
"""Datagrams of a session that are taken before its actor is told; it works on them for some milliseconds."""

PING_EVERY: Final = 8
"""While packets are missing, each eighth packet that only acknowledges also asks to be acknowledged."""
MAX_FRAME_HEAD: Final = 3
"""Bytes of a DATAGRAM frame's type and length, for any length that fits a packet."""
LARGEST_OVERHEAD: Final = 1 + 20 + 4 + TAG + MAX_FRAME_HEAD + 8
"""Bytes of a packet around one datagram at most: flags, connection ID, number, tag, frame, prefix."""

_PING: Final = bytes((frames.PING,))
_BYTES: Final = [bytes((value,)) for value in range(0x100)]
_SEND_MASKS: Final = {2: Struct(">BH13x"), 4: Struct(">BI11x")}
_NUMBER_MASKS: Final = {2: 0xFFFF, 4: 0xFFFFFFFF}


@mypyc_attr(serializable=True)
class DatagramPath:
    """Sends and receives the datagrams of one session."""

    def __init__(
        self,
        state: OneRttState,
        prefix: bytes,
        hand_over: Callable[[bytes, Address, float], None],
        counters: Counters,
    ) -> None:
        """``prefix`` starts every datagram of the session; ``hand_over`` gives a packet to aioquic."""
        self.mtu = PathMtu(state.packet_limit)
        """The search for the packet size that the path takes; ``mtu.size`` bytes are used."""
        self.loss_at: float | None = None
        self.usable = False
        """Whether the connection is alive and on a validated path; only aioquic changes that."""
        self.address: Address = ()
        """Where the client is."""
        self.last_received = 0.0
        """When the last packet arrived that this path took."""
        self.aioquic_has_news = False
        """Whether aioquic may have something to send because of what this path told it."""
        self.send_at = NEVER
        """When what waits may leave, if pacing is what holds it back."""
        self.reports_losses = False
        """Whether ``lost`` is kept; the owner then has to empty it."""
        self.lost: list[tuple[bytes, float]] = []
        """Datagrams of the session that were lost, with the times at which they left."""
        self._packets_lost = 0
        self._contents = SentContents()
        self._state = state
        self._congestion = state.congestion
        self._prefix = prefix
        self._hand_over = hand_over
        self._counters = counters
        self._ledger = Ledger()
        self._probe: tuple[int, int] | None = None
        self._unacknowledged = 0
        self._acks_sent: dict[int, int] = {}
        self._frame_heads: dict[int, bytes] = {}
        self._own_cid = self._peer_cid = b""
        self._key_phase = -1
        self._receive_keys: PacketKeys = state.receive_keys()
        self._send_keys: PacketKeys = state.send_keys()
        self.refresh()

    def state(self) -> PathState:
        """Tell how the packets fare."""
        state = self._state
        return PathState("webtransport", state.smoothed_round_trip, state.next_number, self._packets_lost)

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, packets: Sequence[bytes], address: Address, now: float, arrived: list[bytes]) -> int:
        """Take packets of one sender in order; append the session's datagrams to ``arrived``.

        Returns how many were taken, at least one: after each that is for aioquic, which may cost much, the
        caller decides whether there is time for more.
        """
        state = self._state
        if not self.usable or address != self.address or min(map(len, packets)) < SHORTEST:
            self._give_to_aioquic(packets[0], address, now)
            return 1
        expected_flags = FIXED | self._key_phase << 2
        expected = state.expected_number
        largest = state.largest_received
        crypt, iv = self._receive_keys.crypt, self._receive_keys.iv
        prefix, own_cid = self._prefix, self._own_cid
        skip = 3 + len(prefix)
        numbers: list[int] = []
        previous = -1
        in_order = True
        eliciting = first = 0
        masks = self._receive_keys.receive_masks(packets, CONNECTION_ID_END)
        for index, (packet, (flags_mask, number_mask)) in enumerate(zip(packets, masks, strict=True)):
            first = packet[0] ^ (flags_mask & 0x1F)
            size = (first & 3) + 1
            bits = size * 8
            truncated = (int.from_bytes(packet[9:13], "big") ^ number_mask) >> (32 - bits)
            # RFC 9000, A.3: the number nearest to what is expected that ends in these bits.
            number = (expected & -(1 << bits)) | truncated
            if number <= expected - (1 << bits - 1):
                number += 1 << bits
            elif number > expected + (1 << bits - 1) and number >= 1 << bits:
                number -= 1 << bits
            elicits = None
            if first & EXPECTED_FLAGS == expected_flags:
                try:
                    plain = crypt(
                        (iv ^ number).to_bytes(12, "big"),
                        packet[9 + size :],
                        _BYTES[first] + own_cid + truncated.to_bytes(size, "big"),
                    )
                except InvalidTag:
                    plain = b""
                if plain and number <= largest and (number in numbers or state.was_received(number)):
                    self._counters.add("path.drop.duplicate")
                    continue
                length = len(plain)
                if (
                    length > 3
                    and plain[0] == frames.DATAGRAM_WITH_LENGTH
                    and (plain[1] << 8 | plain[2]) ^ 0x4000 == length - 3
                    and plain.startswith(prefix, 3)
                ):
                    # The common case: one datagram of this session and nothing else.
                    arrived.append(plain[skip:])
                    elicits = True
                elif length:
                    elicits = self._read(plain, now, arrived)
            if elicits is None:
                if numbers:
                    self._note_received(numbers, in_order, eliciting, now)
                self._give_to_aioquic(packet, address, now)
                return index + 1
            eliciting += elicits
            if number != previous + 1 and numbers:
                in_order = False
            previous = number
            if number > largest:
                largest = number
                expected = number + 1
            numbers.append(number)
            if len(arrived) >= MOST_ARRIVED:
                break
        if numbers:
            self._note_received(numbers, in_order, eliciting, now)
        return index + 1

    def _note_received(self, numbers: list[int], in_order: bool, eliciting: int, now: float) -> None:
        state = self._state
        self.last_received = now
        state.note_received(numbers, in_order=in_order, now=now)
        if eliciting:
            self._unacknowledged += eliciting
            state.ack_within(0.0 if self._unacknowledged >= ACK_EVERY else ACK_DELAY, now)

    def _read(self, plain: bytes, now: float, arrived: list[bytes]) -> bool | None:
        """Act on a packet's frames; return whether they elicit an ACK, or None to leave it to aioquic."""
        read = read_frames(plain)
        if read is None:
            return None
        prefix = self._prefix
        next_number = self._state.next_number
        if any(ack.ranges[0][1] >= next_number for ack in read.acks) or not all(
            datagram.startswith(prefix) for datagram in read.datagrams
        ):
            # An acknowledgement of what was never sent; a datagram of another stream, of none, or of this
            # one in a longer encoding.
            return None
        arrived += [datagram[len(prefix) :] for datagram in read.datagrams]
        for ack in read.acks:
            self.aioquic_has_news |= self._state.forward_ack(ack, now)
            self.on_ack(ack, now)
        return read.ack_eliciting

    def _give_to_aioquic(self, packet: bytes, address: Address, now: float) -> None:
        self._state.complete_duplicate_filter()
        self._hand_over(packet, address, now)
        self.refresh()

    def refresh(self) -> None:
        """Look again at what only aioquic changes: keys, connection IDs, address, state."""
        state = self._state
        self.usable = state.usable
        if not self.usable:
            return
        if state.address != self.address:
            if self.address and state.address[0] != self.address[0]:
                self._leave_path()
            self.address = state.address
            self.mtu, self._probe = PathMtu(state.packet_limit), None
        if state.receive_secret != self._receive_keys.secret:
            self._receive_keys = state.receive_keys()
        if state.send_secret != self._send_keys.secret:
            self._send_keys = state.send_keys()
        self._own_cid, self._peer_cid, self._key_phase = state.own_cid, state.peer_cid, state.key_phase

    def _leave_path(self) -> None:
        """Begin anew: the other side is at another address, not only at another port (RFC 9000, 9.4).

        What is on its way to the former address nobody waits for there any more.
        """
        packets = self._ledger.write_off_all()
        for packet in packets:
            self._state.note_expired(packet)
        self._report(packets)
        self.loss_at = None
        self._state.begin_path()
        self._congestion = self._state.congestion

    # -- acknowledgements of ours -----------------------------------------------------------------

    def on_ack(self, ack: Ack, now: float) -> None:
        """Take an ACK frame, whoever read it."""
        acknowledged = self._ledger.acknowledge(ack.ranges)
        if acknowledged is not None:
            self._state.note_acknowledged(acknowledged, ack, now)
            self.mtu.packets_acknowledged(acknowledged.largest_size)
            if self._probe is not None and self._probe[0] not in self._ledger.sent:
                self.mtu.probe_acknowledged(self._probe[1], now)
                self._probe = None
        if self._acks_sent:
            self._forget_acknowledged_acks(ack)
        if self._ledger.sent:
            self.detect_lost(now)
        else:
            self.loss_at = None
        if self.reports_losses:
            self._contents.forget_before(next(iter(self._ledger.sent), self._state.next_number))

    def _forget_acknowledged_acks(self, ack: Ack) -> None:
        for number, largest in list(self._acks_sent.items()):
            if any(low <= number <= high for low, high in ack.ranges):
                del self._acks_sent[number]
                self._state.ack_was_received(largest)

    def detect_lost(self, now: float) -> None:
        """Take packets as lost that were overtaken by enough others or long enough ago."""
        lost, self.loss_at = self._ledger.detect_lost(now, self._state.round_trip)
        if not lost:
            return
        if self._probe is not None and lost[0].packet_number <= self._probe[0] <= lost[-1].packet_number:
            number, size = self._probe
            self._probe = None
            self.mtu.probe_lost(size, now)
            probe = next(packet for packet in lost if packet.packet_number == number)
            self._state.note_expired(probe)
            lost.remove(probe)
        if lost:
            self._counters.add("path.lost_packets", len(lost))
            self._packets_lost += len(lost)
            self._state.note_lost(lost, now)
            for packet in lost:
                self._note_narrowed(packet, now)
            self._report(lost)

    def _report(self, lost: Sequence[SentPacket]) -> None:
        """Keep what was in lost packets for the owner to tell."""
        if not self.reports_losses:
            return
        prefix = self._prefix
        for packet in lost:
            read = read_frames(self._contents.of(packet.packet_number))
            if read is not None:
                self.lost += [
                    (datagram[len(prefix) :], packet.sent_time)
                    for datagram in read.datagrams
                    if datagram.startswith(prefix)
                ]

    def _note_narrowed(self, lost: SentPacket, now: float) -> None:
        if self.mtu.packet_lost(lost.sent_bytes, now):
            self._counters.add("path.narrowed")

    def probe_is_due(self, now: float) -> bool:
        """Whether acknowledgements have failed to come for so long that aioquic should ask for one."""
        return bool(self._ledger.sent) and self._state.probe_at <= now

    def write_off_oldest(self, now: float) -> None:
        """Take the oldest packet as lost, without blaming congestion, as aioquic does at a probe timeout.

        Otherwise packets that nobody will ever acknowledge could fill the window for good, and then a client
        that has moved could not even be asked whether it is where its packets come from.
        """
        packet = self._ledger.write_off_oldest()
        if self._probe is not None and packet.packet_number == self._probe[0]:
            self.mtu.probe_unanswered(now)
            self._probe = None
        else:
            self._note_narrowed(packet, now)
        self._state.note_expired(packet)
        self._counters.add("path.written_off")
        self._report((packet,))

    def before_aioquic_sends(self) -> None:
        """Give aioquic's pacer the round-trip time that this path has measured."""
        self._state.update_pacer()

    def deadline(self) -> float:
        """No later than this something of this path or of aioquic's recovery is due; cheap to ask."""
        state = self._state
        due = min(state.ack_at or NEVER, self.send_at)
        if self._ledger.sent:
            due = min(due, state.probe_at, self.loss_at or NEVER)
        return due if self.usable else NEVER

    # -- sending ----------------------------------------------------------------------------------

    def flush(self, queue: DatagramQueue, now: float) -> list[bytes]:
        """Return the packets to send now: waiting datagrams as far as allowed, and a due acknowledgement."""
        state, congestion = self._state, self._congestion
        congestion.update(now)
        self.send_at = NEVER
        pacer = congestion.pacer
        ack_at, window, budget = state.ack_at, congestion.window, 0
        if queue.items and window > 0 and self.usable:
            budget = min(window, pacer.allowance(now))
        packets: list[bytes] = []
        if self.usable and (budget > 0 or (ack_at is not None and ack_at <= now)):
            packets = self._send(queue, ack_at is not None, budget, now)
            if packets and now >= self.mtu.next_at and window > CEILING:
                packets += self._send_probe(now)
        pacer.waiting = False
        if not queue.items:
            congestion.note_app_limited()
        elif window > 0 and self.usable:
            queue.fit_room(pacer.rate)
            waiting = queue.bytes + len(queue) * LARGEST_OVERHEAD
            self.send_at = pacer.ready_at(now, waiting)
            pacer.waiting = self.send_at < NEVER
        return packets

    def _send(self, queue: DatagramQueue, acknowledge: bool, budget: int, now: float) -> list[bytes]:
        """Seal an acknowledgement, if there is one to send, and waiting datagrams up to ``budget`` bytes."""
        state = self._state
        first = state.next_number
        number_size = self._number_size(first)
        ack = self._write_ack(first, now) if acknowledge else b""
        if budget > 0:
            overhead = 1 + len(self._peer_cid) + number_size + TAG
            plains = self._fill(queue, ack, self.mtu.size - overhead, budget, now)
        else:
            plains = [ack]
        if not plains:
            return []
        ack_only = plains[0] is ack
        if ack_only and state.ack_range_count > 1 and first % PING_EVERY == 0:
            plains[0] += _PING
            ack_only = False
        packets = self._seal(plains, first, number_size)
        state.note_sent(len(packets), sum(map(len, packets)))
        # A packet of nothing but an ACK is not acknowledged itself, nor counted as in flight.
        in_flight = packets[1:] if ack_only else packets
        if in_flight:
            if self.reports_losses:
                self._contents.add(first, plains)
            self._note_in_flight(first + ack_only, in_flight, now)
        return packets

    def _note_in_flight(self, first: int, packets: Sequence[bytes], now: float) -> None:
        congestion = self._congestion
        flight = congestion.flight(now)
        size = self._ledger.add(first, packets, flight)
        self._state.note_in_flight(len(packets), size, flight, now)
        congestion.pacer.spend(size)

    def _number_size(self, number: int) -> int:
        return 2 if number - self._ledger.largest_acked < SHORT_NUMBER_DISTANCE else 4

    def _send_probe(self, now: float) -> list[bytes]:
        """Return a packet of PING and PADDING that asks whether the path takes its size."""
        state = self._state
        size = self.mtu.probe(now)
        number = state.next_number
        number_size = self._number_size(number)
        plain = _PING + bytes(size - (1 + len(self._peer_cid) + number_size + TAG) - 1)
        packets = self._seal([plain], number, number_size)
        state.note_sent(1, size)
        self._note_in_flight(number, packets, now)
        self._probe = (number, size)
        return packets

    def _write_ack(self, number: int, now: float) -> bytes:
        state = self._state
        self._unacknowledged = 0
        ranges = state.ack_range_count
        ack = state.write_ack(now)
        if ranges > 1:
            # Packets are missing: learn when the client has seen this ACK, so that the list can be cut.
            if len(self._acks_sent) >= ACKS_REMEMBERED:
                del self._acks_sent[next(iter(self._acks_sent))]
            self._acks_sent[number] = state.largest_received
        return ack

    def _fill(self, queue: DatagramQueue, start: bytes, room: int, window: int, now: float) -> list[bytes]:
        """Take datagrams off the queue into packets, the first of which begins with ``start``.

        Those that were made for a larger packet size than the path has by now are lost.
        """
        heads = self._frame_heads
        overhead = self.mtu.size - room
        most = min(room, self._state.datagram_limit) - MAX_FRAME_HEAD - len(self._prefix)
        if queue.bytes + len(queue) * (overhead + MAX_FRAME_HEAD) <= window:
            datagrams = queue.take_all()
        else:
            datagrams = queue.take(window, overhead + MAX_FRAME_HEAD)
        plains = []
        current = start
        for datagram in datagrams:
            length = len(datagram)
            if length > most:
                self._counters.add("session.drop.too_big")
                if self.reports_losses:
                    self.lost.append((datagram, now))
                continue
            frame = (heads.get(length) or self._frame_head(length)) + datagram
            if not current:
                current = frame
            elif len(current) + len(frame) <= room:
                current += frame
            else:
                plains.append(current)
                current = frame
        if current:
            plains.append(current)
        return plains

    def _frame_head(self, length: int) -> bytes:
        """DATAGRAM frame type, length and the session's prefix; kept by length, of which there are few."""
        head = bytes((frames.DATAGRAM_WITH_LENGTH,)) + write_varint(len(self._prefix) + length) + self._prefix
        self._frame_heads[length] = head
        return head

    def _seal(self, plains: list[bytes], first: int, number_size: int) -> list[bytes]:
        """Protect payloads as packets ``first``, ``first + 1``, … with numbers of 2 or 4 bytes."""
        keys = self._send_keys
        crypt, iv, cid = keys.crypt, keys.iv, self._peer_cid
        flags = FIXED | self._key_phase << 2 | number_size - 1
        header = _BYTES[flags] + cid
        low = _NUMBER_MASKS[number_size]
        sealed = [
            crypt(
                (iv ^ number).to_bytes(12, "big"), plain, header + (number & low).to_bytes(number_size, "big")
            )
            for number, plain in enumerate(plains, first)
        ]
        # The sample starts four bytes after the start of the number, whatever its size (RFC 9001, 5.4.2).
        start = 4 - number_size
        masks = _SEND_MASKS[number_size].iter_unpack(
            keys.mask(b"".join([payload[start : start + 16] for payload in sealed]))
        )
        return [
            _BYTES[flags ^ flags_mask & 0x1F]
            + cid
            + ((number & low) ^ number_mask).to_bytes(number_size, "big")
            + payload
            for number, payload, (flags_mask, number_mask) in zip(count(first), sealed, masks, strict=False)
        ]

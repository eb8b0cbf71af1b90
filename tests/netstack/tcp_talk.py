"""Conversations with a TCP connection, written as packetdrill does: what the guest sends, what it must get.

    >> S 0 mss 1000 sackok        the guest sends; numbers count from each side's first, S takes number 0
    << SA 0 ack 1 mss 1360        the next frame that the guest gets; only what is written is compared
    << nothing                    and no other
    open [OPTIONS]                the guest's SYN with these options, the SYN-ACK and its ACK
    host writes 3000 | host ends | host resets | host takes 100 | host is slow | host has room 5000
    wait 0.3                      time passes; what falls due on the way is sent when it is due
    state ESTABLISHED | window 5000 | abort | connect | ended RESET

Data are a pattern by position, so that every byte is known wherever it turns up.
"""

from __future__ import annotations

from netstack.tcp_connection import Offer, TcpConnection
from netstack.tcp_segment import (
    SynOptions,
    TcpFrameTemplate,
    encode_sack,
    encode_syn_options,
    parse_sack,
    parse_syn_options,
    read_tcp,
)

GUEST_MAC, GATEWAY_MAC = bytes.fromhex("5254000000aa"), bytes.fromhex("525400123456")
REMOTE, GUEST = bytes((192, 0, 2, 80)), bytes((10, 0, 2, 15))
TO_GUEST = TcpFrameTemplate(GUEST_MAC + GATEWAY_MAC, REMOTE, 80, GUEST, 40000)
FROM_GUEST = TcpFrameTemplate(GATEWAY_MAC + GUEST_MAC, GUEST, 40000, REMOTE, 80)
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, ".": 16}
PUSH = 8
PATTERN = bytes(i * 7 % 251 for i in range(251 * 4))
ROOM = 256 * 1024


def data(position, length):
    """Bytes of the stream from ``position`` (the first byte after SYN is 1)."""
    start = (position - 1) % 251
    repeats = (start + length) // len(PATTERN) + 1
    return (PATTERN * repeats)[start : start + length]


class Talk:
    def __init__(self, *, first=0xFFFF_FF00, guest_first=0xFFFF_FFF0, mss=1360, now=1000.0):
        """Both first numbers are near their wrap on purpose."""
        self.now = now
        self.first = first
        self.guest_first = guest_first
        self.connection = TcpConnection(TO_GUEST, first, Offer(mss, ROOM), now)
        self.out = []
        self.slow = False
        self.room = ROOM
        self.host_wrote = 0
        self.host_got = b""

    # -- the script -----------------------------------------------------------------------------------

    def play(self, script):
        for number, raw in enumerate(script.strip().splitlines(), 1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            try:
                self.step(line)
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line}\n{error}") from None

    def step(self, line):
        word, _, rest = line.partition(" ")
        match word:
            case ">>":
                self.send(rest)
            case "<<":
                self.expect(rest)
            case "open":
                self.step(f">> S 0 win 65535 {rest}")
                self.step("<< SA 0 ack 1")
                self.step(">> A 1 ack 1 win 65535")
                self.step("<< nothing")
            case "connect":
                self.connection.connect(self.now)
                self.pump()
            case "host":
                self.host(rest.split())
            case "wait":
                self.wait(float(rest))
            case "state":
                assert self.connection.state.name == rest, self.connection.state
            case "ended":
                assert self.connection.ending.name == rest, self.connection.ending
            case "window":
                assert self.connection.window_left == int(rest), self.connection.window_left
            case "abort":
                self.connection.abort()
                self.pump()
            case _:
                raise ValueError(line)

    def send(self, text):
        """One or more segments, ``|`` between them, that arrive in one turn."""
        segments = [read_tcp(self.build(part)) for part in text.split("|")]
        if self.connection.state.name == "CLOSED" and self.connection.ending is None:
            self.connection.accept(segments[0], self.now)
        else:
            self.connection.process(segments, self.now)
        self.pump()

    def build(self, text):
        flags, sequence, *fields = text.split()
        sequence, _, length = sequence.partition(":")
        sequence = int(sequence)
        options = dict(zip(fields[::2], fields[1::2], strict=False))
        if "sackok" in fields:
            at = fields.index("sackok")
            fields = fields[:at] + fields[at + 1 :]
            options = dict(zip(fields[::2], fields[1::2], strict=True)) | {"sackok": True}
        packed = b""
        if "S" in flags:
            offer = SynOptions(
                int(options.get("mss", 1000)),
                int(options["ws"]) if "ws" in options else None,
                "sackok" in options,
            )
            packed = encode_syn_options(offer)
        if "sack" in options:
            blocks = [tuple(int(n) for n in block.split("-")) for block in options["sack"].split(",")]
            packed = encode_sack([tuple(self.first + n & 0xFFFFFFFF for n in block) for block in blocks])
        bits = sum(FLAGS[letter] for letter in flags)
        acknowledges = bits & 16
        return FROM_GUEST.build(
            self.guest_first + sequence & 0xFFFFFFFF,
            self.first + int(options.get("ack", 0)) & 0xFFFFFFFF if acknowledges else 0,
            bits,
            int(options.get("win", 65535)),
            data(sequence, int(length or 0)),
            options=packed,
        )

    def expect(self, text):
        if text == "nothing":
            assert not self.out, f"got {self.describe(self.out[0])}"
            return
        assert self.out, "nothing came"
        frame = self.out.pop(0)
        segment = read_tcp(frame)
        said = self.describe(frame)
        flags, sequence, *fields = text.split()
        sequence, _, length = sequence.partition(":")
        wanted = sum(FLAGS[letter] for letter in flags)
        assert segment.flags & ~PUSH == wanted & ~PUSH, said
        assert segment.sequence - self.first & 0xFFFFFFFF == int(sequence) & 0xFFFFFFFF, said
        assert len(segment.payload) == int(length or 0), said
        if not wanted & 2:
            assert segment.payload == data(int(sequence), int(length or 0)), "other bytes"
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        offered = parse_syn_options(segment.options)
        for name, value in pairs.items():
            match name:
                case "ack":
                    acknowledged = segment.acknowledgment - self.guest_first & 0xFFFFFFFF
                    assert acknowledged == int(value), said
                case "win":
                    assert segment.window == int(value), said
                case "mss":
                    assert offered.mss == int(value), said
                case "ws":
                    assert offered.window_shift == (None if value == "none" else int(value)), said
                case "sackok":
                    assert offered.sack == (value == "yes"), said
                case "sack":
                    assert self.sack_text(segment) == value, said
                case _:
                    raise ValueError(name)

    def sack_text(self, segment):
        blocks = [
            f"{low - self.guest_first & 0xFFFFFFFF}-{high - self.guest_first & 0xFFFFFFFF}"
            for low, high in parse_sack(segment.options)
        ]
        return ",".join(blocks) or "none"

    def describe(self, frame):
        segment = read_tcp(frame)
        letters = "".join(letter for letter, bit in FLAGS.items() if segment.flags & bit and letter != ".")
        return (
            f"<< {letters} {segment.sequence - self.first & 0xFFFFFFFF}:{len(segment.payload)}"
            f" ack {segment.acknowledgment - self.guest_first & 0xFFFFFFFF} win {segment.window}"
            f" sack {self.sack_text(segment)}"
        )

    # -- the host ---------------------------------------------------------------------------------------

    def host(self, words):
        match words:
            case ["writes", count]:
                self.write(int(count))
            case ["ends"]:
                self.connection.finish()
            case ["resets"]:
                self.connection.reset_after_data()
            case ["is", "slow"]:
                self.slow = True
            case ["is", "fast"]:
                self.slow = False
            case ["has", "room", room]:
                self.room = int(room)
                self.connection.host_took(0, self.room)
            case ["takes", count]:
                self.take(int(count))
            case ["got", count]:
                assert len(self.host_got) == int(count), len(self.host_got)
                assert self.host_got == data(1, int(count)), "other bytes"
            case _:
                raise ValueError(words)
        self.pump()

    def write(self, count):
        """Write as far as there is room; the rest waits outside, as in a host's socket."""
        self.connection.write(data(1 + self.host_wrote, count))
        self.host_wrote += count

    def take(self, count):
        self.host_got += b"".join(self.connection.received)[:count]
        self.connection.host_took(count, self.room)

    def pump(self):
        connection = self.connection
        if not self.slow and connection.received:
            self.take(sum(map(len, connection.received)))
        self.out += connection.dispatch(self.now)

    def wait(self, seconds):
        end = self.now + seconds
        while self.connection.poll_at <= end:
            due = self.connection.poll_at
            # Never stuck: what is due now is done by one dispatch.
            self.now = max(self.now, due)
            self.pump()
            assert self.connection.poll_at > due, "a timer that does not move"
        self.now = end
        self.pump()

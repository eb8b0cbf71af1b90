"""How a worker that carries a session, and the one that holds its port, talk: messages as bytes.

They have the head of all messages between workers (``netstack.room_wire``), of kind CARRIED; then what they
are, and the session's number, which no two sessions of a machine share. The *carrier* has the client's
connection; the *holder* has the port. What is not exactly of a message's shape is a MalformedPacket.

Datagrams go in batches: each has its length before it, in two bytes. A batch from the holder tells the sum
of all bytes that the holder has sent for the session, those of the batch included; the carrier tells which
sum it has seen last. So what got lost between them is not taken for waiting.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.malformed import MalformedPacket
from netstack.room_wire import MAX_MESSAGE, Reader, pack_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_DATAGRAM: Final = MAX_MESSAGE - 64
"""Bytes of the longest datagram that fits one message."""

MAX_CODE: Final = 0xFFFF_FFFF
"""The highest code of an end; stands for the higher ones that a client may give (QUIC has 62 bits)."""

MAX_REASON: Final = 255
"""Bytes of why a session ended."""

_KEY = Struct("!BQ")
_STATE = Struct("!QIIHddqq")
_TOTAL = Struct("!Q")
_TIME = Struct("!d")
_END = Struct("!I?")
_LENGTH = 2
_UNKNOWN = -1
"""Stands for a number that is not known; none of them is negative."""


class Part(IntEnum):
    """What a message is; those up to ENDED are the carrier's."""

    OPEN = 1
    STATE = 2
    UP = 3
    LOST = 4
    ENDED = 5
    DOWN = 6
    CLOSE = 7


class State(NamedTuple):
    """How the client's connection is."""

    received: int
    """The sum that came with the last batch from the holder."""
    queued: int
    """Bytes that wait at the carrier."""
    room: int
    """Bytes that should wait at most; as in ``actors.ports.Session``, and so are the others."""
    datagram_limit: int
    last_heard: float
    round_trip: float | None
    packets_sent: int | None
    packets_lost: int | None
    carrier: str
    """``webtransport`` or ``websocket``."""
    remote: str


class Open(NamedTuple):
    """Here is a session whose client had a port of yours, in this room; ``terms`` are not read here."""

    room: str
    state: State
    terms: bytes


class Up(NamedTuple):
    """Datagrams from the client."""

    datagrams: list[bytes]


class Lost(NamedTuple):
    """Datagrams to the client that QUIC takes as lost, each with the monotonic time at which it left."""

    datagrams: list[tuple[bytes, float]]


class Ended(NamedTuple):
    """The client's connection is gone; ``lost``: the client may come back."""

    code: int
    reason: str
    lost: bool


class Down(NamedTuple):
    """Datagrams to the client; a batch of none says that the holder has the session, and repeats the sum."""

    total: int
    datagrams: list[bytes]


class Close(NamedTuple):
    """Close the session, with this code and reason for its client."""

    code: int
    reason: str


Message = Open | State | Up | Lost | Ended | Down | Close


def batches(datagrams: Sequence[bytes], extra: int = 0) -> Iterator[list[bytes]]:
    """Divide datagrams into batches of one message each; ``extra`` bytes go with each datagram.

    None may be longer than MAX_DATAGRAM.
    """
    batch: list[bytes] = []
    size = 0
    for datagram in datagrams:
        length = len(datagram) + _LENGTH + extra
        if batch and size + length > MAX_DATAGRAM:
            yield batch
            batch, size = [], 0
        batch.append(datagram)
        size += length
    if batch:
        yield batch


# -- writing: all give the body of a message, behind its head -----------------------------------------


def pack_open(number: int, opened: Open) -> bytes:
    """Write an Open."""
    return _KEY.pack(Part.OPEN, number) + pack_text(opened.room) + _pack_state(opened.state) + opened.terms


def pack_state(number: int, state: State) -> bytes:
    """Write a State."""
    return _KEY.pack(Part.STATE, number) + _pack_state(state)


def _pack_state(state: State) -> bytes:
    known = [_UNKNOWN if value is None else value for value in state[:-2]]
    return _STATE.pack(*known) + pack_text(state.carrier) + pack_text(state.remote)


def pack_up(number: int, datagrams: Sequence[bytes]) -> bytes:
    """Write an Up, of one of ``batches``."""
    return _KEY.pack(Part.UP, number) + _pack_datagrams(datagrams)


def pack_down(number: int, total: int, datagrams: Sequence[bytes]) -> bytes:
    """Write a Down, of one of ``batches``."""
    return _KEY.pack(Part.DOWN, number) + _TOTAL.pack(total) + _pack_datagrams(datagrams)


def _pack_datagrams(datagrams: Sequence[bytes]) -> bytes:
    parts = []
    for datagram in datagrams:
        parts.append(len(datagram).to_bytes(_LENGTH, "big"))
        parts.append(datagram)
    return b"".join(parts)


def pack_lost(number: int, datagrams: Sequence[tuple[bytes, float]]) -> bytes:
    """Write a Lost, as much of it as fits one message: losses are hints."""
    head = _KEY.pack(Part.LOST, number)
    fitting = next(batches([datagram for datagram, _ in datagrams], _TIME.size), [])
    times = (at for _, at in datagrams)
    parts = (
        part
        for datagram, at in zip(fitting, times, strict=False)
        for part in (_TIME.pack(at), len(datagram).to_bytes(_LENGTH, "big"), datagram)
    )
    return head + b"".join(parts)


def pack_ended(number: int, ended: Ended) -> bytes:
    """Write an Ended."""
    return (
        _KEY.pack(Part.ENDED, number)
        + _END.pack(min(ended.code, MAX_CODE), ended.lost)
        + pack_text(ended.reason, MAX_REASON)
    )


def pack_close(number: int, close: Close) -> bytes:
    """Write a Close."""
    return _KEY.pack(Part.CLOSE, number) + _END.pack(close.code, False) + pack_text(close.reason, MAX_REASON)


# -- reading ------------------------------------------------------------------------------------------


def read_carried(message: bytes) -> tuple[int, Message]:
    """Read a message, head included: the session's number, and what is said of it."""
    reader = Reader(message)
    part, number = _KEY.unpack(reader.take(_KEY.size))
    found: Message
    match part:
        case Part.OPEN:
            found = Open(reader.room(), _read_state(reader), reader.rest())
        case Part.STATE:
            found = _read_state(reader)
            reader.end()
        case Part.UP:
            found = Up(_read_datagrams(reader.rest()))
        case Part.LOST:
            found = Lost(_read_lost(reader.rest()))
        case Part.ENDED | Part.CLOSE:
            code, lost = _END.unpack(reader.take(_END.size))
            reason = reader.text(MAX_REASON)
            reader.end()
            found = Ended(code, reason, lost) if part == Part.ENDED else Close(code, reason)
        case Part.DOWN:
            (total,) = _TOTAL.unpack(reader.take(_TOTAL.size))
            found = Down(total, _read_datagrams(reader.rest()))
        case _:
            raise MalformedPacket("bad_room_message")
    return number, found


def _read_state(reader: Reader) -> State:
    known = [None if value == _UNKNOWN else value for value in _STATE.unpack(reader.take(_STATE.size))]
    return State._make((*known, reader.text(), reader.text()))


def _read_datagrams(data: bytes) -> list[bytes]:
    datagrams = []
    at, end = 0, len(data)
    while at < end:
        start = at + _LENGTH
        at = start + int.from_bytes(data[at:start], "big")
        datagrams.append(data[start:at])
    if at != end:
        raise MalformedPacket("bad_room_message")
    return datagrams


def _read_lost(data: bytes) -> list[tuple[bytes, float]]:
    datagrams = []
    at, end = 0, len(data)
    before = _TIME.size + _LENGTH
    while at + before <= end:
        (left,) = _TIME.unpack_from(data, at)
        start = at + before
        at = start + int.from_bytes(data[start - _LENGTH : start], "big")
        datagrams.append((data[start:at], left))
    if at != end:
        raise MalformedPacket("bad_room_message")
    return datagrams

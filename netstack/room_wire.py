"""How the workers of a relay tell each other who is in which room: messages as bytes.

Every message begins with a version, its kind, the sender's number and its incarnation (8, 8, 32 and 64 bits).
All numbers are unsigned and in network order. Texts have their length before them, in a byte; so have lists,
how many they are, which CHANGES and SNAPSHOT have in two. Behind the head follow, with their bits:

- HELLO: digest (64), entries (32);
- CHANGES: a list of changes: room, MAC, version (64), whether there is a binding (8), and that;
- SNAPSHOT: version (64), part (16), parts (16), a list of changes;
- ASK: token (32), MAC, room, a list of IPv4 addresses;
- GRANT: token (32), MAC, room, an IPv4 address or nothing;
- CONTEST: the challenger's MAC, room, an address;
- ABOUT: a list of URLs;
- FRAMES: stamp (32), room, and up to the end frames, each with its length (16) before it.

A binding is seq (32), port (64), flags (8), name, client, and a list of addresses, each with its length (8)
before it and since when the MAC has it (32) behind it. Whatever is not exactly of this shape is a
MalformedPacket: nothing behind the last field, no list longer than its bound.
"""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.malformed import MalformedPacket
from netstack.room_names import ROOM_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION: Final = 1

MAX_MESSAGE: Final = 60_000
"""Bytes of a message: a unix datagram takes it with the usual socket buffers, and NATS by default (1 MB)."""

MAX_CHANGES: Final = MAX_MESSAGE - 64
"""Bytes of changes in a message: its head and what stands before them have fewer than the rest."""

MAX_ADDRESSES: Final = 32
"""IPv4 addresses of one binding, and as many of IPv6: more than the gateway lets a MAC have."""

MAX_CANDIDATES: Final = 16
MAX_TEXT: Final = 64
"""Bytes of a guest's name (a DNS label has 63) and of a client's host (an IPv6 address with its scope)."""

MAX_URLS: Final = 4
"""URLs of one machine."""

MAX_URL: Final = 160
"""Bytes of each: ASCII."""

MAX_PARTS: Final = 512
"""Messages of one snapshot: 30 MB."""

_HEAD = Struct("!BBIQ")
_HELLO = Struct("!QI")
_PART = Struct("!QHHH")
_KEY = Struct("!6sQB")
_BINDING = Struct("!IQB")
MAX_SEQ: Final = 0xFFFF_FFFF
"""The highest ``seq``; who knows of one with it announces it too, and the lower number has the MAC then."""
_SINCE = Struct("!I")
_TOKEN = Struct("!I6s")
_STAMP = Struct("!I")
_URL = re.compile(r"https://[A-Za-z0-9_.:\[\]-]+", re.ASCII)
"""No path: the room is the client's."""

_MAC, _IPV4, _IPV6 = 6, 4, 16


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1
    CHANGES = 2
    SNAPSHOT = 3
    WANT = 4
    ASK = 5
    GRANT = 6
    CONTEST = 7
    ABOUT = 8
    WANTED = 9
    FRAMES = 16
    CARRIED = 17
    """Of a session that one worker carries for another (``netstack.carried_wire``)."""


class Flag(IntFlag):
    """What else is to be known of a guest."""

    SILENT = 1
    """Nothing was heard of its session for long, or it is away: whoever registers the MAC may have it."""
    NAMED_BY_TOKEN = 2
    """The session's token names the MAC."""
    GRANTED_NAME = 4
    """Its name is a token's."""
    ISOLATED = 8
    AWAY = 16
    """Its client has no session at the moment: it gives its address up when all are taken."""


class Binding(NamedTuple):
    """A MAC (6 bytes) behind a port of the sender's, with what is known of it. As EVPN's MAC/IP routes.

    ``seq`` counts how often the MAC moved (RFC 7432 section 15): the highest is true.
    """

    mac: bytes
    addresses: tuple[bytes, ...] = ()
    """IPv4, the lease first, and IPv6 ones."""
    name: str = ""
    port: int = 0
    client: str = ""
    """The host that its session's packets come from."""
    flags: int = 0
    seq: int = 0
    since: tuple[int, ...] = ()
    """Unix time from which on it has each of its addresses."""


class Change(NamedTuple):
    """A binding that is new or has changed, or None where a MAC is gone.

    ``version`` counts the changes of its sender's, so that an older one does not undo a newer.
    """

    room: str
    mac: bytes
    version: int
    binding: Binding | None


class Heard(NamedTuple):
    """A change as it was read, and the bytes that it was read from: what ``pack_change`` gives for it."""

    change: Change
    packed: bytes


class Head(NamedTuple):
    """Who sends a message."""

    kind: int
    sender: int
    incarnation: int


class Hello(NamedTuple):
    """I live, and this is the sum of all that I have announced, and its number."""

    digest: int
    entries: int


class SnapshotPart(NamedTuple):
    """A part of all that the sender has to announce, as it was at ``version``."""

    version: int
    part: int
    parts: int
    changes: list[Heard]


class Ask(NamedTuple):
    """Asks a room's home which of these addresses a MAC may have; the first is preferred."""

    token: int
    room: str
    mac: bytes
    candidates: tuple[bytes, ...]


class Grant(NamedTuple):
    """Answers Ask; ``address`` is empty where all of them are somebody's."""

    token: int
    room: str
    mac: bytes
    address: bytes


class Contest(NamedTuple):
    """A guest of the sender's uses an address of one of yours: ask yours whether it still has it."""

    room: str
    address: bytes
    challenger: bytes


class Wanted(NamedTuple):
    """An address is needed, and a guest of yours has one whose client is away: let it go."""

    room: str
    mac: bytes


# -- writing ------------------------------------------------------------------------------------------


def pack_head(kind: Kind, sender: int, incarnation: int) -> bytes:
    """Write the beginning of a message."""
    return _HEAD.pack(VERSION, kind, sender, incarnation)


def pack_hello(hello: Hello) -> bytes:
    """Write the body of a Hello."""
    return _HELLO.pack(*hello)


def pack_change(change: Change) -> bytes:
    """Write one change, whose parts are within their bounds."""
    _, mac, version, binding = change
    head = pack_text(change.room) + _KEY.pack(mac, version, binding is not None)
    if binding is None:
        return head
    parts = [head, _BINDING.pack(binding.seq, binding.port, binding.flags)]
    parts += (pack_text(binding.name), pack_text(binding.client), bytes((len(binding.addresses),)))
    for address, since in zip(binding.addresses, binding.since, strict=True):
        parts += (bytes((len(address),)), address, _SINCE.pack(since))
    return b"".join(parts)


def pack_changes(packed: Iterable[bytes]) -> list[bytes]:
    """Put changes together, as many as fit into one message; each is a body of CHANGES."""
    bodies: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for change in packed:
        if batch and size + len(change) > MAX_CHANGES:
            bodies.append(len(batch).to_bytes(2, "big") + b"".join(batch))
            batch, size = [], 0
        batch.append(change)
        size += len(change)
    if batch:
        bodies.append(len(batch).to_bytes(2, "big") + b"".join(batch))
    return bodies


def pack_snapshot(version: int, packed: Iterable[bytes]) -> list[bytes]:
    """Write bodies of SNAPSHOT; one at least, and MAX_PARTS at most."""
    parts = pack_changes(packed)[:MAX_PARTS] or [bytes(2)]
    return [
        _PART.pack(version, number, len(parts), int.from_bytes(part[:2], "big")) + part[2:]
        for number, part in enumerate(parts)
    ]


def pack_ask(ask: Ask) -> bytes:
    """Write the body of an Ask."""
    candidates = ask.candidates[:MAX_CANDIDATES]
    head = _TOKEN.pack(ask.token, ask.mac) + pack_text(ask.room)
    return head + bytes((len(candidates),)) + b"".join(candidates)


def pack_grant(grant: Grant) -> bytes:
    """Write the body of a Grant."""
    return _TOKEN.pack(grant.token, grant.mac) + pack_text(grant.room) + grant.address


def pack_contest(contest: Contest) -> bytes:
    """Write the body of a Contest."""
    return contest.challenger + pack_text(contest.room) + contest.address


def pack_wanted(wanted: Wanted) -> bytes:
    """Write the body of a Wanted."""
    return wanted.mac + pack_text(wanted.room)


def pack_about(urls: Sequence[str]) -> bytes:
    """Write the body of ABOUT: the URLs at which clients reach the sender's machine, within their bounds."""
    packed = [url.encode("ascii") for url in urls]
    return bytes((len(packed),)) + b"".join(bytes((len(url),)) + url for url in packed)


def pack_text(text: str, most: int = MAX_TEXT) -> bytes:
    """Write a text, of which up to ``most`` bytes are kept: 255 at most. What UTF-8 cannot say becomes ?."""
    data = text.encode("utf-8", "replace")
    if len(data) > most:
        data = data[:most].decode(errors="ignore").encode()
    return bytes((len(data),)) + data


# -- reading ------------------------------------------------------------------------------------------


def read_head(message: bytes) -> Head:
    """Read the beginning of a message. All that read raise MalformedPacket."""
    if len(message) < _HEAD.size:
        raise MalformedPacket("bad_room_message")
    version, kind, sender, incarnation = _HEAD.unpack_from(message)
    if version != VERSION:
        raise MalformedPacket("bad_room_message")
    return Head(kind, sender, incarnation)


class Reader:
    """Reads fields one after the other."""

    def __init__(self, message: bytes, at: int = _HEAD.size) -> None:
        self._message = message
        self._at = at

    def take(self, length: int) -> bytes:
        """Take so many bytes. This and all others raise MalformedPacket."""
        taken = self._message[self._at : self._at + length]
        if len(taken) < length:
            raise MalformedPacket("bad_room_message")
        self._at += length
        return taken

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """Take fields of a fixed layout."""
        return layout.unpack(self.take(layout.size))

    def byte(self) -> int:
        """Take a number of one byte."""
        return self.take(1)[0]

    def text(self, most: int = MAX_TEXT) -> str:
        """Take a text of ``most`` bytes at most."""
        length = self.byte()
        if length > most:
            raise MalformedPacket("bad_room_message")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise MalformedPacket("bad_room_message") from None

    def room(self) -> str:
        """Take the name of a room."""
        room = self.text()
        if not ROOM_NAME.fullmatch(room):
            raise MalformedPacket("bad_room_message")
        return room

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._message) - self._at)

    @property
    def at(self) -> int:
        """How far it has come."""
        return self._at

    def read_since(self, at: int) -> bytes:
        """Give again what was read from there on."""
        return self._message[at : self._at]

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at != len(self._message):
            raise MalformedPacket("bad_room_message")


def read_hello(message: bytes) -> Hello:
    """Read a Hello."""
    reader = Reader(message)
    digest, entries = reader.unpack(_HELLO)
    reader.end()
    return Hello(digest, entries)


def read_changes(message: bytes) -> list[Heard]:
    """Read Changes."""
    reader = Reader(message)
    number = int.from_bytes(reader.take(2), "big")
    changes = [_change(reader) for _ in range(number)]
    reader.end()
    return changes


def read_snapshot(message: bytes) -> SnapshotPart:
    """Read a part of a snapshot."""
    reader = Reader(message)
    version, part, parts, number = reader.unpack(_PART)
    if not 0 <= part < parts <= MAX_PARTS:
        raise MalformedPacket("bad_room_message")
    changes = [_change(reader) for _ in range(number)]
    reader.end()
    return SnapshotPart(version, part, parts, changes)


def _change(reader: Reader) -> Heard:
    begin = reader.at
    room = reader.room()
    mac, version, has_binding = _KEY.unpack(reader.take(_KEY.size))
    if has_binding > 1:
        raise MalformedPacket("bad_room_message")
    change = Change(room, mac, version, _binding(reader, mac) if has_binding else None)
    return Heard(change, reader.read_since(begin))


def _binding(reader: Reader, mac: bytes) -> Binding:
    seq, port, flags = reader.unpack(_BINDING)
    name, client = reader.text(), reader.text()
    number = reader.byte()
    if number > 2 * MAX_ADDRESSES:
        raise MalformedPacket("bad_room_message")
    addresses: list[bytes] = []
    since: list[int] = []
    for _ in range(number):
        length = reader.byte()
        if length not in (_IPV4, _IPV6):
            raise MalformedPacket("bad_room_message")
        addresses.append(reader.take(length))
        since += reader.unpack(_SINCE)
    return Binding(mac, tuple(addresses), name, port, client, flags, seq, tuple(since))


def read_ask(message: bytes) -> Ask:
    """Read an Ask."""
    reader = Reader(message)
    token, mac = _TOKEN.unpack(reader.take(_TOKEN.size))
    room = reader.room()
    number = reader.byte()
    if number > MAX_CANDIDATES:
        raise MalformedPacket("bad_room_message")
    candidates = tuple(reader.take(_IPV4) for _ in range(number))
    reader.end()
    return Ask(token, room, mac, candidates)


def read_grant(message: bytes) -> Grant:
    """Read a Grant."""
    reader = Reader(message)
    token, mac = _TOKEN.unpack(reader.take(_TOKEN.size))
    room, address = reader.room(), reader.rest()
    if len(address) not in (0, _IPV4):
        raise MalformedPacket("bad_room_message")
    return Grant(token, room, mac, address)


def read_contest(message: bytes) -> Contest:
    """Read a Contest."""
    reader = Reader(message)
    challenger = reader.take(_MAC)
    room, address = reader.room(), reader.rest()
    if len(address) not in (_IPV4, _IPV6):
        raise MalformedPacket("bad_room_message")
    return Contest(room, address, challenger)


def read_wanted(message: bytes) -> Wanted:
    """Read a Wanted."""
    reader = Reader(message)
    mac, room = reader.take(_MAC), reader.room()
    reader.end()
    return Wanted(room, mac)


def read_about(message: bytes) -> tuple[str, ...]:
    """Read the URLs of ABOUT; all are ``https://HOST[:PORT]``."""
    reader = Reader(message)
    number = reader.byte()
    if number > MAX_URLS:
        raise MalformedPacket("bad_room_message")
    urls = tuple(reader.text(MAX_URL) for _ in range(number))
    reader.end()
    if not all(map(_URL.fullmatch, urls)):
        raise MalformedPacket("bad_room_message")
    return urls


# -- frames -------------------------------------------------------------------------------------------

STAMPS = 1 << 32
"""Stamps are milliseconds modulo this."""

MAX_FRAME: Final = 0xFFFF
_FRAMES_AT: Final = _HEAD.size + _STAMP.size


def pack_frames(head: bytes, stamp: int, room: str, frames: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Write frames for a room into messages, as many as fit into each; return how many fit into none, too.

    ``head`` is one of FRAMES, ``stamp`` the time in milliseconds.
    """
    start = head + _STAMP.pack(stamp % STAMPS) + pack_text(room)
    messages: list[bytes] = []
    parts = [start]
    size = len(start)
    dropped = 0
    for frame in frames:
        length = len(frame)
        if size + length + 2 > MAX_MESSAGE:
            if length + 2 + len(start) > MAX_MESSAGE:
                dropped += 1
                continue
            messages.append(b"".join(parts))
            parts, size = [start], len(start)
        parts.append(length.to_bytes(2, "big"))
        parts.append(frame)
        size += length + 2
    if len(parts) > 1:
        messages.append(b"".join(parts))
    return messages, dropped


class Frames(NamedTuple):
    """Frames for a room's part, and when they were sent."""

    sender: int
    incarnation: int
    stamp: int
    room: str
    frames: list[bytes]


def read_frames(message: bytes) -> Frames:
    """Read a message of frames."""
    _, sender, incarnation = read_head(message)
    reader = Reader(message)
    (stamp,) = reader.unpack(_STAMP)
    room = reader.room()
    at, end = _FRAMES_AT + 1 + len(room), len(message)
    frames = []
    while at < end:
        start = at + 2
        at = start + int.from_bytes(message[start - 2 : start], "big")
        frames.append(message[start:at])
    if at != end:
        raise MalformedPacket("bad_room_message")
    return Frames(sender, incarnation, stamp, room, frames)

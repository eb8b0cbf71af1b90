"""What a kernel leaves to its network card: checksums, and TCP's segmentation (virtio 1.2, section 5.1.6).

A TAP device with ``IFF_VNET_HDR`` puts a ``virtio_net_hdr`` of 10 bytes, little-endian, before each frame
(linux/virtio_net.h). ``split`` does what it asks for: one read of up to 64 KB becomes frames as they go on
the wire. ``merge`` is the way back: segments that follow one another become one frame, which the kernel takes
in one piece as it would from a card that receives so (GRO; Linux' tcp_gro_receive has the same conditions).

Nothing is merged whose checksums are wrong: such frames go on as they came, for the kernel to drop.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from netstack.checksum import add_up, finish, finish_udp, is_valid, pseudo_header
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFLOAD_HEADER = 10
"""Bytes of ``virtio_net_hdr`` before a frame."""
NO_OFFLOAD = bytes(OFFLOAD_HEADER)
"""The header of a frame with nothing left to be done."""

NEEDS_CHECKSUM = 1
"""Flag: the checksum field has the pseudo-header's sum; what is from ``csum_start`` on is to be added."""
GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_ECN = 0, 1, 4, 0x80

MAX_PACKET = 65535
"""Bytes of an IP packet, merged ones too."""

_VIRTIO = Struct("<BBHHHH")
_TWO_WORDS = Struct("!HH")
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")
_TCP = 6
_TCP_HEADER, _TCP_CHECKSUM, _UDP_CHECKSUM = 20, 16, 6
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_IPV4_WITHOUT_OPTIONS = 0x45
_DONT_FRAGMENT = b"\x40\x00"
_FIN, _PSH, _ACK, _CWR = 1, 8, 16, 128


def split(data: bytes, mtu: int) -> list[bytes]:
    """Return the frames that ``data``, a frame behind its header, stands for.

    TCP is cut as the kernel wants it, and so that no IP packet is larger than ``mtu``. Raises ValueError for
    what no kernel asks for.
    """
    if len(data) < OFFLOAD_HEADER + HEADER_LENGTH:
        raise ValueError("shorter than its headers")
    flags, kind, _, size, start, offset = _VIRTIO.unpack_from(data)
    frame = data[OFFLOAD_HEADER:]
    if kind == GSO_NONE:
        return [_with_checksum(frame, start, offset)] if flags & NEEDS_CHECKSUM else [frame]
    if not flags & NEEDS_CHECKSUM or not size:
        raise ValueError("segmentation without checksum or size")
    return _segments(frame, kind & ~GSO_ECN, size, start, mtu)


def _with_checksum(frame: bytes, start: int, offset: int) -> bytes:
    """Complete a checksum that has the pseudo-header's sum in it (RFC 1071)."""
    at = start + offset
    if at + 2 > len(frame):
        raise ValueError("checksum outside the frame")
    total = add_up(frame[start:])
    checksum = finish_udp(total) if offset == _UDP_CHECKSUM else finish(total)
    return frame[:at] + checksum.to_bytes(2, "big") + frame[at + 2 :]


def _segments(frame: bytes, kind: int, size: int, start: int, mtu: int) -> list[bytes]:
    """Cut a TCP frame whose TCP header is at ``start`` (RFC 9293; what Linux' tcp_gso_segment does)."""
    ip = HEADER_LENGTH
    while frame[ip - 2 : ip] in _VLAN_TAGS:
        ip += 4
    is_ipv4 = kind == GSO_TCP4
    if not is_ipv4 and kind != GSO_TCP6:
        raise ValueError("neither TCP over IPv4 nor over IPv6")
    shortest = _IPV4_HEADER if is_ipv4 else _IPV6_HEADER
    if start < ip + shortest or len(frame) < start + _TCP_HEADER or frame[ip] >> 4 != (4 if is_ipv4 else 6):
        raise ValueError("no such header")
    end = start + (frame[start + 12] >> 4) * 4
    if not start + _TCP_HEADER <= end < len(frame):
        raise ValueError("no such TCP header")
    if mtu > end - ip:
        size = min(size, mtu - (end - ip))

    sequence = int.from_bytes(frame[start + 4 : start + 8], "big")
    flags = frame[start + 13]
    before_sequence, after_sequence = frame[start : start + 4], frame[start + 8 : start + 13]
    window, after_checksum = frame[start + 14 : start + 16], frame[start + 18 : end]
    addresses = frame[ip + 12 : ip + 20] if is_ipv4 else frame[ip + 8 : ip + 40]
    # Flags stand in the low byte of their word, which starts with the header's length.
    tcp_sum = (
        int.from_bytes(addresses, "big")
        + _TCP
        + add_up(before_sequence)
        + add_up(after_sequence[:4])
        + (after_sequence[4] << 8)
        + add_up(window)
        + add_up(after_checksum)
    )
    # The length stands at 2 in an IPv4 header, followed by the identification, and at 4 in an IPv6 header.
    start_of_frame = frame[: ip + (2 if is_ipv4 else 4)]
    identification = int.from_bytes(frame[ip + 4 : ip + 6], "big")
    fragment_to_protocol = frame[ip + 6 : ip + 10]
    rest_of_ip = frame[ip + 12 : start] if is_ipv4 else frame[ip + 6 : start]
    ip_sum = add_up(frame[ip : ip + 2]) + add_up(fragment_to_protocol) + add_up(rest_of_ip)

    segments = []
    last = len(frame) - size
    for at in range(end, len(frame), size):
        payload = frame[at : at + size]
        own_flags = flags
        if at != end:
            own_flags &= ~_CWR
        if at < last:
            own_flags &= ~(_FIN | _PSH)
        length = end - start + len(payload)
        checksum = finish(
            tcp_sum + length + (sequence >> 16) + (sequence & 0xFFFF) + own_flags + add_up(payload)
        )
        if is_ipv4:
            total = start - ip + length
            head = b"".join(
                (
                    start_of_frame,
                    _TWO_WORDS.pack(total, identification),
                    fragment_to_protocol,
                    finish(ip_sum + total + identification).to_bytes(2, "big"),
                )
            )
            identification = (identification + 1) & 0xFFFF
        else:
            head = start_of_frame + (start - ip - _IPV6_HEADER + length).to_bytes(2, "big")
        segments.append(
            b"".join(
                (
                    head,
                    rest_of_ip,
                    before_sequence,
                    sequence.to_bytes(4, "big"),
                    after_sequence,
                    own_flags.to_bytes(1, "big"),
                    window,
                    checksum.to_bytes(2, "big"),
                    after_checksum,
                    payload,
                )
            )
        )
        sequence = (sequence + size) & 0xFFFFFFFF
    return segments


class Merged(NamedTuple):
    """A frame behind its header, and how many frames are in it."""

    data: bytes
    frames: int


class _Run:
    """Segments of one connection that follow one another."""

    __slots__ = ("frames", "head", "header_end", "is_ipv4", "next_sequence", "payload", "size")

    def __init__(self, frame: bytes, head: bytes, header_end: int, sequence: int) -> None:
        self.frames = [frame]
        self.head = head
        """What all of them have in common of their headers."""
        self.header_end = header_end
        self.size = len(frame) - header_end
        """Bytes of payload of each but the last, which may have fewer."""
        self.payload = self.size
        """Bytes of payload of all of them."""
        self.next_sequence = (sequence + self.size) & 0xFFFFFFFF
        """What the next one has to begin with; -1 when there may be no next one."""
        self.is_ipv4 = frame[12:14] == ETHERTYPE_IPV4


def merge(frames: Sequence[bytes]) -> list[Merged]:
    """Put headers before frames, and segments that follow one another into one frame.

    The frames of one connection stay in order. What has payload, an even number of bytes of it, and no flags
    but ACK and PSH can be merged, if all else of the headers is the same.
    """
    merged: list[Merged] = []
    runs: dict[bytes, _Run] = {}
    for frame in frames:
        is_ipv4 = frame[12:14] == ETHERTYPE_IPV4
        if is_ipv4 and len(frame) >= 54 and frame[14] == _IPV4_WITHOUT_OPTIONS and frame[23] == _TCP:  # noqa: PLR2004
            tcp = 34
            flow = frame[26:38]
            is_whole = (
                frame[20:22] == _DONT_FRAGMENT and int.from_bytes(frame[16:18], "big") == len(frame) - 14
            )
        elif frame[12:14] == ETHERTYPE_IPV6 and len(frame) >= 74 and frame[20] == _TCP:  # noqa: PLR2004
            tcp = 54
            flow = frame[22:58]
            is_whole = int.from_bytes(frame[18:20], "big") == len(frame) - 54
        else:
            merged.append(Merged(NO_OFFLOAD + frame, 1))
            continue
        header_end = tcp + (frame[tcp + 12] >> 4) * 4
        flags = frame[tcp + 13]
        run = runs.get(flow)
        if not is_whole or flags & ~_PSH != _ACK or not tcp + _TCP_HEADER <= header_end < len(frame):
            if run is not None:
                del runs[flow]
                _finish_run(run, merged)
            merged.append(Merged(NO_OFFLOAD + frame, 1))
            continue
        sequence = int.from_bytes(frame[tcp + 4 : tcp + 8], "big")
        size = len(frame) - header_end
        # All but lengths, identification, sequence number, flags and checksums.
        head = b"".join(
            (
                frame[:16],
                frame[16:18] if not is_ipv4 else b"",
                frame[20:24],
                frame[tcp + 8 : tcp + 13],
                frame[tcp + 14 : tcp + 16],
                frame[tcp + 18 : header_end],
            )
        )
        if (
            run is not None
            and run.next_sequence == sequence
            and size <= run.size
            and run.head == head
            and run.payload + size + run.header_end <= MAX_PACKET
        ):
            run.frames.append(frame)
            run.payload += size
            run.next_sequence = (sequence + size) & 0xFFFFFFFF
        else:
            if run is not None:
                _finish_run(run, merged)
            run = runs[flow] = _Run(frame, head, header_end, sequence)
        if flags & _PSH or size < run.size or size & 1:
            run.next_sequence = -1
    for run in runs.values():
        _finish_run(run, merged)
    return merged


def _finish_run(run: _Run, merged: list[Merged]) -> None:
    frames = run.frames
    if len(frames) > 1:
        data = _one_frame(run)
        if data:
            merged.append(Merged(data, len(frames)))
            return
    merged += [Merged(NO_OFFLOAD + frame, 1) for frame in frames]


def _one_frame(run: _Run) -> bytes:
    """Merge the frames of a run; empty when the checksum of any is wrong."""
    first, end = run.frames[0], run.header_end
    tcp = 34 if run.is_ipv4 else 54
    addresses = first[26:34] if run.is_ipv4 else first[22:54]
    source, destination = addresses[: len(addresses) // 2], addresses[len(addresses) // 2 :]
    headers = 0
    for frame in run.frames:
        headers += add_up(frame[tcp:end])
        if run.is_ipv4 and not is_valid(add_up(frame[14:34])):
            return b""
    count = len(run.frames)
    payload = b"".join([frame[end:] for frame in run.frames])
    # One sum for all of them is as good a test as one for each, and cheaper.
    length = count * (end - tcp) + len(payload)
    pseudo = count * pseudo_header(source, destination, _TCP, 0) + length
    if not is_valid(pseudo + headers + add_up(payload)):
        return b""
    packet = end - 14 + len(payload)
    pushes = run.frames[-1][tcp + 13] & _PSH
    if run.is_ipv4:
        ip_sum = add_up(first[14:16]) + packet + add_up(first[18:24]) + add_up(first[26:34])
        ip_head = first[:16] + packet.to_bytes(2, "big") + first[18:24] + finish(ip_sum).to_bytes(2, "big")
        ip_head += addresses
    else:
        ip_head = first[:18] + (packet - _IPV6_HEADER).to_bytes(2, "big") + first[20:54]
    partial = finish(pseudo_header(source, destination, _TCP, end - tcp + len(payload))) ^ 0xFFFF
    kind = GSO_TCP4 if run.is_ipv4 else GSO_TCP6
    return b"".join(
        (
            _VIRTIO.pack(NEEDS_CHECKSUM, kind, end, run.size, tcp, _TCP_CHECKSUM),
            ip_head,
            first[tcp : tcp + 13],
            (_ACK | pushes).to_bytes(1, "big"),
            first[tcp + 14 : tcp + 16],
            partial.to_bytes(2, "big"),
            first[tcp + 18 : end],
            payload,
        )
    )

"""Follows what one guest exchanges with one destination through the LAN's actors, a line for each decision.

A line says which actor had frames of it, what they were, and what was counted meanwhile: where the counter
``gateway.drop.denied`` moved, the policy refused a packet. What other guests did in the same
moment is counted too; on a busy LAN a line may have a counter that is not its packet's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.messages import (
    FlowOpened,
    FramesFromGateway,
    FramesFromPeer,
    FramesToGateway,
    FramesToPeer,
    FramesToPort,
)
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, format_mac
from netstack.family import IPV4, IPV6, endpoint_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.observation import Handled, Observed

MAX_LINES = 1000
"""Lines that wait for the reader; what is beyond is left out and counted."""

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}
_WITH_PORTS = frozenset({6, 17})
_ENDS = {
    ETHERTYPE_IPV4: (slice(26, 30), slice(30, 34)),
    ETHERTYPE_IPV6: (slice(22, 38), slice(38, 54)),
    ETHERTYPE_ARP: (slice(28, 32), slice(38, 42)),
}
"""Where both ends' addresses stand in frames."""
_NOT_TOLD = ("frames_", "received", "bytes")
"""What counters that only say that frames went their way have in their names."""


class Trace:
    """Follows frames between a MAC and some addresses. For the event loop's thread."""

    def __init__(self, mac: bytes, addresses: frozenset[bytes]) -> None:
        """Follow what ``mac`` sends to any of ``addresses`` (4 or 16 bytes), and what they send to it."""
        self._mac = mac
        self._addresses = addresses
        self._lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_LINES)
        self.missed = 0

    def see(self, _: Observed, handled: Handled) -> None:
        """Take note of a message that has frames of it."""
        message = handled.message
        match message:
            case FramesFromPeer(port, frames):
                where, direction = f"switch, from peer {port}", "to net"
            case FramesToGateway(port, frames):
                where, direction = f"gateway, from peer {port}", "to net"
            case FramesFromGateway(frames) | FramesToPort(_, frames):
                where, direction = "switch, from the gateway", "from net"
            case FramesToPeer(frames):
                where, direction = f"peer {getattr(handled.actor, 'port', '')}", "to the guest"
            case FlowOpened(mac=self._mac):
                self._tell_flow(message)
                return
            case _:
                return
        for frame in frames:
            if self._is_of_it(frame):
                self._tell(where, direction, frame, handled.counted, len(frames))

    def _is_of_it(self, frame: bytes) -> bool:
        if self._mac not in (frame[0:6], frame[6:12]):
            return False
        return any(address in self._addresses for address in ends_of(frame))

    def _tell_flow(self, opened: FlowOpened) -> None:
        """Say of a flow that begins, to whatever address, by which port it leaves, or how it came."""
        line = {"where": "flow", "direction": "to net" if opened.direction == "out" else "from net"}
        self._put(line | {"frame": translation(opened), "batch": 1, "decided": {}})

    def _tell(self, where: str, direction: str, frame: bytes, counted: dict[str, int], batch: int) -> None:
        decisions = {
            name: count for name, count in counted.items() if not any(part in name for part in _NOT_TOLD)
        }
        line = {
            "where": where,
            "direction": direction,
            "frame": describe(frame),
            "batch": batch,
            "decided": decisions,
        }
        self._put(line)

    def _put(self, line: dict[str, Any]) -> None:
        try:
            self._lines.put_nowait({"time": time.time()} | line)
        except asyncio.QueueFull:
            self.missed += 1

    def log_end(self) -> None:
        """Log what the reader did not take in time."""
        logger.bind(unthinned=True).info("a trace ends: {} lines missed", self.missed)

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Give lines as they come, without end."""
        while True:
            yield await self._lines.get()


def ends_of(frame: bytes) -> tuple[bytes, ...]:
    """Return the addresses that a frame is from and for: of IP, or of ARP; none of others."""
    kind = frame[12:14]
    spans = _ENDS.get(kind)
    if spans is None or len(frame) < spans[1].stop:
        return ()
    return frame[spans[0]], frame[spans[1]]


def describe(frame: bytes) -> str:
    """Say in a few words what a frame is."""
    kind, ends = frame[12:14], ends_of(frame)
    if not ends:
        return f"Ethernet {kind.hex()}, {len(frame)} bytes"
    if kind == ETHERTYPE_ARP:
        asks = frame[20:22] == b"\x00\x01"
        who = IPV4.format(ends[1] if asks else ends[0])
        return f"ARP who has {who}" if asks else f"ARP {who} is at {format_mac(frame[22:28])}"
    protocol, header, *names = _packet(frame, ends)
    text = f"{_PROTOCOLS.get(protocol, f'protocol {protocol}')} {names[0]} > {names[1]}, {len(frame)} bytes"
    if protocol == 6 and len(frame) > header + 13:  # noqa: PLR2004 - TCP's number, and where its flags are
        flags = frame[header + 13]
        letters = "".join(letter for bit, letter in enumerate("FSRPAUEC") if flags >> bit & 1)
        text += f" [{letters}]"
    return text


def _packet(frame: bytes, ends: tuple[bytes, ...]) -> tuple[int, int, str, str]:
    """Tell of an IP packet its protocol, where what that carries begins, and both ends, with ports if any."""
    family = IPV4 if frame[12:14] == ETHERTYPE_IPV4 else IPV6
    header = 14 + ((frame[14] & 0xF) * 4 if family is IPV4 else 40)
    protocol = frame[23] if family is IPV4 else frame[20]
    names = [family.format(end) for end in ends]
    if family is IPV4 and frame[20] & 0x1F | frame[21]:
        header = len(frame)  # a later fragment has data only, which is no header of what it carries
    if protocol in _WITH_PORTS and len(frame) >= header + 4:
        numbers = [int.from_bytes(frame[start : start + 2], "big") for start in (header, header + 2)]
        names = list(map(endpoint_text, names, numbers))
    return protocol, header, names[0], names[1]


def flow_of(frame: bytes) -> tuple[str, str, str] | None:
    """Tell ``udp`` or ``tcp`` of a frame, and both ends with their ports; None of all others."""
    ends = ends_of(frame)
    if not ends or frame[12:14] == ETHERTYPE_ARP:
        return None
    protocol, _, source, destination = _packet(frame, ends)
    return (_PROTOCOLS[protocol].lower(), source, destination) if protocol in _WITH_PORTS else None


def translation(opened: FlowOpened) -> str:
    """Say what the NAT makes of a flow."""
    if opened.direction == "in":
        return f"NAT: {opened.protocol} to {opened.guest} is of {opened.remote}, by a forward"
    leaves = "" if opened.local is None else f" by port {opened.local} of this machine"
    return f"NAT: {opened.protocol} from {opened.guest} leaves{leaves} for {opened.remote}"

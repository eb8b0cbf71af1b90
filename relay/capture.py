"""Captures of what passes a LAN: an interface for each session and one for the gateway, as pcapng.

Frames are seen as the switch and the sessions' actors handle them: *in* is what came from a guest, *out* what
goes to it. A comment says what was dropped of the batch that a frame came in, and why, and at the gateway's
interface what the NAT makes of a flow that has just begun. What the reader does not take in time is left out
and counted; the relay never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from loguru import logger

from actors.lan.forwarding import GATEWAY
from actors.lan.peer import PeerActor
from actors.messages import (
    AssignAddress,
    FlowOpened,
    FramesFromGateway,
    FramesFromPeer,
    FramesToGateway,
    FramesToPeer,
    FramesToPort,
)
from netstack import pcapng
from relay.trace import flow_of, translation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay.observation import Handled, Observed

MAX_WAITING = 8 * 2**20
"""Bytes that wait for the reader of a capture."""

MAX_NEW_FLOWS = 256
"""Flows that have begun and of which nothing was seen since."""

MAX_INTERFACES = 4096
"""Of which a number is known; one that was begun before these is begun again with its next packet."""

MAX_CAPTURES = 8
"""At a time."""
TOO_MANY_CAPTURES = "too many captures run already"


class Capture:
    """What is seen of some LANs, as a stream of pcapng blocks. For the event loop's thread."""

    def __init__(
        self,
        *,
        port: int | None = None,
        mac: bytes | None = None,
        wanted: Callable[[bytes], bool] | None = None,
        snap_length: int = 0,
        name_of: Callable[[int], str | None] = lambda _: None,
    ) -> None:
        """Take frames of one session only for ``port``, and those that ``wanted`` wants.

        For ``mac`` they are those of the session that has this MAC: of ``port`` at first, which may be None,
        and then of each that gets it. ``name_of`` tells what a session's guest is called.
        """
        self._port = port
        self._mac = mac
        self._wanted = wanted
        self._snap_length = snap_length
        self._name_of = name_of
        self._blocks: list[bytes] = [pcapng.section("vmrelay")]
        self._waiting = 0
        self._news = asyncio.Event()
        self._news.set()
        self._interfaces: dict[tuple[str, int], int] = {}
        self._begun = 0
        """Interfaces so far."""
        self._new_flows: dict[tuple[str, str, str], str] = {}
        """What is to be said of flows with their next packet, by room, protocol and the guest's end."""
        self.seen = 0
        self.missed = 0
        """Frames that were left out since the reader was too slow."""

    def see(self, lan: Observed, handled: Handled) -> None:
        """Take what a message had, if it had frames."""
        match handled.message:
            case FramesFromPeer(port, frames):
                self._take(lan, port, frames, "in", _drops(handled.counted, "switch"))
            case FramesToPeer(frames) if isinstance(handled.actor, PeerActor):
                self._take(lan, handled.actor.port, frames, "out", _drops(handled.counted, "peer"))
            case FramesToGateway(_, frames):
                self._take(lan, GATEWAY, frames, "in", _drops(handled.counted, "gateway"))
            case FramesFromGateway(frames) | FramesToPort(_, frames):
                self._take(lan, GATEWAY, frames, "out", _drops(handled.counted, "switch"))
            case AssignAddress(port, mac) if mac == self._mac:
                self._port = port
            case FlowOpened() as opened:
                self._new_flows[lan.name, opened.protocol, opened.guest] = translation(opened)
                if len(self._new_flows) > MAX_NEW_FLOWS:
                    del self._new_flows[next(iter(self._new_flows))]
            case _:
                pass

    def _take(
        self, lan: Observed, port: int, frames: list[bytes], direction: Literal["in", "out"], comment: str
    ) -> None:
        if self._port != port and (self._port is not None or self._mac is not None):
            return
        now = time.time()
        if comment and len(frames) > 1:
            comment = f"of {len(frames)} frames: {comment}"
        for frame in frames:
            if self._wanted is not None and not self._wanted(frame):
                continue
            self.seen += 1
            if self._waiting > MAX_WAITING:
                self.missed += 1
                continue
            number = self._interface(lan.name, port)
            said = self._of_new_flow(lan.name, frame) if port == GATEWAY and self._new_flows else ""
            said = "; ".join(filter(None, (comment, said)))
            self._put(
                pcapng.packet(number, now, frame, direction, comment=said, snap_length=self._snap_length)
            )

    def _of_new_flow(self, room: str, frame: bytes) -> str:
        """Say what there is to be said of a frame's flow, once."""
        flow = flow_of(frame)
        if flow is None:
            return ""
        protocol, *ends = flow
        keys = [(room, protocol, end) for end in ends]
        return next((self._new_flows.pop(key) for key in keys if key in self._new_flows), "")

    def _interface(self, room: str, port: int) -> int:
        number = self._interfaces.get((room, port))
        if number is None:
            number = self._interfaces[room, port] = self._begun
            self._begun += 1
            if len(self._interfaces) > MAX_INTERFACES:
                del self._interfaces[next(iter(self._interfaces))]
            what = "gateway" if port == GATEWAY else f"peer{port}"
            called = "" if port == GATEWAY else self._name_of(port) or ""
            self._put(pcapng.interface(f"{room}/{what}", called or what, self._snap_length))
        return number

    def _put(self, block: bytes) -> None:
        self._blocks.append(block)
        self._waiting += len(block)
        self._news.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """Give what was seen, as it is seen, without end."""
        while True:
            await self._news.wait()
            self._news.clear()
            blocks, self._blocks, self._waiting = self._blocks, [], 0
            yield b"".join(blocks)

    def log_end(self) -> None:
        """Log what it saw."""
        logger.bind(unthinned=True).info("a capture ends: {} frames seen, {} missed", self.seen, self.missed)


def _drops(counted: dict[str, int], part: str) -> str:
    drops = [(name, count) for name, count in counted.items() if name.startswith(f"{part}.drop.")]
    return ", ".join(f"{count} {name}" for name, count in drops)

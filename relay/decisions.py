"""Says in the log, at level debug, what the LANs' actors decided about frames: dropped or refused, and why.

It looks on as captures and traces do (``relay.observation``), so that it costs nothing while no such line is
shown. A line names the counter that a message moved, which is the reason, and what its frames were; in a
batch of several it is not known which of them it was. Repeated ones are summed up, by counter and session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.lan.peer import PeerActor
from actors.messages import (
    DatagramsFromClient,
    DnsQuestions,
    FramesFromGateway,
    FramesFromPeer,
    FramesToFlow,
    FramesToGateway,
    FramesToPeer,
    FramesToPort,
)
from relay import logs
from relay.trace import describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.lan import Lan
    from relay.observation import Handled, Observed

MAX_DESCRIBED = 3
"""Frames of a batch that are described."""

_PART_OF = {"outside": "policy", "udp": "flow", "tcp": "flow", "icmp": "flow"}
"""Who decides, where the counter's first word is not the part's name (``relay.log_filter.PARTS``)."""

_REASONS = (".drop.", ".denied.", ".refused", "_refused")
"""What counters of frames that went nowhere have in their names."""


class Decisions:
    """Looks on at all LANs while its lines are shown."""

    def follow(self, lans: Iterable[Lan]) -> None:
        """Look on at these, or at none, as the levels of the log are."""
        shown = logs.shows_decisions()
        for lan in lans:
            if shown and self not in lan.observation:
                lan.observation.add(self)
            elif not shown and self in lan.observation:
                lan.observation.remove(self)

    def see(self, lan: Observed, handled: Handled) -> None:
        """Say what was decided about a message, if anything went nowhere."""
        reasons = [name for name in handled.counted if any(part in name for part in _REASONS)]
        if reasons:
            who, port, what = _contents(handled)
            for reason in reasons:
                first = reason.partition(".")[0]
                logger.bind(
                    library=_PART_OF.get(first, first),
                    thinned=True,
                    reason=f"{reason} {lan.name} {port}",
                    room=lan.name,
                ).debug("{}: {} {} of {}", who, handled.counted[reason], reason, what)


def _contents(handled: Handled) -> tuple[str, int | None, str]:
    """Say whose frames a message has, by port too, and what they are."""
    message: Any = handled.message
    match message:
        case DatagramsFromClient(datagrams):
            port = getattr(handled.actor, "port", None)
            return f"from peer {port}", port, f"{len(datagrams)} datagrams"
        case FramesFromPeer(port, frames) | FramesToGateway(port, frames):
            return f"from peer {port}", port, _described(frames)
        case FramesToPeer(frames) if isinstance(handled.actor, PeerActor):
            return f"to peer {handled.actor.port}", handled.actor.port, _described(frames)
        case FramesFromGateway(frames) | FramesToPort(_, frames):
            return "from the gateway", None, _described(frames)
        case FramesToFlow(frames):
            port = getattr(handled.actor, "port", None)
            return f"from peer {port}", port, _described(frames)
        case DnsQuestions(port, questions):
            return f"from peer {port}", port, f"{len(questions)} questions"
    return "by the way", None, type(message).__name__


def _described(frames: list[bytes]) -> str:
    described = "; ".join(map(describe, frames[:MAX_DESCRIBED]))
    more = "" if len(frames) <= MAX_DESCRIBED else f"; and {len(frames) - MAX_DESCRIBED} more"
    return f"{len(frames)} frame{'s' * (len(frames) > 1)} ({described}{more})"

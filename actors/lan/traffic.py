"""What one session has carried, for who describes it and for the counters of its LAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.descriptions import PathState
    from netstack.counters import Counters

_NAMES = (
    *("peer.bytes_from_client", "peer.bytes_to_client"),
    *("peer.packets_sent", "peer.packets_lost"),
)
"""Counters that are brought up to date now and then; the packets are QUIC's."""


class Traffic:
    """Frames and bytes of a session, *in* from its guest and *out* to it."""

    def __init__(self, counters: Counters) -> None:
        """``counters`` are the LAN's."""
        self._counters = counters
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self._counted = (0,) * len(_NAMES)
        """What of the session's traffic stands in the LAN's counters."""

    def came(self, frames: Sequence[bytes]) -> None:
        """Count what came from the guest."""
        self._counters.add("peer.frames_from_client", len(frames))
        self.frames_in += len(frames)
        self.bytes_in += sum(map(len, frames))

    def goes(self, frames: Sequence[bytes]) -> None:
        """Count what goes to the guest."""
        self._counters.add("peer.frames_to_client", len(frames))
        self.frames_out += len(frames)
        self.bytes_out += sum(map(len, frames))

    def bring_up_to_date(self, path: PathState) -> None:
        """Count the rest in the LAN's counters: when somebody asks and at the end, not with each batch."""
        totals = (self.bytes_in, self.bytes_out, path.packets_sent or 0, path.packets_lost or 0)
        for name, total, counted in zip(_NAMES, totals, self._counted, strict=True):
            if total > counted:
                self._counters.add(name, total - counted)
        self._counted = tuple(max(pair) for pair in zip(totals, self._counted, strict=True))

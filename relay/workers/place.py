"""Which of a relay's processes this is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NODE_SHIFT = 8
"""Bits of a worker's number that tell it from the others of its machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place among those of its relay."""

    number: int
    """From 0 on; connection IDs that it issues begin with a byte that is this, modulo ``count``."""
    count: int
    """Workers that there are to be; some of them may be away."""
    folder: Path
    """Run directory of the relay, of mode 0700: each worker has its trunk socket there, ``trunk-NUMBER``."""
    room_key: bytes
    """32 bytes that all workers share, and nobody else."""
    node: int = 0
    """Of the cluster, less than 2^24; 0 for a relay that is in none."""

    @property
    def worker(self) -> int:
        """Number of this worker among those of the whole cluster."""
        return self.node << NODE_SHIFT | self.number

    @property
    def admin_socket(self) -> Path:
        """Where the worker's own admin API is, which the supervisor asks."""
        return self.folder / f"admin-{self.number}"

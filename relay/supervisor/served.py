"""What the admin API of a relay with workers knows of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from relay.admin.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from relay.admin.guard import Caller, Refused
    from relay.bans import Bans
    from relay.settings import Settings
    from relay.supervisor.crew import Crew
    from relay.supervisor.forwards import WholeForwards
    from relay.token_gate import TokenGate
    from transport.certificates import CertificateStore


class Whole(Protocol):
    """The supervisor, as the API needs it."""

    settings: Settings
    certificates: CertificateStore
    bans: Bans
    forwards: WholeForwards
    tokens: TokenGate
    crew: Crew
    draining: bool
    """Whether new sessions are refused, by workers that start later too."""

    def sockets(self) -> dict[int, Path]:
        """Tell where the workers that run can be asked."""

    async def reload(self) -> dict[str, Any]:
        """Read configuration, certificate and keys again; tell what changed."""

    async def forwards_changed(self) -> None:
        """Keep what an operator has done to the forwards, and have the workers do it."""

    def restart(self) -> None:
        """Begin to replace the workers one by one."""


@dataclass
class ServedWhole:
    """One that is ``relay.admin.service.Offered``."""

    module: ClassVar[str] = "relay.supervisor.api"
    whole: Whole
    facts: Mapping[str, object]
    """What never changes: ``version``, ``pid``, ``address``, ``path`` (the form of the datagram path)."""
    hosts: frozenset[str] | None = None
    token: str | None = None
    read_token: Callable[[str], Caller | Refused] | None = None
    everywhere: bool = False
    started: float = field(default_factory=time.monotonic)
    events: Events = field(default_factory=Events)
    """What the supervisor itself has to tell."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)

"""What the admin API of a relay with workers knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from relay.admin.service import Offered

if TYPE_CHECKING:
    from pathlib import Path

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


@dataclass(kw_only=True)
class ServedWhole(Offered):
    """What the API of a relay with workers knows of it."""

    module: ClassVar[str] = "relay.supervisor.api"
    whole: Whole

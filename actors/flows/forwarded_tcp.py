"""TCP towards a guest: a connection that a client outside opened through a forward.

As ``tcp_flow`` the other way round: the client's connection stands already, and waits in the kernel
while the guest is asked. A guest that refuses, or does not answer, has the client's connection reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.tcp_flow import TcpFlowActor

if TYPE_CHECKING:
    from actors.ports import WaitingClients
    from netstack.forward import Forward
    from netstack.tcp_connection import TcpConnection


class ForwardedConnections:
    """The connections of one forward: those that stand, by their flows' keys, and who waits."""

    __slots__ = ("clients", "forward", "half_open", "is_full", "open")

    def __init__(self, forward: Forward, clients: WaitingClients) -> None:
        self.forward = forward
        self.clients = clients
        self.open: set[bytes] = set()
        self.half_open: set[bytes] = set()
        """Those that the guest has not answered yet."""
        self.is_full = False
        """Whether nobody watches the port until one of the connections gets its answer or ends."""


class ForwardedTcpFlowActor(TcpFlowActor):
    """One connection that a client outside opened to a guest."""

    def _begin(self, connection: TcpConnection, now: float) -> None:
        connection.connect(now)

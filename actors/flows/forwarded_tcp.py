"""TCP towards a guest: a connection that a client outside opened through a forward.

As ``tcp_flow`` the other way round: the client's connection stands already, and waits in the kernel
while the guest is asked. A guest that refuses, or does not answer, has the client's connection reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.tcp_flow import TcpFlowActor

if TYPE_CHECKING:
    from netstack.tcp_connection import TcpConnection


class ForwardedTcpFlowActor(TcpFlowActor):
    """One connection that a client outside opened to a guest."""

    def _begin(self, connection: TcpConnection, now: float) -> None:
        connection.connect(now)

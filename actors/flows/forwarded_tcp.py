"""TCP towards a guest: a connection that a client outside opened through a forward.

As ``tcp_flow`` the other way round: the client's connection stands already, and waits in the kernel
while the guest is asked. A guest that refuses, or does not answer, has the client's connection reset.

Guests refuse by a RST, and by ICMP where their firewall does it. That counts while nothing has come of the
connection, and about the very SYN that was sent (RFC 5927 section 4); later it ends none (RFC 5382 REQ-10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.tcp_flow import TcpFlowActor
from actors.messages import GuestRefused
from actors.runtime import handles
from netstack.tcp_states import State

if TYPE_CHECKING:
    from netstack.tcp_connection import TcpConnection


class ForwardedTcpFlowActor(TcpFlowActor):
    """One connection that a client outside opened to a guest."""

    def _begin(self, connection: TcpConnection, now: float) -> None:
        connection.connect(now)

    @handles(GuestRefused)
    def _guest_refused(self, message: GuestRefused) -> None:
        connection = self._connection
        if self._ended or connection is None or connection.state is not State.SYN_SENT:
            return
        if message.sequence != self._first:
            return
        self._counters.add("tcp.refused_by_icmp")
        self._end()

"""TCP towards a guest: a connection that a client outside opened through a forward.

As ``actors.tcp_flow`` the other way round: the client's connection stands already, and waits in the kernel
while the guest is asked. A guest that refuses, or does not answer, has the client's connection reset.
"""

from __future__ import annotations

import secrets

from actors.messages import ConnectionMade
from actors.runtime import handles
from actors.tcp_flow import TcpFlowActor
from netstack.tcp_connection import Offer, TcpConnection
from netstack.tcp_segment import TcpFrameTemplate


class ForwardedTcpFlowActor(TcpFlowActor):
    """One connection that a client outside opened to a guest."""

    @handles(ConnectionMade)
    def _connection_made(self, _: ConnectionMade) -> None:
        guest, remote, now = self._guest, self._remote, self.now()
        self._socket.keep_alive(self._lan.settings.tcp_keep_alive)
        macs = guest.mac + self._lan.settings.gateway_mac
        template = TcpFrameTemplate(macs, remote.ip, remote.port, guest.ip, guest.number)
        offer = Offer(self._mss(), self._socket.room)
        self._connection = TcpConnection(template, secrets.randbits(32), offer, now)
        self._connection.connect(now)
        self._idle_timeout = self._lan.settings.tcp_transitory_timeout
        self._advance(self._connection, now)

    def _reopen(self, frames: list[bytes]) -> None:
        """Do nothing: a guest cannot open a connection to a client of a forward."""

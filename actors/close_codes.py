"""WebTransport close codes of the relay, and one of clients; the reason beside them is for people."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a session was ended. Values never change: clients may act on them."""

    DONE = 0
    """The client said Disconnect."""
    BAD_REQUEST = 1
    """The URL asks for something that does not exist."""
    NOT_REGISTERED = 2
    """A framed session neither registered nor sent a frame in time."""
    SILENT = 3
    """Nothing was heard for the peer timeout."""
    TAKEN_OVER = 4
    """Another session registered the same MAC."""
    FULL = 5
    """The LAN has no port left."""
    SHUTDOWN = 6
    """The relay stops; connect again later."""
    INTERNAL = 7
    """An error of the relay's own."""
    REFUSED = 8
    """The guest's MAC is the gateway's."""
    EXPIRED = 9
    """The token that let the client in has expired, or was revoked."""
    COMING_BACK = 10
    """A client gives up a connection that does not work, and will be back in another one."""

"""Cycles that asyncio and websockets make, taken apart when a connection ends.

What is in a cycle waits for the garbage collector, which takes some 30 ms for what a thousand TLS clients
leave, and everybody else waits meanwhile. All else is freed at once, by its count of references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from websockets.server import ServerProtocol


def dissolve_transport(transport: asyncio.BaseTransport) -> None:
    """Take from a transport that has lost its connection the method of its own that asyncio has it hold."""
    if hasattr(transport, "_read_ready_cb"):
        transport._read_ready_cb = None  # noqa: SLF001


def dissolve_protocol(protocol: ServerProtocol) -> None:
    """Have a WebSocket's protocol that is over hold no frame of its parser, which holds it."""
    protocol.parser.close()
    forget_frames(protocol.parser_exc)


def forget_frames(error: BaseException | None) -> None:
    """Take its traceback from an exception, and theirs from those that led to it.

    A future has the exception that it was given, whose traceback has the frames that have the future.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__

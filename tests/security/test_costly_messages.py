"""WebSocket messages whose frames keep the LAN busy: their sender is served after the others."""

from __future__ import annotations

import asyncio

import costly_frames
import pytest
from watch import spares_the_neighbour
from websocket_attacker import BINARY, frame, many, send_on

SECONDS = 1.0
"""How long each attack lasts; who is closed for it stops earlier."""


async def flood(relay, kind, *, sessions):
    """Have sessions send messages of a kind as fast as TCP takes them."""
    messages = b"".join(frame(BINARY, message) for number in range(64) for message in kind(number))
    await asyncio.gather(*(send_on(relay, many(messages), SECONDS) for _ in range(sessions)))


@pytest.mark.parametrize("kind", costly_frames.KINDS)
def test_eight_sessions_with_messages_full_of_work(relay, kind):
    spares_the_neighbour(relay, lambda: flood(relay, kind, sessions=8))


@pytest.mark.parametrize(
    "kind", [costly_frames.tiny_datagrams, costly_frames.fragments_of_frames, costly_frames.echo_requests]
)
def test_a_session_with_messages_full_of_work(relay, kind):
    spares_the_neighbour(relay, lambda: flood(relay, kind, sessions=1))

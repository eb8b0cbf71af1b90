"""Answers without an end: events, captures, traces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    import contextlib
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import Receive, Scope, Send

_Piece = TypeVar("_Piece")


class Stream(StreamingResponse):
    """What goes on until the client has enough, or the relay ends; then lets go of what was taken for it."""

    def __init__(
        self,
        content: AsyncIterator[str | bytes],
        media_type: str,
        taken: contextlib.ExitStack,
        ending: asyncio.Event,
    ) -> None:
        """``taken`` is closed in any case, whether the answer was begun or not; ``ending`` ends it."""
        super().__init__(until(ending, content), media_type=media_type)
        self._taken = taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._taken:
            await super().__call__(scope, receive, send)


async def until(ending: asyncio.Event, content: AsyncIterator[_Piece]) -> AsyncGenerator[_Piece, None]:
    """Pass pieces on as they come, until there are no more or ``ending`` is set."""
    ended = asyncio.ensure_future(ending.wait())
    try:
        while True:
            following = asyncio.ensure_future(_next(content))
            try:
                await asyncio.wait({ended, following}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
            if ended.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        ended.cancel()


async def _next(content: AsyncIterator[_Piece]) -> _Piece:
    return await anext(content)

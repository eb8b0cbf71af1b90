"""Asks a worker's own admin API, over its socket in the run directory: HTTP/1.0, one answer a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PATIENCE = 10.0
"""Seconds for an answer; one that hangs is replaced sooner."""

MAX_HEAD = 64 * 1024
"""Bytes of an answer's head."""

MAX_ANSWER = 256 << 20
"""Bytes of an answer: 65,536 flows have 30 MB."""

_CHUNK = 1 << 16


class NoAnswerError(Exception):
    """The worker did not answer."""


class Question(NamedTuple):
    """What is asked."""

    method: str
    target: str
    """Path and query."""
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Answer(NamedTuple):
    """What a worker answers."""

    status: int
    content: bytes

    @property
    def is_good(self) -> bool:
        """Whether it is no refusal."""
        return self.status < 400  # noqa: PLR2004 - errors of HTTP begin there

    def json(self) -> Any:
        """Read the content."""
        return json.loads(self.content)


class Stream:
    """An answer that goes on until somebody has enough."""

    def __init__(self, status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = status
        self._reader = reader
        self._writer = writer

    async def read(self, amount: int = _CHUNK) -> bytes:
        """Read some of it, at most this much; nothing at the end."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read(amount)
        return b""

    async def read_exactly(self, amount: int) -> bytes:
        """Read this much; nothing where it ends before."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            return await self._reader.readexactly(amount)
        return b""

    async def lines(self) -> AsyncIterator[bytes]:
        """Read line by line, each with its end."""
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await self._reader.readline():
                yield line

    def close(self) -> None:
        """Have enough."""
        self._writer.transport.abort()


async def open_stream(socket: Path, question: Question) -> Stream:
    """Ask at a socket; the answer is read as it comes. Raises NoAnswerError."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_HEAD)
            try:
                writer.write(_request(question))
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
            except BaseException:
                writer.transport.abort()
                raise
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise NoAnswerError(f"{socket}: {error}") from None
    return Stream(status, reader, writer)


async def ask(socket: Path, question: Question) -> Answer:
    """Ask at a socket, and wait for all of the answer. Raises NoAnswerError."""
    stream = await open_stream(socket, question)
    content = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            while data := await stream.read():
                content += data
                if len(content) > MAX_ANSWER:
                    raise NoAnswerError(f"{socket}: more than {MAX_ANSWER} bytes")
    except TimeoutError:
        raise NoAnswerError(f"{socket}: no whole answer in {PATIENCE:g} s") from None
    finally:
        stream.close()
    return Answer(stream.status, bytes(content))


async def ask_all(sockets: Mapping[int, Path], question: Question) -> dict[int, Answer]:
    """Ask several workers at once; those that do not answer are left out, with a line in the log."""
    found = await asyncio.gather(*(ask(path, question) for path in sockets.values()), return_exceptions=True)
    answers = {}
    for number, answer in zip(sockets, found, strict=True):
        if isinstance(answer, Answer):
            answers[number] = answer
        elif isinstance(answer, NoAnswerError):
            logger.bind(reason="worker not asked").warning("worker {} does not answer: {}", number, answer)
        else:
            raise answer
    return answers


def _request(question: Question) -> bytes:
    fields = {"Host": "vmrelay", "Content-Length": str(len(question.body)), **question.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{question.method} {question.target} HTTP/1.0\r\n{head}\r\n".encode() + question.body

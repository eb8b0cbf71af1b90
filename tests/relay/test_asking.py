from __future__ import annotations

import asyncio
import contextlib

import pytest

from relay.supervisor import asking
from relay.supervisor.asking import NoAnswerError, Question, ask, ask_all, open_stream


@contextlib.asynccontextmanager
async def server(path, answer):
    """Answer every request so; gives what was asked."""
    asked = []
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        asked.append(head + await reader.readexactly(length))
        writer.write(answer)
        if not answer.endswith(b"(goes on)"):
            writer.close()

    listening = await asyncio.start_unix_server(serve, path)
    try:
        yield asked
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()


def run(scenario):
    async def bounded():
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(bounded())


def test_an_answer_is_read_to_its_end(tmp_path):
    async def scenario():
        path = tmp_path / "a"
        async with server(path, b'HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"a": 1}') as asked:
            answer = await ask(path, Question("POST", "/v1/bans?x=y", b'{"b": 2}', {"X-User": "me"}))
            assert (answer.status, answer.is_good, answer.json()) == (201, True, {"a": 1})
            [request] = asked
            assert request.startswith(b"POST /v1/bans?x=y HTTP/1.0\r\n")
            assert b"X-User: me\r\n" in request
            assert request.endswith(b'\r\n\r\n{"b": 2}')

    run(scenario)


@pytest.mark.parametrize("status", [399, 400, 404, 500])
def test_a_refusal_is_an_answer(tmp_path, status):
    async def scenario():
        async with server(tmp_path / "a", b"HTTP/1.1 %d Some Reason\r\n\r\n{}" % status):
            answer = await ask(tmp_path / "a", Question("GET", "/"))
            assert (answer.status, answer.is_good) == (status, status < 400)

    run(scenario)


@pytest.mark.parametrize(
    "said", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"x" * 100_000 + b"(goes on)"]
)
def test_what_is_no_answer_is_told(tmp_path, said):
    async def scenario():
        async with server(tmp_path / "a", said):
            with pytest.raises(NoAnswerError):
                await ask(tmp_path / "a", Question("GET", "/"))

    run(scenario)


def test_one_that_does_not_answer_is_left_out(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 0.2)

    async def scenario():
        good = b"HTTP/1.1 200 OK\r\n\r\n1"
        async with server(tmp_path / "0", good), server(tmp_path / "2", good[:-1] + b"(goes on)"):
            found = await ask_all({n: tmp_path / str(n) for n in range(3)}, Question("GET", "/"))
            assert {number: answer.json() for number, answer in found.items()} == {0: 1}

    run(scenario)
    assert [line.split(":")[0] for line in lines] == [
        "WARNING worker 1 does not answer",
        "WARNING worker 2 does not answer",
    ]


def test_a_stream_is_read_as_it_comes(tmp_path):
    async def scenario():
        async with server(tmp_path / "a", b"HTTP/1.1 200 OK\r\n\r\none\ntwo\n(goes on)"):
            stream = await open_stream(tmp_path / "a", Question("GET", "/"))
            assert stream.status == 200
            lines = stream.lines()
            assert [await anext(lines), await anext(lines)] == [b"one\n", b"two\n"]
            assert await stream.read_exactly(4) == b"(goe"
            assert await stream.read() == b"s on)"
            stream.close()

    run(scenario)

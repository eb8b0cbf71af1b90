"""Lists that outlive the relay."""

from __future__ import annotations

import asyncio
import json

import pytest

from relay.documents import Document
from relay.state import Folder, State


@pytest.fixture
def file(tmp_path):
    return State(Folder(tmp_path / "state")).file("list.json")


def test_what_is_kept_last_is_found_again_whatever_order_writers_come_in(file):
    document = Document(file, "things")

    async def scenario():
        await asyncio.gather(*(document.keep(tuple(range(number))) for number in range(20)))

    asyncio.run(scenario())
    assert Document(file, "things").read() == list(range(19))


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_one_line_and_is_replaced(file, lines, content):
    file.write(content)
    document = Document(file, "things")
    assert document.read() == []
    assert lines == ["WARNING the things that were kept are lost: the file is damaged"]
    asyncio.run(document.keep((1,)))
    assert Document(file, "things").read() == [1]


def test_without_a_folder_nothing_is_kept(lines):
    document = Document(State().file("list.json"), "things")
    asyncio.run(document.keep((1,)))
    assert document.read() == []
    assert lines == []


def test_what_is_the_same_is_not_written_again(file, tmp_path):
    asyncio.run(Document(file, "things").keep((1,)))
    path = tmp_path / "state/list.json"
    path.write_text(json.dumps([1]))
    document = Document(file, "things")
    document.read()
    asyncio.run(document.keep((1,)))
    assert path.read_text() == "[1]"

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass

import pytest
from waiting import counting_turns

from actors.descriptions import FlowDescription
from relay.admin.json_answers import AT_A_TIME, MOST_IN_A_LINE, told_bans, written
from relay.bans import parse_ban


@dataclass(frozen=True)
class Part:
    name: str
    numbers: tuple[float, ...]


def told(content):
    return json.loads(asyncio.run(written(content)))


def test_dataclasses_are_objects_however_deep_they_are():
    assert told({7: [Part("a", (1.5,))]}) == {"7": [{"name": "a", "numbers": [1.5]}]}


def test_numbers_that_json_lacks_are_null_and_others_are_short():
    assert told([math.inf, math.nan, 0.123456789, 3]) == [None, None, 0.123457, 3]


FLOW = FlowDescription("udp", 1, "10.0.2.15:5000", "192.0.2.1:53", "open", 1.5, None, 100, 200)


@pytest.mark.parametrize(
    "content",
    [
        {"default": [FLOW] * 3 * AT_A_TIME},
        {"default": {"names": {f"vm{n}": ("10.0.2.15",) for n in range(3 * AT_A_TIME)}, "cached": 0}},
        {"relay": {"uptime": 1}, "seen": {"peers": [], "flows": [("default", FLOW)] * 3 * AT_A_TIME}},
    ],
)
def test_a_long_answer_is_written_in_slices_with_others_served_in_between(content):
    text, turns = asyncio.run(counting_turns(written(content)))
    assert turns >= 3
    assert text.endswith(b"\n")
    assert len(text.splitlines()) > 3 * AT_A_TIME, "an item has a line"
    assert json.loads(text) == told(content)


def test_a_short_list_stands_in_one_line():
    numbers = list(range(MOST_IN_A_LINE))
    assert json.dumps(numbers) in asyncio.run(written({"a": {"b": numbers}})).decode().splitlines()[2]


@pytest.mark.parametrize("content", [{}, [], {"default": []}, None, "text", {"a": {}}, [[]], 1.5])
def test_what_is_empty_or_single_is_json_too(content):
    assert told(content) == content


def test_bans_tell_for_how_long_they_last():
    [for_ever, for_a_minute] = told(
        told_bans(parse_ban("token", "t", until, "tired") for until in (math.inf, time.time() + 60))
    )
    assert for_ever["ends_in"] is None
    assert 0 < for_a_minute["ends_in"] <= 60
    assert (for_ever["kind"], for_ever["what"], for_ever["reason"]) == ("token", "t", "tired")

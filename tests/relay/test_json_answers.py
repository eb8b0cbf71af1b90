from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass

from relay.admin.json_answers import ApiResponse, told_bans
from relay.bans import parse_ban


@dataclass(frozen=True)
class Part:
    name: str
    numbers: tuple[float, ...]


def told(content):
    return json.loads(bytes(ApiResponse(content).body))


def test_dataclasses_are_objects_however_deep_they_are():
    assert told({7: [Part("a", (1.5,))]}) == {"7": [{"name": "a", "numbers": [1.5]}]}


def test_numbers_that_json_lacks_are_null_and_others_are_short():
    assert told([math.inf, math.nan, 0.123456789, 3]) == [None, None, 0.123457, 3]


def test_bans_tell_for_how_long_they_last():
    [for_ever, for_a_minute] = told(
        told_bans(parse_ban("token", "t", until, "tired") for until in (math.inf, time.time() + 60))
    )
    assert for_ever["ends_in"] is None
    assert 0 < for_a_minute["ends_in"] <= 60
    assert (for_ever["kind"], for_ever["what"], for_ever["reason"]) == ("token", "t", "tired")

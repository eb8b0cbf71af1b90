"""Who may come into which room, by the tables."""

from __future__ import annotations

from typing import Any

import pytest

from relay.room_rules import RoomRule, RoomRules
from relay.settings import Settings, SettingsError, resolve

TABLES = """
allow-origin = ["https://a.example", "https://b.example"]
auth-keys = "keys.json"

[rooms]
auth = "required"

[room.lab]
allow-origin = ["https://a.example"]

[room.lobby]
auth = "optional"
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "relay.toml"
        path.write_text(text)
        return resolve({"config": str(path)}, {})

    return read


tuple_of: Any = tuple
"""Origins as they are, in place of a policy."""


def test_rooms_have_the_rules_of_their_tables(read):
    rules = RoomRules(read(TABLES), tuple_of)
    assert rules.of("default") == RoomRule("off")
    assert rules.of("lab") == RoomRule("required", tuple_of(("https://a.example",)))
    assert rules.of("lobby") == RoomRule("optional")
    assert rules.of("another") == RoomRule("required")


def test_without_tables_all_rooms_are_alike():
    rules = RoomRules(Settings(auth="optional"), tuple_of)
    assert rules.of("default") == rules.of("lab") == RoomRule("optional")


def test_other_settings_are_other_rules(read):
    rules = RoomRules(read(TABLES), tuple_of)
    rules.take(read(TABLES.replace('"https://a.example"]', '"https://c.example"]')))
    assert rules.of("lab").origins == ("https://c.example",)
    assert rules.of("lobby").origins is None


@pytest.mark.parametrize(
    "text",
    ["[rooms]\nauth = 'required'", "[room.lab]\nauth = 'optional'", "auth-keys = 'k'\n[rooms]\nauth = 'off'"],
)
def test_rooms_that_ask_for_tokens_need_keys_and_keys_a_room_that_asks(read, text):
    with pytest.raises(SettingsError, match="need --auth-keys"):
        read(text)

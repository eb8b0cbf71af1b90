"""Which lines are shown, by part; test_logs.py has what becomes of them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.log_filter import LEVELS, MAX_RULES, Levels, parse_log_filter


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", ()),
        ("aioquic=debug, switch=Debug,*=info", (("aioquic", "debug"), ("switch", "debug"), ("*", "info"))),
        ("transport.quic=error", (("transport.quic", "error"),)),
        ("switch=debug,switch=info", (("switch", "info"),)),
    ],
)
def test_a_filter_names_parts_and_their_levels(text, rules):
    assert parse_log_filter(text) == rules


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("switch", "must be PART=LEVEL"),
        ("switch=loud", "must be PART=LEVEL with the level debug, info, warning, error"),
        ("=debug", "must name a part"),
        ("swich=debug", "must name a part"),
        ("quic=debug", "must name a part"),
        (",".join(f"relay.m{number}=debug" for number in range(MAX_RULES + 1)), "at most 64"),
    ],
)
def test_nonsense_is_refused_with_what_is_expected(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_log_filter(text)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("switch", "debug"),
        ("actors.lan.switch", "debug"),
        ("gateway", "warning"),
        ("transport.quic.endpoint", "error"),
        ("transport.web.web_listener", "info"),
        ("quic", "info"),
        ("asyncio", "warning"),
        ("elsewhere", "warning"),
    ],
)
def test_the_nearest_rule_decides(name, level):
    rules = "*=warning,switch=debug,transport.quic=error,transport=info,aioquic=info"
    levels = Levels("info", parse_log_filter(rules))
    assert levels.of(name) == LEVELS[level]
    assert levels.lowest == LEVELS["debug"]


def test_without_rules_the_level_is_for_what_is_ours():
    levels = Levels("debug")
    assert levels.of("relay.app") == levels.of("switch") == LEVELS["debug"]
    assert levels.of("quic") == levels.of("asyncio") == levels.of_libraries == LEVELS["info"]


@given(st.text(max_size=50))
def test_any_text_is_a_filter_or_an_error(text):
    with contextlib.suppress(ValueError):
        Levels("info", parse_log_filter(text)).of(text)

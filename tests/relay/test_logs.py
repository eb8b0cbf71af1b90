from __future__ import annotations

import asyncio
import io
import json
import logging
from time import thread_time

import pytest
from loguru import logger

from relay.log_filter import parse_log_filter
from relay.logs import BURST, WINDOW, Limiter, keep_summing_up, redact, setup, write_summaries


@pytest.fixture
def restored():
    """Leave loguru and logging as they were."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    logger.remove()
    root.handlers[:], root.level = before
    for name in ("quic", "http3"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def logs(restored):
    class Logs(io.StringIO):
        limiter: Limiter

        def setup(self, form: str = "human", level: str = "info", rules: str = "") -> Logs:
            self.limiter = setup(form, level, self, parse_log_filter(rules))
            return self

        def lines(self) -> list[str]:
            return self.getvalue().splitlines()

        def objects(self) -> list[dict]:
            return [json.loads(line) for line in self.lines()]

    return Logs()


# -- lines --------------------------------------------------------------------------------------------


def test_a_human_line_has_time_level_message_and_the_fields_it_does_not_name(logs):
    logs.setup()
    logger.bind(peer=7, path="/x").info("peer {} connected", 7)
    [line] = logs.lines()
    assert line.endswith(" INFO    peer 7 connected path=/x")
    assert line[:4].isdigit()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("web", "web"),
        ("web level=ERROR remote=192.0.2.9", '"web level=ERROR remote=192.0.2.9"'),
        ("web\n", r'"web\n"'),
        ('a" b', r'"a\" b"'),
        ('a\\" b', r'"a\\\" b"'),
        ("remote=192.0.2.9", '"remote=192.0.2.9"'),
        ("a\u00a0b=c", r'"a\xa0b=c"'),
    ],
)
def test_no_field_begins_within_anothers_value(logs, name, written):
    logs.setup()
    logger.bind(name=name, carrier="websocket").info("peer 7 left")
    [line] = logs.lines()
    assert line.endswith(f"peer 7 left name={written} carrier=websocket")


def test_a_json_line_has_always_the_same_keys(logs):
    logs.setup("json")
    logger.bind(peer=7, remote="192.0.2.1:5").warning("peer {} left", 7)
    logging.getLogger("somewhere").warning("plain %s {braces}", "old")
    ours, library = logs.objects()
    assert list(ours) == list(library) == ["time", "level", "part", "message", "fields"]
    assert ours["level"] == "warning"
    assert ours["message"] == "peer 7 left"
    assert ours["fields"] == {"peer": 7, "remote": "192.0.2.1:5"}
    assert ours["time"].endswith("+00:00")
    assert library["part"] == "somewhere"
    assert library["message"] == "plain old {braces}"


@pytest.mark.parametrize("form", ["human", "json", "auto"])
def test_what_a_client_sends_cannot_forge_lines_or_colours(logs, form):
    logs.setup(form)
    logger.bind(path="/\r\nfield").info("path {}", "/\n2030-01-01 ERROR forged\x1b[31m\u2028\ud800")
    [line] = logs.lines()
    assert "\x1b" not in line
    assert "forged" in line


def test_long_texts_are_cut(logs):
    logs.setup()
    logger.bind(path="p" * 200_000).info("request {}", "x" * 200_000)
    [line] = logs.lines()
    assert len(line) < 9000
    assert "characters)" in line


def test_secrets_are_blotted_out(logs):
    assert redact("GET /?token=abc&room=x") == "GET /?token=***&room=x"
    assert redact("Access_Token=abc#x password=p") == "Access_Token=***#x password=***"
    assert redact("/?my-token=abc&x1token=abc&tokens=3") == "/?my-token=***&x1token=***&tokens=3"
    for form in ("human", "json"):
        logs.setup(form)
        error = ValueError("https://relay/?token=hunter2")
        logger.bind(url="https://relay/?token=hunter2", token="hunter2").info("/?a=b&token=hunter2")
        logger.opt(exception=error).error("failed")
        logging.getLogger("x").error("/?token=%s", "hunter2")
    assert "hunter2" not in logs.getvalue()
    assert logs.getvalue().count("token=***") >= 6


def test_they_are_found_in_one_pass_over_what_anybody_may_have_said():
    text = f"/{'a-' * 100_000}?x=1&token=abc"
    began = thread_time()
    assert redact(text) == text.replace("abc", "***")
    assert thread_time() - began < 1  # some milliseconds; minutes where each hyphen is another beginning


def test_an_exception_comes_with_its_traceback_but_no_values(logs):
    def fail() -> None:
        private = "hunter2"
        raise KeyError(len(private))

    logs.setup("json")
    try:
        fail()
    except KeyError:
        logger.exception("the handler failed")
    [entry] = logs.objects()
    assert entry["message"] == "the handler failed"
    assert "KeyError: 7" in entry["error"]
    assert "hunter2" not in entry["error"]

    logs.setup("human")
    logger.opt(exception=ValueError("one\x1b[0m\ntwo")).error("again")
    assert "\x1b" not in logs.getvalue()


def test_colour_only_for_auto_on_a_terminal(logs, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(logs, "isatty", lambda: True)
    logs.setup("auto")
    logger.warning("yellow")
    assert logs.getvalue().startswith("\x1b[33m")
    logs.truncate(0)
    logs.setup("human")
    logger.warning("plain")
    monkeypatch.setenv("NO_COLOR", "1")
    logs.setup("auto")
    logger.warning("plain")
    assert "\x1b" not in logs.getvalue()


# -- levels and libraries -----------------------------------------------------------------------------


def test_levels_hide_what_is_below(logs):
    logs.setup(level="warning")
    logger.info("quiet")
    logging.getLogger("asyncio").info("quiet")
    logging.getLogger("asyncio").error("loud")
    assert [line.rpartition(" ")[2] for line in logs.lines()] == ["library=asyncio"]


@pytest.mark.parametrize("level", ["debug", "info"])
def test_what_libraries_say_in_detail_is_shown_where_they_are_named(logs, level):
    logs.setup(level=level, rules="transport=debug")
    logging.getLogger("quic").warning("for every connection")
    logging.getLogger("http3").info("for every connection")
    logging.getLogger("asyncio").debug("Using selector")
    assert logs.lines() == []
    logs.setup(level=level, rules="aioquic=debug,asyncio=debug")
    logging.getLogger("quic").warning("for every connection")
    logging.getLogger("asyncio").debug("Using selector")
    first, second = logs.lines()
    assert " DEBUG   for every connection" in first
    assert " DEBUG   Using selector" in second


def test_parts_have_levels_of_their_own(logs):
    logs.setup("json", "warning", "switch=debug,gateway=info")
    for part in ("switch", "gateway", "policy"):
        logger.bind(library=part).debug("detail of {}", part)
        logger.bind(library=part).info("news of {}", part)
    assert [line["message"] for line in logs.objects()] == [
        *("detail of switch", "news of switch", "news of gateway"),
    ]


def test_lines_about_frames_are_summed_up_though_they_are_debug(logs):
    logs.setup(level="debug")
    for _ in range(100):
        logger.bind(library="switch", thinned=True, reason="a drop").debug("dropped")
    assert len(logs.lines()) == BURST
    assert "thinned" not in logs.getvalue()
    write_summaries(logs.limiter)
    assert "dropped (and 90 more like it)" in logs.lines()[-1]


def test_a_librarys_broken_log_call_still_makes_a_line(logs):
    logs.setup()
    logging.getLogger("x").error("%d", "not a number")
    assert "not a number" in logs.getvalue()


# -- floods -------------------------------------------------------------------------------------------


def test_the_first_of_a_kind_pass_and_the_rest_is_summed_up(logs):
    logs.setup("json")
    for number in range(100_000):
        logger.warning("bad frame {}", number)
        if number % 1000 == 0:
            logger.info("something else {}", number)
    assert len(logs.lines()) == 2 * BURST

    write_summaries(logs.limiter)
    summaries = logs.objects()[2 * BURST :]
    assert [(entry["level"], entry["fields"]["repeated"]) for entry in summaries] == [
        ("warning", 100_000 - BURST),
        ("info", 100 - BURST),
    ]
    assert summaries[0]["message"] == "bad frame 99999 (and 99990 more like it)"
    write_summaries(logs.limiter)
    assert len(logs.lines()) == 2 * BURST + 2, "told once"


def test_a_flood_through_standard_logging_too(logs):
    logs.setup()
    for _ in range(1000):
        logging.getLogger("asyncio").error("again")
    assert len(logs.lines()) == BURST


def test_a_reason_makes_a_kind_of_its_own(logs):
    logs.setup()
    for number in range(100):
        logger.bind(reason=f"reason {number % 2}").warning("dropped")
    assert len(logs.lines()) == 2 * BURST


def test_debug_lines_are_exempt(logs):
    logs.setup(level="debug")
    for _ in range(100):
        logger.debug("detail")
    assert len(logs.lines()) == 100


def test_windows_open_and_end_with_the_time():
    limiter = Limiter(burst=2, window=60)
    admitted = [limiter.admits("kind", "INFO", f"text {now}", now) for now in (0, 1, 2, 59, 60, 61, 62)]
    assert admitted == [True, True, False, False, True, True, False]
    assert list(limiter.summaries(119)) == []
    assert list(limiter.summaries(120)) == [("INFO", 3, "text 62")]
    assert list(limiter.summaries(1000)) == []
    assert limiter.admits("kind", "INFO", "text", 1000)


def test_a_quiet_kind_is_forgotten_without_a_word():
    limiter = Limiter(max_kinds=1)
    assert limiter.admits("kind", "INFO", "text", 0)
    assert list(limiter.summaries(WINDOW)) == []
    assert all(limiter.admits("other", "INFO", "text", WINDOW) for _ in range(BURST))


def test_the_number_of_kinds_is_bounded_and_the_rest_shares_a_window():
    limiter = Limiter(max_kinds=100)
    passed = sum(limiter.admits(f"kind {number}", "INFO", "text", 0) for number in range(10_000))
    assert passed == 100 + BURST
    assert sum(count for _, count, _ in limiter.summaries(WINDOW)) == 10_000 - passed


def test_summaries_are_written_as_windows_end(logs, monkeypatch):
    logs.setup()
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)

    async def run() -> None:
        for _ in range(BURST + 5):
            logger.info("again")
        monkeypatch.setattr("time.monotonic", lambda: 1000.0 + WINDOW)
        task = asyncio.create_task(keep_summing_up(logs.limiter, interval=0))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert "again (and 5 more like it)" in logs.lines()[-1]


def test_lines_that_are_all_kept_say_nothing_of_it(logs):
    logs.setup("json")
    for number in range(2 * BURST):
        logger.bind(unthinned=True, number=number).info("answer")
    assert [line["fields"] for line in logs.objects()] == [{"number": number} for number in range(2 * BURST)]
    logs.setup()
    logger.bind(unthinned=True).info("answer")
    assert "unthinned" not in logs.lines()[-1]


def test_lines_of_who_comes_and_goes_all_the_time_are_bounded(logs, monkeypatch):
    monkeypatch.setattr("relay.logs.BURST_OF_SESSIONS", 3)
    logs.setup("json")
    for number in range(5):
        logger.bind(unthinned=True, event="joined").info("peer {} registered", number)
        logger.bind(unthinned=True, event="changed").info("answer {}", number)
    said = [line["message"] for line in logs.objects()]
    assert [text for text in said if text.startswith("peer")] == [f"peer {n} registered" for n in range(3)]
    assert [text for text in said if text.startswith("answer")] == [f"answer {n}" for n in range(5)]
    write_summaries(logs.limiter)
    assert logs.objects()[-1]["message"] == "peer 4 registered (and 2 more like it)"

"""Logs: one line per event that an operator cares about, to standard error.

loguru carries them; what libraries say through standard logging comes the same way. A line is for a human
or one JSON object, and neither can be forged by what a client sends: control characters are escaped, long
texts cut, secrets blotted out.

Nothing that is repeated can fill a disk. Of each kind of event (a place in the code, or the ``reason`` bound
to the line) the first few of a window pass, the others are counted, and at the window's end one line says
how many there were. Debug lines are exempt, who asks for them wants all; but not those that come by the
frame, which are marked so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import time
import traceback
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loguru import logger

from relay.log_filter import LIBRARIES, PARTS, Levels
from relay.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from loguru import Message, Record

    from relay.line_writer import Output
    from relay.log_filter import Rules

WINDOW = 60.0
"""Seconds over which repeated events are summed up."""

BURST = 10
"""Lines of one kind that pass per window: enough to see what is going on."""

MAX_KINDS = 1024
"""Kinds of events that are told apart; any beyond that share one window."""

MAX_TEXT = 4000
"""Characters of one message or field; a request's path alone may be longer."""

MAX_TRACEBACK = 8000
"""Characters of a traceback, counted from its end, where the error stands."""

UNTHINNED = "unthinned"
"""Bound to lines that are all kept: answers to an operator, and who had which address when. The latter have
SESSIONS as their ``event``, and a bound that only strangers reach who join and leave all the time."""

SESSIONS = frozenset({"joined", "left"})
BURST_OF_SESSIONS = 5000
"""Lines that pass per window of each of these events: more sessions than a relay may have come and go."""

THINNED = "thinned"
"""Bound to debug lines that are summed up as others are: those about frames."""

CHATTY = LIBRARIES["aioquic"]
"""aioquic's loggers, with a line per connection and more. Debug, whatever they call it."""

_SECRETS = r"secret|password|passwd|authorization"
_SECRET = re.compile(rf"(?i)(token|\b(?:{_SECRETS}))=[^\s&#\"'<>]+")
"""What stands before ``token`` is left out of account: a pattern for it would look at the rest of a word at
each hyphen in it, half a second for a path of 8 KB, which anybody may ask for."""
_SECRET_FIELD = re.compile(rf"(?i)[a-z_-]*token|{_SECRETS}")

_FIELD_SIGNS = re.compile(r"[\s=\"]")

_COLOURS = {"DEBUG": "\033[2m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}
_PLAIN = "\033[0m"


@dataclass(slots=True)
class _Window:
    ends: float
    passed: int = 0
    held_back: int = 0
    level: str = "INFO"
    text: str = ""


class Limiter:
    """Decides which lines pass and counts the others, by kind of event; time is a parameter."""

    def __init__(self, *, burst: int = BURST, window: float = WINDOW, max_kinds: int = MAX_KINDS) -> None:
        self._burst = burst
        self._length = window
        self._max_kinds = max_kinds
        self._windows: dict[Hashable, _Window] = {}

    def admits(self, kind: Hashable, level: str, text: str, now: float, burst: int | None = None) -> bool:
        """Whether this line of ``kind`` passes; otherwise it is counted for the summary.

        ``burst`` lines of it pass per window, where that is not what goes for all others.
        """
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= self._max_kinds:
                kind = None
            window = self._windows.setdefault(kind, _Window(now + self._length))
        if now >= window.ends:
            # Whatever was held back stays in the count until summaries() has told of it.
            window.ends, window.passed = now + self._length, 0
        if window.passed < (self._burst if burst is None else burst):
            window.passed += 1
            return True
        window.held_back += 1
        window.level, window.text = level, text
        return False

    def summaries(self, now: float) -> Iterator[tuple[str, int, str]]:
        """Take out what was held back in windows that are over: level, count and the last such text."""
        for kind, window in list(self._windows.items()):
            if now < window.ends:
                continue
            del self._windows[kind]
            if window.held_back:
                yield window.level, window.held_back, window.text


def setup(form: str, level: str, output: Output, rules: Rules = ()) -> Limiter:
    """Send all logs of the process to ``output``, which never waits (``relay.line_writer``).

    ``form`` is ``"json"``, ``"human"``, or ``"auto"``: human, in colour on a terminal. ``level`` is the
    lowest that is shown: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``; ``rules`` are levels of
    single parts (``relay.log_filter``). Returns what counts the
    lines that are held back; the caller sees to it that it is told of (:func:`keep_summing_up`).
    """
    limiter = Limiter()
    colour = form == "auto" and output.isatty() and "NO_COLOR" not in os.environ
    line = _json_line if form == "json" else _coloured_line if colour else _human_line

    def write(record: Record) -> None:
        if _passes(record, limiter):
            output.write(line(record) + "\n")

    _Sink.add = lambda shown: add_reader(write, shown)
    logger.remove()
    _Sink.number = None
    set_level(level, rules)
    return limiter


def add_reader(read: Callable[[Record], object], level: int | str) -> int:
    """Have all records of a level and above read by a function; return what ``logger.remove`` takes.

    loguru would make a text of each first, with a traceback that shows the values of variables, and hand
    that on under a lock. A filter sees the record before: this one lets nothing through to the sink.
    """

    def read_only(record: Record) -> bool:
        read(record)
        return False

    return logger.add(_never_called, level=level, filter=read_only)


def _never_called(_: Message) -> None:
    """Be the sink behind a filter that lets nothing through."""


class _Sink:
    """Where the process's lines go."""

    add: Callable[[int], int]
    number: int | None = None
    levels = Levels("info")


def set_level(level: str, rules: Rules = ()) -> None:
    """Show lines of this level and above from now on, and of parts as the rules say."""
    _Sink.levels = Levels(level, rules)
    before, _Sink.number = _Sink.number, _Sink.add(_Sink.levels.lowest)
    if before is not None:
        logger.remove(before)
    _intercept(_Sink.levels)


def shows_decisions() -> bool:
    """Whether lines about single frames are shown, of any part that decides about them."""
    return any(_Sink.levels.of(part) <= logging.DEBUG for part in PARTS)


def write_summaries(limiter: Limiter, now: float = math.inf) -> None:
    """Log what was held back, of windows that are over at ``now`` (monotonic), or of all."""
    for level, count, text in limiter.summaries(now):
        logger.bind(repeated=count).log(level, "{} (and {} more like it)", text, count)


async def keep_summing_up(limiter: Limiter, interval: float = WINDOW / 4) -> None:
    """Write the summaries as their windows end, until cancelled; then :func:`write_summaries` is due."""
    while True:
        await asyncio.sleep(interval)
        write_summaries(limiter, time.monotonic())


def redact(text: str) -> str:
    """Blot out what stands after ``token=`` and the like."""
    # The search costs 5 µs, and a line has a dozen texts; most have nothing that it could find.
    return _SECRET.sub(r"\1=***", text) if "=" in text else text


# -- from a record to a line --------------------------------------------------------------------------


def _passes(record: Record, limiter: Limiter) -> bool:
    extra = record["extra"]
    level = record["level"].no
    if level < _Sink.levels.of(extra.get("library") or record["name"] or ""):
        return False
    if (level < logging.INFO and THINNED not in extra) or "repeated" in extra:
        return True
    if extra.get(UNTHINNED):
        event = extra.get("event")
        return event not in SESSIONS or limiter.admits(
            event, record["level"].name, record["message"], time.monotonic(), BURST_OF_SESSIONS
        )
    kind = extra.get("reason") or (record["name"], record["line"])
    return limiter.admits(kind, record["level"].name, record["message"], time.monotonic())


_NOT_SHOWN = frozenset({"reason", "event", UNTHINNED, THINNED})


def _human_line(record: Record) -> str:
    """Local time, level, message; fields that the message does not name; a traceback on lines of its own."""
    moment = record["time"].replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
    text = _printable(record["message"])
    fields = ""
    for name, value in record["extra"].items():
        if name not in _NOT_SHOWN:
            shown = "***" if _is_secret(name) else _redacted(str(value))
            if shown not in text:
                fields += f" {name}={printable(_one_word(shown))}"
    error = "".join(f"\n{_printable(line)}" for line in _traceback(record).splitlines())
    return f"{moment} {record['level'].name:<7} {text}{fields}{error}"


def _one_word(text: str) -> str:
    """Quote a field's value in which other fields could seem to begin, or to end."""
    if not _FIELD_SIGNS.search(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _coloured_line(record: Record) -> str:
    return f"{_COLOURS.get(record['level'].name, '')}{_human_line(record)}{_PLAIN}"


def _json_line(record: Record) -> str:
    """One object with always the same keys; ``error`` (a traceback) only where there is one."""
    entry: dict[str, Any] = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "level": record["level"].name.lower(),
        "part": record["extra"].get("library") or record["name"],
        "message": _redacted(record["message"]),
        "fields": {
            name: _field(name, value)
            for name, value in record["extra"].items()
            if name not in {"library", UNTHINNED, THINNED}
        },
    }
    if error := _traceback(record):
        entry["error"] = error
    return json.dumps(entry, default=lambda value: _redacted(str(value)))


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    """Whether a field of this name is not for everybody's eyes."""
    return _SECRET_FIELD.fullmatch(name) is not None


def _field(name: str, value: object) -> object:
    if _is_secret(name):
        return "***"
    return value if isinstance(value, bool | int | float) or value is None else _redacted(str(value))


def _traceback(record: Record) -> str:
    error = record["exception"]
    if error is None or error.value is None:
        return ""
    return redact("".join(traceback.format_exception(error.value))[-MAX_TRACEBACK:].rstrip())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def _redacted(text: str) -> str:
    # Most fields are short and name no secret.
    return redact(_cut(text)) if "=" in text or len(text) > MAX_TEXT else text


def _printable(text: str) -> str:
    return printable(_redacted(text))


# -- standard logging ---------------------------------------------------------------------------------


class _ToLoguru(logging.Handler):
    """Hands standard logging's records on."""

    def emit(self, record: logging.LogRecord) -> None:
        chatty = record.name.partition(".")[0] in CHATTY
        bound = logger.bind(library=record.name, reason=f"{record.name}:{record.lineno}")
        bound.opt(exception=record.exc_info).log(
            "DEBUG" if chatty else _level(record.levelno), _message(record)
        )


def _intercept(levels: Levels) -> None:
    logging.basicConfig(handlers=[_ToLoguru()], level=levels.of_libraries, force=True)
    # Not shown, not formatted: aioquic has a line for every connection.
    for words in LIBRARIES.values():
        for name in words:
            level = levels.of(name)
            hidden = name in CHATTY and level > logging.DEBUG
            logging.getLogger(name).setLevel(logging.CRITICAL + 1 if hidden else level)


def _level(number: int) -> str:
    """Bring a level to the nearest one that loguru knows too, downwards."""
    return next(
        (name for name in ("CRITICAL", "ERROR", "WARNING", "INFO") if number >= getattr(logging, name)),
        "DEBUG",
    )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg} {record.args}"

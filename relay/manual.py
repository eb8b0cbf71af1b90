"""``vmrelay man``: the manual page, made of the parsers of the command line, in groff's man(7) macros."""

from __future__ import annotations

import argparse
import os
import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from relay.version import version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ParserOf = Callable[[str | None], argparse.ArgumentParser]

EPILOG = """\
  vmrelay man | man -l -
  vmrelay man > ~/.local/share/man/man1/vmrelay.1      then "man vmrelay" finds it"""

_TITLES = {"positional arguments": "arguments", "options": "options"}
_LEADING = re.compile(r"^([.'])", re.MULTILINE)


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay man``: none."""


def run(_: argparse.Namespace) -> int:
    """Print the page; return the exit status."""
    from relay import main

    closing = main.EXAMPLES.partition("\n\n")[2]  # behind the commands, which have a section of their own
    print(page(main.parser_of, main.COMMANDS, closing), end="")  # noqa: T201
    return 0


def page(parser_of: ParserOf, commands: dict[str, str], closing: str) -> str:
    """Write the page.

    ``parser_of`` gives the parser of a command, or of the relay for None; ``closing`` is what the relay's
    help ends with, in paragraphs that begin with a title.
    """
    relay = parser_of(None)
    lines = [
        f'.TH VMRELAY 1 "{_date()}" "vmrelay {version()}" "User Commands"',
        ".nh",  # no hyphens within names of flags and variables, and no stretched lines
        ".ad l",
        ".SH NAME",
        rf"vmrelay \- {_escape(_sentence(relay))}",
        ".SH SYNOPSIS",
        *_synopsis(relay),
        ".SH DESCRIPTION",
        "Without a command it serves. Each command has its section below.",
        *_options(relay, ".SH"),
        ".SH COMMANDS",
        *(line for name, summary in commands.items() for line in (".TP", rf"\fB{name}\fR", _escape(summary))),
    ]
    for name in commands:
        if name != "serve":
            lines += [f'.SH "VMRELAY {_escape(name.upper())}"', *_command(parser_of(name))]
    for title, text in _paragraphs(closing):
        lines += [f'.SH "{_escape(title.upper())}"', *_verbatim(text)]
    paragraphs = (line for before, line in pairwise(["", *lines]) if not _is_void(before, line))
    return "\n".join(paragraphs) + "\n"


def _date() -> str:
    """Tell the day: today, or that of a build that is to come out the same again (SOURCE_DATE_EPOCH)."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = datetime.fromtimestamp(int(given), UTC) if given.isdecimal() else datetime.now(UTC)
    return f"{at:%Y-%m-%d}"


def _is_void(before: str, line: str) -> bool:
    """Whether a line begins a paragraph where a heading has begun one."""
    return line == ".PP" and before.startswith((".SH", ".SS"))


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Write the section of a command, and below it of its own commands."""
    yield _escape(parser.description or "")
    yield from _synopsis(parser)
    yield from _options(parser, ".SS")
    if parser.epilog:
        yield from _verbatim(parser.epilog)
    for action in parser._actions:  # noqa: SLF001 - argparse tells of its actions no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - same
            for name, inner in action.choices.items():
                yield f'.SS "{_escape(inner.prog)}"'
                helps = [chosen.help for chosen in action._choices_actions if chosen.dest == name]  # noqa: SLF001
                yield _escape(inner.description or next(iter(helps), None) or "")
                yield from _synopsis(inner)
                yield from _options(inner, None)


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    for number, each in enumerate(re.split(r" (?=vmrelay )", usage)):
        yield ".PP" if number == 0 else ".br"
        name, _, rest = each.partition(" [")
        yield rf"\fB{_escape(name)}\fR" + (f" {_escape('[' + rest)}" if rest else "")


def _options(parser: argparse.ArgumentParser, heading: str | None) -> Iterator[str]:
    """Write what a parser takes, group by group, in the order of its help."""
    formatter = parser._get_formatter()  # noqa: SLF001 - it alone knows how help is written
    for group in parser._action_groups:  # noqa: SLF001 - same
        shown = [
            action
            for action in group._group_actions  # noqa: SLF001 - same
            if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        ]
        if not shown:
            continue
        title = group.title or ""
        if heading is not None:
            yield f'{heading} "{_escape(_TITLES.get(title, title).upper())}"'
        if group.description:
            yield _escape(group.description)
        for action in shown:
            yield ".TP"
            yield rf"\fB{_escape(formatter._format_action_invocation(action))}\fR"  # noqa: SLF001 - same
            if action.help:
                yield _escape(formatter._expand_help(action))  # noqa: SLF001 - same


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    """Give the parts of a text whose titles are lines that end with a colon, or what stands before one."""
    for paragraph in text.strip("\n").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first.endswith(":") and rest:
            yield first.removesuffix(":"), rest
        else:
            yield "notes", paragraph


def _verbatim(text: str) -> Iterator[str]:
    yield from (".PP", ".nf", _escape(text.strip("\n")), ".fi")


def _sentence(parser: argparse.ArgumentParser) -> str:
    text = (parser.description or "").rstrip(".")
    return text[:1].lower() + text[1:]


def _escape(text: str) -> str:
    """Write text so that groff takes nothing of it for a request (groff(7))."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    ascii_only = "".join(letter if letter.isascii() else rf"\[u{ord(letter):04X}]" for letter in escaped)
    return _LEADING.sub(r"\\&\1", ascii_only)

"""The manual page, as groff shows it, against what the commands' own help says."""

from __future__ import annotations

import argparse
import re
import sys

import pytest
from processes import run

from relay import main
from relay.manual import page

NESTED = {"certs", "token"}
"""Commands with commands of their own."""
FLAG = re.compile(r"(?<![\w/.-])--?[a-zA-Z][\w-]*")


def shown(text):
    """Have groff show a page: (text in one line with single spaces, what groff complains of)."""
    # Wide, so that no word is divided.
    done = run("groff", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", "-rLL=2000n", input=text)
    plain = done.stdout.replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-")
    return " ".join(plain.split()), done.stderr


@pytest.fixture(scope="module")
def manual():
    return run(sys.executable, "-m", "relay.main", "man").stdout


@pytest.fixture(scope="module")
def text(manual):
    return shown(manual)[0]


def helped(*words):
    return run(sys.executable, "-m", "relay.main", *words, "--help", env={"COLUMNS": "2000"}).stdout


def parts(text):
    """Give the sections of commands by their names, and what stands before them under an empty one."""
    found = re.split(r"(?= VMRELAY [A-Z]+ )", text)
    return {"": found[0]} | {part.split()[1].lower(): part for part in found[1:]}


def test_groff_has_nothing_to_complain_of(manual):
    assert manual.startswith(".TH VMRELAY 1 ")
    assert shown(manual)[1] == ""
    assert manual.isascii()


def test_mandoc_has_neither(manual):
    assert run("mandoc", "-T", "lint", "-W", "warning", input=manual, check=False).stdout == ""
    assert re.search(r"^\.S[HS] .*\n\.PP$", manual, re.MULTILINE) is None  # a heading begins a paragraph


def test_it_is_of_today_or_of_the_day_that_a_build_is_given():
    today = run(sys.executable, "-m", "relay.main", "man", env={"SOURCE_DATE_EPOCH": ""}).stdout
    assert re.match(r'\.TH VMRELAY 1 "20\d\d-\d\d-\d\d" ', today)
    given = run(sys.executable, "-m", "relay.main", "man", env={"SOURCE_DATE_EPOCH": "1700000000"}).stdout
    assert given.startswith('.TH VMRELAY 1 "2023-11-14" ')


def test_each_command_has_its_section_and_its_line(text):
    told = parts(text)
    assert told.keys() - {""} == main.COMMANDS.keys() - {"serve"}
    for name, summary in main.COMMANDS.items():
        assert f"{name} {summary}" in told[""]


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_a_command_has_the_flags_of_its_help_with_the_same_words(text, name):
    section = parts(text)["" if name == "serve" else name]
    said = helped(name)
    flags = set(FLAG.findall(said.partition("\n\n")[0]))
    assert flags <= set(FLAG.findall(section))
    for line in said.splitlines():
        # A flag with its help, or help that stands below it.
        if match := re.match(r" {2,24}(?:-\S.*? {2,}| {20,})(\S.*)$", line):
            assert " ".join(match[1].split()) in section, line
    inners = re.findall(r"^    (\w+) ", said, re.MULTILINE) if name in NESTED else ()
    assert bool(inners) is (name in NESTED)
    for inner in inners:
        assert f"vmrelay {name} {inner}" in section
        assert set(FLAG.findall(helped(name, inner).partition("\n\n")[0])) <= set(FLAG.findall(section))


def test_a_flag_that_no_help_has_is_not_in_it(text):
    told = set()
    for name in main.COMMANDS:
        parser = main.parser_of(name)
        inner = [
            choice
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
            for choice in action.choices.values()
        ]
        told |= {flag for each in (parser, *inner) for flag in each._option_string_actions}
    flags = {flag for flag in FLAG.findall(text) if flag.startswith("--")}
    assert flags <= told


def test_what_would_be_requests_of_groff_is_text():
    parser = argparse.ArgumentParser(prog="vmrelay", description="First.\n.so /etc/passwd\n'ds x \\*[y]")
    parser.add_argument("--odd", metavar='"N"', help='.ig\\n "quoted" … 100%%')
    written = page(lambda _: parser, {}, "examples:\n  .one\n  'two\n\nlast words")
    text, complaints = shown(written)
    assert complaints == ""
    for words in (
        ".so /etc/passwd",
        "'ds x \\*[y]",
        '--odd "N"',
        '.ig\\n "quoted" … 100%',
        ".one 'two",
        "last words",
    ):
        assert words in text


def test_help_that_is_suppressed_is_left_out(text):
    assert "--extcap-interfaces" not in text
    assert "--install" in parts(text)["extcap"]

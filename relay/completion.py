"""``vmrelay completion``: what a shell needs to complete the command line."""

from __future__ import annotations

import argparse

import shtab

from relay.settings import OPTIONS

SHELLS = ("bash", "zsh", "fish")

_PATHS = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "PATH": shtab.FILE, "WHERE": shtab.FILE}
"""Words for values that are paths, as parsers have them, and what shtab completes there."""

EPILOG = """\
  bash:  vmrelay completion bash > ~/.local/share/bash-completion/completions/vmrelay
  zsh:   vmrelay completion zsh > "${fpath[1]}/_vmrelay"
  fish:  vmrelay completion fish > ~/.config/fish/completions/vmrelay.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay completion``."""
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="for which shell")


def run(args: argparse.Namespace) -> int:
    """Print the script; return the exit status."""
    from relay.main import whole_parser

    parser = whole_parser()
    _offer_values(parser)
    print(shtab.complete(parser, shell=args.shell))  # noqa: T201
    return 0


def _offer_values(parser: argparse.ArgumentParser) -> None:
    """Have values completed too: paths of files, and settings of which there are only so many values."""
    for action in parser._actions:  # noqa: SLF001 - argparse tells of its actions no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - same
            for inner in action.choices.values():
                _offer_values(inner)
        elif action.metavar in _PATHS:
            setattr(action, "complete", _PATHS[action.metavar])  # noqa: B010 - shtab's own, unknown to argparse
        elif (option := OPTIONS.get(action.dest)) is not None and option.kind.choices:
            action.choices = option.kind.choices

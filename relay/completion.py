"""``vmrelay completion``: what a shell needs to complete the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import shtab

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")

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

    print(shtab.complete(whole_parser(), shell=args.shell))  # noqa: T201
    return 0

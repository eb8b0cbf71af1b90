"""The ``vmrelay`` command.

Without a command it serves. Each command's module offers ``add_arguments(parser)`` and ``run(args)``, and is
imported only when it is the one that was asked for: scapy and aioquic take a second that ``--help`` need not,
and in which signals come already.

Exit status: 0 done, 1 it could not be done (the port is taken), 2 it was asked for wrongly; 130 interrupted.
What a command's status tells beyond that (``why``) stands in its own help.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from relay.complaint import complain
from relay.spelling import perhaps
from transport.host.early_signals import Wishes, held

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """\
commands:
{commands}
  "vmrelay COMMAND --help" says more about one.

examples:
  vmrelay
      serve on UDP port 4433 with a certificate of its own; prints its hash and what to
      paste into a browser's console
  vmrelay --bind 127.0.0.1 --port 5000 --host-access
      for this machine only; guests reach its services as 10.0.2.4
  vmrelay --cert-pem fullchain.pem --key-pem privkey.pem
      with a certificate that browsers trust; reloaded when it is renewed, or on SIGHUP
  vmrelay --allow-cidr 192.168.1.0/24 --deny-cidr 192.168.1.1
      let guests reach the local network, except its router
  vmrelay attach --tap tap0 https://relay.example.com:4433/
      make this machine's tap0 a member of the LAN

Each setting is taken from its flag, else from the environment variable in brackets, else
from the file named by --config, else it has its default.
Signals: TERM and INT stop, HUP reads configuration, certificate and keys
again, USR1 logs the counters, USR2 restarts the --workers one by one.
Exit status: 0 stopped by a signal, 1 it could not go on (the port is taken), 2 a setting is wrong.
"""


GROUPS = {
    "run a relay": {
        "serve": "run the relay; the same as no command at all",
        "token": "make tokens that let clients in, and their keys; revoke them",
        "certs": "make certificates for development",
        "config": "check the settings, or show where each value comes from",
        "extcap": "let Wireshark capture from relays of this user",
        "doctor": "look at this machine as a relay needs it, and say what to do",
        "healthcheck": "ask the relay of this machine whether it answers",
        "version": "tell which version this is, and what it runs on",
        "completion": "print what bash, zsh or fish need to complete all this",
        "man": "print the manual page",
    },
    "see what a running relay does": {
        "status": "show it at a glance",
        "top": "show it live in a terminal",
        "dashboard": "show it in a browser",
        "rooms": "list the rooms",
        "peers": "list the sessions",
        "flows": "list NAT mappings and connections",
        "leases": "list who holds which address",
        "macs": "list the MAC tables",
        "drops": "list what was dropped, and why",
        "why": "tell whether a guest would reach something, and what decides",
        "capture": "record or show what passes, as pcapng",
        "trace": "follow what a guest exchanges with one destination",
        "events": "follow joins, leaves and refusals as they happen",
    },
    "change it while it runs": {
        "forwards": "list, add or remove forwards",
        "disconnect": "end a session",
        "ban": "keep an address, a MAC or a token out",
        "reload": "read configuration, certificate and keys again",
        "restart": "replace the workers of --workers one by one",
        "drain": "take no new sessions",
    },
    "be a guest": {
        "attach": "connect a TAP device or QEMU to a relay: its kernel becomes a guest",
        "shell": "interactive Python with scapy, on a running relay, or with a URL as its guest",
        "netcheck": "tell how a relay is reached from here, and what a firewall eats",
    },
}
COMMANDS = {name: summary for group in GROUPS.values() for name, summary in group.items()}
"""What each is for; all but ``serve`` and those of ADMIN are modules of this package, or in ``_MODULES``."""

ADMIN = frozenset(GROUPS["see what a running relay does"]) | frozenset(GROUPS["change it while it runs"])
"""Those that ask a running relay (``relay.admin.commands``)."""

_MODULES = {
    "attach": "guest.attach",
    "extcap": "relay.admin.extcap",
    "man": "relay.manual",
    "token": "relay.token_command",
}
"""Those elsewhere, and those whose name would hide a module of Python's own."""

_SIGNALS = {
    "serve": Wishes({signal.SIGTERM: 0, signal.SIGINT: 0}, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)),
    "attach": Wishes({signal.SIGTERM: 0, signal.SIGINT: 0, signal.SIGHUP: 0}, (signal.SIGUSR1,)),
    "shell": Wishes({signal.SIGTERM: 143, signal.SIGHUP: 129}, (signal.SIGUSR1,)),
}
"""What signals mean to the commands that go on until one ends them."""

_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a file system says that does not take what is written to it."""

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""What argparse takes for a negative number."""


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, and what was probably meant."""

    def flags(self) -> set[str]:
        """All flags, those of its actions among them."""
        found = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                parsers = (choice for choice in action.choices.values() if isinstance(choice, Parser))
                found.update(*(parser.flags() for parser in parsers))
        return found

    def parse_args(  # type: ignore[override] # only ever called with words
        self, args: Sequence[str], namespace: None = None
    ) -> argparse.Namespace:
        """Parse; unknown flags are told first: what stands behind one would be taken for something else."""
        flags = self.flags()
        for word in args:
            if word == "--":
                break
            if _looks_like_flag(word) and not _is_flag(word, flags):
                flag = word.partition("=")[0]
                self.error(f"unknown flag {flag[:80]!r}{perhaps(flag, flags)}; see {self.prog} --help")
        parsed, left = self.parse_known_args(args, namespace)
        if left:
            first = f" (commands come first: vmrelay {left[0]} ...)" if left[0] in COMMANDS else ""
            self.error(f"unrecognized arguments: {' '.join(left)[:200]}{first}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += perhaps(str(value), map(str, action.choices or ()))
            raise

    def error(self, message: str) -> NoReturn:
        """Say it and exit with status 2."""
        # argparse says "ignored" of the value that it has just refused.
        message = message.replace("ignored explicit argument", "takes no value, not")
        self.exit(2, f"vmrelay: error: {' '.join(message.split())}\n")


def _looks_like_flag(word: str) -> bool:
    """Whether argparse takes a word for a flag: no number, and no text with a space in it."""
    if len(word) < 2 or word[0] != "-" or " " in word.partition("=")[0]:  # noqa: PLR2004 - "-" alone is a file
        return False
    return not _NUMBER.fullmatch(word)


def _is_flag(word: str, flags: set[str]) -> bool:
    """Whether a word is a flag that there is, perhaps with its value: ``--port=1``, ``-cCODE``."""
    return word.partition("=")[0] in flags or (word[1] != "-" and word[:2] in flags)


class PrintVersion(argparse.Action):
    """Print the version and exit; looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print and exit."""
        from relay.version import version

        print(f"vmrelay {version()}")  # noqa: T201
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: the process's); return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if name is not None and name not in COMMANDS:
        known = f"there are {', '.join(COMMANDS)}"
        Parser().error(f"no command {name[:80]!r}{perhaps(name, COMMANDS)} ({known}); see vmrelay --help")
    _open_standard_descriptors()
    _keep_scapy_from_a_closed_cache()
    _write_what_the_locale_has_no_letters_for()
    try:
        with held(_SIGNALS.get(name or "serve", Wishes({}, ()))):
            return _serve(words, name) if name in (None, "serve") else _run(name, words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has enough of it, as ``head`` has
        return 1
    finally:
        _let_go_of_closed_output()


def _open_standard_descriptors() -> None:
    """Open those of 0, 1 and 2 that were closed on nothing: a client's socket would be the next to have it.

    What a C library or a child process writes there as its output, the client would read.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, True)


def _write_what_the_locale_has_no_letters_for() -> None:
    """Have letters that the output's encoding lacks, as in guests' names, written as escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _keep_scapy_from_a_closed_cache() -> None:
    """Have scapy go without its cache where this user may not look into it: it would not load.

    So it is where HOME is another user's still, as ``setpriv`` and ``sudo -E`` leave it.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises for a user without one
    try:
        Path(os.environ.get("XDG_CACHE_HOME", f"{home}/.cache"), "scapy", "any").exists()
    except OSError:
        os.environ["XDG_CACHE_HOME"] = os.devnull  # no folder: nothing is found there, and nothing kept


def _let_go_of_closed_output() -> None:
    """Point output that nobody reads any more at nothing: else Python's own last flush ends in status 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed at the start
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser_of_relay(prog: str, usage: str) -> Parser:
    from relay import settings

    commands = "\n".join(
        line
        for title, group in GROUPS.items()
        for line in (f"  {title}:", *(f"    {name:<12} {summary}" for name, summary in group.items()))
    )
    parser = Parser(
        prog=prog,
        usage=usage,
        description="Put virtual machines in browsers and emulators on one Ethernet LAN, and let them out.",
        epilog=EXAMPLES.format(commands=commands),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    settings.add_arguments(parser)
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="show the version and exit")
    return parser


def _serve(words: list[str], name: str | None) -> int:
    from relay import settings

    parser = parser_of(name)
    flags = vars(parser.parse_args(words))
    try:
        chosen = settings.resolve(flags, os.environ)
    except settings.SettingsError as error:
        parser.error(str(error))
    from relay import app
    from relay.starting import StartError

    def reread() -> settings.Settings:
        return settings.resolve(flags, os.environ)

    try:
        count = settings.count_of_workers(chosen)
        if count > 1:
            from relay.supervisor import supervisor

            return supervisor.serve(chosen, count, reread)
        return app.serve(chosen, reread)
    except settings.SettingsError as error:
        parser.error(str(error))
    except StartError as error:
        return complain(error)


def _module(name: str) -> Any:
    """Load what does a command."""
    if name in ADMIN:
        return importlib.import_module("relay.admin.commands").COMMANDS[name]
    return importlib.import_module(_MODULES.get(name, f"relay.{name}"))


def _about(name: str, module: Any) -> dict[str, Any]:
    """Say what a command's parser tells of it."""
    summary = COMMANDS[name]
    about = {"description": f"{summary[0].upper()}{summary[1:]}.", "epilog": getattr(module, "EPILOG", None)}
    return about | {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


def _run(name: str, words: list[str]) -> int:
    args = parser_of(name).parse_args(words)
    try:
        status: int = _module(name).run(args)
        if status == 0 and sys.stdout is not None:  # None where it was closed at the start
            sys.stdout.flush()  # now, for at the end of the process nobody is told that the disk is full
    except OSError as error:
        if error.errno not in _NOT_WRITTEN or error.filename is not None:
            raise
        return complain(f"standard output: {error.strerror}")
    return status


def parser_of(name: str | None) -> Parser:
    """Build the parser of a command; None and ``serve`` have the relay's."""
    if name is None or name == "serve":
        usage = "%(prog)s [option ...]" if name else "vmrelay [option ...]\n       vmrelay COMMAND ..."
        return _parser_of_relay("vmrelay" if name is None else f"vmrelay {name}", usage)
    module = _module(name)
    parser = Parser(prog=f"vmrelay {name}", **_about(name, module))
    module.add_arguments(parser)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line, for completion; loads all commands."""
    parser = _parser_of_relay("vmrelay", "vmrelay [option ...]")
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name == "serve":
            added = parsers.add_parser(name, help=summary, allow_abbrev=False)
            importlib.import_module("relay.settings").add_arguments(added)
        else:
            module = _module(name)
            module.add_arguments(parsers.add_parser(name, help=summary, **_about(name, module)))
    return parser


if __name__ == "__main__":
    sys.exit(main())

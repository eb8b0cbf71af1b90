"""A Python prompt, or a program run with the same names: what both of ``vmrelay shell``'s forms are made of.

IPython where it is installed, else Python's own console with completion and history. ``await`` works at the
prompt and in programs.
"""

from __future__ import annotations

import ast
import asyncio
import code
import contextlib
import importlib
import inspect
import os
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HISTORY = 10_000
"""Lines that are kept."""


def run_program(names: dict[str, Any], program: str | bytes | None, source: str = "<string>") -> int:
    """Run a program, or standard input for None; return the exit status."""
    try:
        text = sys.stdin.read() if program is None else program
        name = "<stdin>" if program is None else source
        compiled = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        _run(compiled, names)
    except Exception as error:  # noqa: BLE001 - shown as Python would
        # Without the frames of this module: the traceback begins with the user's own code.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        traceback.print_exception(error.with_traceback(trace))
        return 1
    return 0


def _run(compiled: types.CodeType, names: dict[str, Any]) -> None:
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(types.FunctionType(compiled, names)())
    else:
        exec(compiled, names)  # noqa: S102 - the user's own code


def interact(names: dict[str, Any], banner: str) -> None:
    """Ask until the user leaves."""
    if _interact_with_ipython(names, banner):
        return
    with _line_editing(names):
        _Console(names, "<console>").interact(banner, exitmsg="")


def _interact_with_ipython(names: dict[str, Any], banner: str) -> bool:
    """Use IPython if it is there; whether it was."""
    if os.environ.get("VMRELAY_CONSOLE") == "plain":
        return False
    try:  # by name: it is nothing that the relay depends on
        ipython, configuration = map(importlib.import_module, ("IPython", "traitlets.config"))
    except ImportError:
        return False
    config = configuration.Config()
    config.TerminalInteractiveShell.banner1 = f"{banner}\n"
    config.TerminalIPythonApp.display_banner = True
    ipython.start_ipython(argv=[], user_ns=names, config=config)
    return True


class _Console(code.InteractiveConsole):
    """Python's console, in which ``await`` works."""

    def __init__(self, names: dict[str, Any], name: str) -> None:
        super().__init__(names, name)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def runcode(self, code: types.CodeType) -> None:
        """Run what was typed."""
        if not code.co_flags & inspect.CO_COROUTINE:
            super().runcode(code)
            return
        try:
            asyncio.run(types.FunctionType(code, self.locals)())
        except SystemExit:
            raise
        except BaseException:  # noqa: BLE001 - as the console does with all else
            self.showtraceback()


@contextlib.contextmanager
def _line_editing(names: dict[str, Any]) -> Iterator[None]:
    """Complete with tab, and remember what was typed from one shell to the next."""
    try:
        import readline
        import rlcompleter
    except ImportError:  # Python was built without it: there is no line editing, but still a shell
        yield
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(MAX_HISTORY)
    without_home = RuntimeError  # what Python raises for a user of whom the system knows no folder
    with contextlib.suppress(OSError, without_home):
        readline.read_history_file(_history())
    try:
        yield
    finally:
        with contextlib.suppress(OSError, without_home):
            history = _history()
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
            history.chmod(0o600)


def _history() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "vmrelay" / "shell_history"

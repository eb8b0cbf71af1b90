"""The token that lets a client in, read from a file: a URL is seen by all users, among the processes.

It is read again for each session, since tokens expire and files are replaced. What can be read only once (a
pipe, as shells make for ``<(command)``) is read once.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from guest.target import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "VMRELAY_TOKEN_FILE"

MAX_BYTES = 8192
"""Of the file: more than any token."""


class TokenFile:
    """Gives the token that is in a file; call it before each attempt."""

    def __init__(self, path: Path, name: str) -> None:
        """Read it for the first time; ``name`` is the flag or variable that names it. Raises ValueError."""
        self._path = path
        self._name = name
        self._is_rewritten = True
        self._latest = self._read()

    def __call__(self) -> str:
        """Read it again. While there is no token in it, as when it is being replaced, the last one holds."""
        if self._is_rewritten:
            with contextlib.suppress(ValueError):
                self._latest = self._read()
        return self._latest

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                self._is_rewritten = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                said = file.read(MAX_BYTES)
        except OSError as error:
            raise self._problem(error.strerror or str(error)) from None
        text = said.decode("utf-8-sig", "replace").strip()  # Windows editors begin files with a mark
        if not text:
            raise self._problem("there is no token in it")
        if not TOKEN.fullmatch(text):
            # Nothing of it is shown: it may be another secret.
            raise self._problem(
                "it must hold the token and nothing else, as 'vmrelay token create' prints it"
            )
        return text

    def _problem(self, what: str) -> ValueError:
        return ValueError(f"{self._name} {self._path}: {what}")


def find_token(file: Path | None, environment: Mapping[str, str], *, url_has_one: bool) -> TokenFile | None:
    """Find where a client's token is; None if it stands in the URL, or nowhere. Raises ValueError."""
    if file is not None:
        if url_has_one:
            raise ValueError("--token-file: the URL has a token already")
        return TokenFile(file, "--token-file")
    named = environment.get(VARIABLE, "").strip()
    return TokenFile(Path(named), VARIABLE) if named and not url_has_one else None

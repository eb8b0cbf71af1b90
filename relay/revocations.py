"""Tokens that the operator has revoked while the relay ran: ids (``jti``) in a file of the state folder.

They are beside those of ``--auth-revoked``, a file of the operator's own. None is ever dropped for want of
room: a token that holds again without a word would be worse than one that cannot be revoked this way.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from relay.state import StateFile

FILE = "revoked"

MAX_REVOKED = 4096
TOKEN_ID = re.compile(r"[\x21-\x7e]{1,200}")
"""The ``jti`` by which a token can be named: no white space, as there is one in each line of the file."""


class Revocations:
    """The ids, and the file that keeps them."""

    def __init__(self, file: StateFile) -> None:
        """Read the file, if there is one."""
        self._file = file
        self._saving = threading.Lock()
        lines = (file.read() or b"").decode("ascii", "replace").split()
        good = [line for line in lines if TOKEN_ID.fullmatch(line)]
        if len(good) < len(lines):
            logger.warning("{} of the revoked tokens that were kept are not ids", len(lines) - len(good))
        self.ids = frozenset(good)

    def add(self, identifier: str) -> None:
        """Revoke a token, from now on; :meth:`save` keeps it. Raises ValueError with the reason."""
        if not TOKEN_ID.fullmatch(identifier):
            raise ValueError("the id of a token has 1 to 200 characters and no white space")
        if len(self.ids) >= MAX_REVOKED and identifier not in self.ids:
            raise ValueError(f"{MAX_REVOKED} tokens are revoked already; change the key")
        self.ids |= {identifier}

    def save(self) -> None:
        """Write the file; waits for the disk."""
        with self._saving:
            self._file.write("".join(f"{identifier}\n" for identifier in sorted(self.ids)).encode())

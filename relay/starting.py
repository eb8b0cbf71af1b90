"""What a relay's process does at its start, whether it is all of the relay, its supervisor or a worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from actors.work_time import leave_out_garbage_collector
from relay import logs
from relay.admin.opening import AdminError, open_admin, read_token
from relay.announcement import reached_at
from relay.audit import AuditError, AuditLog
from relay.line_writer import LineWriter
from relay.state import open_state
from relay.token_gate import Clocks, TokenGate
from relay.version import path_form, version
from transport.host.descriptors import grow_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.admin.passes import Passes
    from relay.admin.service import AdminService, Offered
    from relay.revocations import Revocations
    from relay.settings import Settings
    from relay.state import State

GARBAGE_THRESHOLD = 8_000
"""New container objects between two looks at the youngest generation: 6 ms, where a crowd has left."""


class StartError(Exception):
    """The relay cannot start; the message is one line for the operator."""


class Prepared(NamedTuple):
    """What a relay begins with."""

    limiter: logs.Limiter
    state: State
    say: Callable[[str], object]
    """Takes lines for whoever started the relay."""


@contextlib.contextmanager
def prepared(settings: Settings) -> Iterator[Prepared]:
    """Open what a relay writes to, and take as many files as there may be; at the end all is written."""
    with LineWriter(sys.stdout, "standard output") as said, LineWriter(sys.stderr, "the log") as log:
        limiter = logs.setup(settings.log_format, settings.log_level, log, settings.log_filter)
        raise_file_limit()
        with contextlib.closing(open_state(settings.state, settings.port, os.environ)) as state:
            yield Prepared(limiter, state, lambda line: said.write(f"{line}\n"))


def token_gate(settings: Settings, revocations: Revocations) -> TokenGate:
    """Make what tokens are checked by. Raises KeysError."""
    files = None if settings.auth_keys is None else (settings.auth_keys, settings.auth_revoked)
    return TokenGate(files, Clocks(time.time, asyncio.get_running_loop().time), revocations)


def open_audit_log(settings: Settings) -> AuditLog | None:
    """Begin the audit log; None where there is to be none. Raises StartError."""
    if settings.audit_log is None:
        return None
    try:
        return AuditLog(settings.audit_log, settings.audit_log_size, settings.audit_log_files)
    except AuditError as error:
        raise StartError(str(error)) from None


def facts_of(settings: Settings, port: int) -> dict[str, object]:
    """Tell what the admin API says of this process that never changes; ``port`` is the UDP port."""
    address = f"https://{reached_at(settings.bind)}:{port}/"
    return {"version": version(), "pid": os.getpid(), "address": address, "path": path_form()}


def open_admin_api(settings: Settings, port: int, offered: Offered, passes: Passes) -> AdminService | None:
    """Serve the admin API, to clients' tokens too where there are keys; None where there is to be none.

    ``port`` is the UDP port. Raises StartError.
    """
    if settings.auth_keys is not None:
        offered.read_token = passes.read
    try:
        token = None if settings.admin_token is None else read_token(settings.admin_token)
        return open_admin(settings.admin, token, port, offered)
    except AdminError as error:
        raise StartError(str(error)) from None


async def renew_admin_token(settings: Settings, offered: Offered | None, told: dict[str, Any]) -> None:
    """Read the token of the admin API again, where it has one; note what came of it in ``told``."""
    if offered is None or offered.token is None or settings.admin_token is None:
        return
    try:
        token = await asyncio.to_thread(read_token, settings.admin_token)
    except AdminError as error:
        logger.error("the admin API's token stays as it was: {}", error)
        told["errors"].append(str(error))
        return
    if token != offered.token:
        offered.token = token
        told["changed"].append("admin-token")


def cannot_listen(where: str, error: OSError | UnicodeError) -> str:
    """Say why a port cannot be had."""
    return f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}"


def calm_garbage_collector() -> None:
    """Have cyclic garbage looked for less often, and never in what was loaded at the start.

    The relay's objects go by reference counts; with Python's own thresholds every tenth session that opens
    pays for a walk through all modules. What it takes is nobody's work.
    """
    leave_out_garbage_collector()
    gc.collect()
    gc.freeze()
    # The oldest generation, which may take 30 ms, is looked at after 8 million objects.
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)


def raise_file_limit() -> None:
    """Take as many files as the system allows: every flow is a socket, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    grow_table()

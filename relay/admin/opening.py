"""Opens the admin API where the operator wants it."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from relay.admin.guard import LOOPBACK_HOSTS
from relay.admin.service import AdminService
from relay.admin_place import AUTO, BACKLOG, NONE, Address, PlaceError, default_path, is_live, listen, sweep

if TYPE_CHECKING:
    from relay.admin.service import Offered

LEAST_TOKEN = 16
"""Characters of the shortest token: what is guessed at leisure from the network should be long."""

MOST_TOKEN = 4096

KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds without a byte until TCP asks the other machine for a sign of life, between such questions, and how
many of these go without an answer until it counts as gone: after half a minute (tcp(7))."""


class AdminError(Exception):
    """The admin API cannot be had as it was asked for; the message is one line."""


def read_token(path: Path) -> str:
    """Read the token of an API on TCP. Raises AdminError."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # Windows editors begin files with a mark
            token = file.read(MOST_TOKEN + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AdminError(f"--admin-token: {path}: {getattr(error, 'strerror', None) or error}") from None
    if not LEAST_TOKEN <= len(token) <= MOST_TOKEN or not token.isascii() or not token.isprintable():
        raise AdminError(f"--admin-token: {path} must hold {LEAST_TOKEN} or more visible ASCII characters")
    return token


def watch_other_end(connection: socket.socket) -> None:
    """Have the system ask whether the other machine is still there, where nothing comes (RFC 9293, 3.8.4).

    What a listener accepts inherits that.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # systems differ
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def open_admin(
    place: str | Path | Address, token: str | None, port: int, served: Offered
) -> AdminService | None:
    """Begin to serve; ``port`` is the relay's UDP port. None where there is none. Raises AdminError.

    Where the operator did not ask for it, its absence is no error: a file system may be read-only.
    """
    if place == NONE:
        return None
    if isinstance(place, Address):
        return _on_tcp(place, token, served)
    try:
        path = Path(place) if isinstance(place, Path) else default_path(port, os.environ)
        if place == AUTO:
            sweep(path.parent)
            if is_live(path):  # in another network namespace
                path = path.with_stem(f"{path.stem}-{os.getpid()}")
        service = AdminService(listen(path), served, path)
    except PlaceError as error:
        if place == AUTO:
            logger.info("no admin API: {} (--admin says where)", error)
            return None
        raise AdminError(f"--admin: {error}") from None
    service.start()
    logger.info("admin API at {}", path)
    return service


def _on_tcp(address: Address, token: str | None, served: Offered) -> AdminService:
    if token is None and served.read_token is None:
        raise AdminError(f"--admin {address} needs --admin-token, for others can connect there")
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server(
            (address.host, address.port),
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),  # as --bind :: has it
        )
    except OSError as error:
        raise AdminError(f"--admin {address}: {error.strerror or error}") from None
    except UnicodeError:
        raise AdminError(f"--admin {address}: {address.host} is not a host name") from None
    listener.setblocking(False)
    watch_other_end(listener)  # captures and traces have a few places, and may be quiet for long
    bound = Address(*listener.getsockname()[:2])
    served.token = token
    served.everywhere = ip_address(bound.host).is_unspecified
    served.hosts = LOOPBACK_HOSTS | {address.host.lower(), bound.host}
    service = AdminService(listener, served)
    service.start()
    logger.info("admin API at http://{}", bound)
    return service

"""Asks a running relay's admin API, for the commands: HTTP over its unix socket, or over TCP with a token."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from relay.admin.opening import AdminError, read_token, watch_other_end
from relay.admin_place import OF_ROOT, Address, find, is_closed_to_us, parse_place
from relay.called import as_told
from relay.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

TIMEOUT = 30.0
"""Seconds for an answer."""

VARIABLE = "VMRELAY_ADMIN"
TOKEN_VARIABLE = "VMRELAY_ADMIN_TOKEN"  # noqa: S105 - the variable's name

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}

MAX_DIGITS = 18
"""Of a session's number."""

STREAMS = frozenset({"/v1/capture", "/v1/trace", "/v1/events"})
"""What is answered without an end."""


class AskError(Exception):
    """The relay could not be asked, or said no; the message is one line."""


class UsageError(AskError):
    """A command was given what it cannot mean; the relay was not asked."""


class Stream:
    """What comes, until the deadline; then it is as if the relay had ended it."""

    def __init__(
        self, response: http.client.HTTPResponse, connection: socket.socket, deadline: float | None
    ) -> None:
        self._response = response
        self._connection = connection
        self._deadline = deadline
        self._is_cut = False
        """Whether it has ended before the deadline."""

    def read(self, amount: int, /) -> bytes:
        """Read this much, or less at the end."""
        return self._until_deadline(lambda: self._response.read(amount))

    def readline(self) -> bytes:
        """Read a line; nothing at the end."""
        return self._until_deadline(self._response.readline)

    def expect_no_end(self) -> None:
        """See that nothing but the deadline has ended it. Raises AskError."""
        if self._is_cut:
            raise AskError("the relay sends no more: it has ended, or the token holds no longer")

    def _until_deadline(self, read: Callable[[], bytes]) -> bytes:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                return b""
            self._connection.settimeout(left)  # of the whole time, each read would have all of it
        try:
            data = read()
        except TimeoutError as error:
            self._deadline = time.monotonic()  # of what has timed out nothing more can be read
            self._is_cut = error.errno is not None  # the system's own: the relay's machine has vanished
            return b""
        except (http.client.IncompleteRead, ConnectionError):
            data = b""
        self._is_cut = not data
        return data


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("vmrelay", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AdminClient:
    """One relay's admin API."""

    def __init__(self, place: Path | str, token: str | None = None) -> None:
        """``place`` is a socket's path, or ``http://HOST:PORT``, which needs ``token``.

        All that asks raises AskError, and UsageError for text that is no UTF-8.
        """
        self._place = place
        self._token = token

    def ask(self, path: str, query: Mapping[str, str | None] | None = None) -> Any:
        """Get something, as JSON. Raises AskError."""
        return self._request("GET", path, query)

    def post(self, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """Do something. Raises AskError."""
        return self._request("POST", path, None, fields or {})

    def delete(self, path: str, query: Mapping[str, str | None] | None = None) -> Any:
        """Undo something. Raises AskError."""
        return self._request("DELETE", path, query)

    def text(self, path: str) -> str:
        """Get something that is not JSON. Raises AskError."""
        response, _ = self._open("GET", path, None, None)
        with response:
            return self._read(response).decode()

    def lines(self, path: str, query: Mapping[str, str | None] | None = None) -> Iterator[str]:
        """Get the lines of a stream as they come, without end. Raises AskError, as where it ends."""
        with self.stream(path, query or {}, None) as stream:
            while line := stream.readline():
                yield line.decode().rstrip("\n")
            stream.expect_no_end()

    @contextlib.contextmanager
    def stream(self, path: str, query: Mapping[str, str | None], deadline: float | None) -> Iterator[Stream]:
        """Read what comes, up to ``deadline`` (monotonic) if there is one. Raises AskError."""
        response, connection = self._open("GET", path, query, None)
        connection.settimeout(None)  # it may be quiet for long; the deadline is the reader's
        if connection.family != socket.AF_UNIX:
            watch_other_end(connection)
        with response:
            yield Stream(response, connection, deadline)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Any:
        response, _ = self._open(method, path, query, fields)
        with response:
            said = self._read(response)
            try:
                return json.loads(said)
            except ValueError:
                raise AskError("the answer is no JSON: is that a relay's admin API?") from None

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None,
        fields: Mapping[str, Any] | None,
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            target = f"{quote(path)}?{urlencode(given)}" if given else quote(path)
            body = None if fields is None else json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # words of the command line are what bytes they were
            raise UsageError(f"{error.object[error.start]!r} in what was given is no UTF-8") from None
        response, connection = self.hand_on(method, target, body)
        if response.status >= http.client.BAD_REQUEST:
            raise AskError(_reason(response.status, response.reason, self._read(response)))
        return response, connection

    def hand_on(
        self, method: str, target: str, body: bytes | None
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        """Ask, and give whatever is answered, with the connection that it comes on. Raises AskError."""
        headers = {"X-Vmrelay-User": _user()}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            connection.request(method, target, body, headers)
            sock = connection.sock
            return connection.getresponse(), sock
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise self._no_answer(error) from None

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read an answer to its end. Raises AskError, as when the relay ends while it answers."""
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from None

    def _no_answer(self, error: OSError | http.client.HTTPException | ValueError) -> AskError:
        """Tell in one line why there is no answer, or half of one."""
        if isinstance(error, ConnectionRefusedError):
            said = "no relay is there"
        elif isinstance(error, (ConnectionError, http.client.IncompleteRead)):
            said = "the relay ended before it had answered"
        elif isinstance(error, TimeoutError):
            said = f"no answer within {TIMEOUT:g} s"
        elif isinstance(error, PermissionError):
            said = "only the user that runs the relay, and root, may ask it there"
        elif isinstance(error, UnicodeError):
            said = "not a host name"
        else:
            said = " ".join((getattr(error, "strerror", None) or str(error)).split())
        return AskError(f"{self._place}: {said}")

    def _connection(self) -> http.client.HTTPConnection:
        if isinstance(self._place, Path):
            return _UnixConnection(self._place)
        parts = urlsplit(self._place)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)


def port_of(relay: AdminClient, who: str, room: str | None = None) -> int:
    """Find a session, of one room or of all, by its port, name, address or MAC. Raises AskError.

    A port is taken as it is, whether there is such a session or not.
    """
    if who.isdecimal() and len(who) <= MAX_DIGITS:
        return int(who)
    said = as_told(who)
    peers = relay.ask("/v1/peers", {"room": room})
    found = [peer["port"] for peer in peers if said in {peer["name"], peer["address"], peer["mac"]}]
    if not found and ":" in said:
        # Of a session the IPv4 address is told only; the name servers know all addresses of a name.
        names = {
            (where, name)
            for where, server in relay.ask("/v1/names", {"room": room}).items()
            for name, addresses in server["names"].items()
            if said in addresses
        }
        found = [peer["port"] for peer in peers if (peer["room"], peer["name"]) in names]
    if len(found) != 1:
        raise AskError(f"{'several sessions are' if found else 'no session is'} called {who[:80]}")
    return int(found[0])


def captured(relay: AdminClient, who: str | None, room: str | None) -> dict[str, str | None]:
    """Tell what asks for a capture of a room, or of one that is there. Raises AskError.

    ``who`` is a session by its number, else a guest, in the sessions that it has later too; None for all.
    """
    if who is None:
        return {"room": room}
    port = port_of(relay, who, room)
    peers = relay.ask("/v1/peers", {"room": room})
    peer = next((peer for peer in peers if peer["port"] == port), None)
    if peer is None:
        raise AskError(f"there is no session {port}{'' if room is None else f' in room {room}'}")
    if who.isdecimal() or peer["mac"] is None:
        return {"room": room, "peer": str(port)}
    return {"room": peer["room"], "mac": peer["mac"]}


def _reason(status: int, reason: str, body: bytes) -> str:
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        said = reason
    return f"the relay says {status}: {said}"


def _user() -> str:
    """Name the user, in what a header may hold (RFC 9110 section 5.5): visible ASCII."""
    try:
        return printable(getpass.getuser()).encode("ascii", "backslashreplace").decode()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what tells which relay is asked."""
    group = parser.add_argument_group("which relay")
    group.add_argument(
        "--admin",
        metavar="WHERE",
        help=f"socket of the admin API, or http://HOST:PORT (default: this user's relay) [{VARIABLE}]",
    )
    group.add_argument(
        "--admin-token", metavar="FILE", type=Path, help=f"file with the token for http:// [{TOKEN_VARIABLE}]"
    )
    group.add_argument(
        "--port", type=int, metavar="N", help="the relay at this UDP port, where there are several"
    )


def connect(args: argparse.Namespace) -> AdminClient:
    """Find the relay that the arguments name. Raises AskError, and UsageError for an address that is none."""
    place = args.admin or os.environ.get(VARIABLE, "")
    if place in {"", "auto"}:
        found = find(os.environ, args.port)
        if len(found) != 1:
            raise AskError(_which(found) if found else _none(args.port))
        return AdminClient(found[0])
    if not place.startswith(("http://", "https://")):
        try:
            said = parse_place(place)
        except ValueError:
            said = Path(place)
        if not isinstance(said, Address):
            return AdminClient(Path(place))
        # As the relay itself is told it, which may be in the environment of its container.
        place = f"http://{replace(said, host=_ANY.get(said.host, said.host))}"
    _check_url(place)
    named = args.admin_token or os.environ.get(TOKEN_VARIABLE, "")
    try:
        return AdminClient(place, read_token(Path(named)) if named else None)
    except AdminError as error:
        raise AskError(str(error)) from None


def _check_url(url: str) -> None:
    """See that a URL is one that the API can be at. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--admin {url}: {error}") from None
    if parts.scheme != "http":
        # Asked in clear the token would be everybody's on the way, where the operator thought of TLS.
        raise UsageError(f"--admin {url}: the API has no TLS; http://, from elsewhere through ssh -L")
    if not host:
        raise UsageError(f"--admin {url}: names no host")


def _none(port: int | None) -> str:
    """Tell that no relay was found, and where one may be that this user cannot see."""
    where = "" if port is None else f" at port {port}"
    said = f"no relay of this user is running here{where}"
    if is_closed_to_us(OF_ROOT):
        return f"{said}; those in {OF_ROOT} may be asked by root, or as the user that they run as"
    return f"{said} (--admin names its socket)"


def _which(found: list[Path]) -> str:
    """Tell how to say which of several relays is meant."""
    ports = [path.stem for path in found if path.stem.isdecimal()]
    others = [str(path) for path in found if not path.stem.isdecimal()]
    ways = [f"--port says which ({', '.join(ports)})"] if ports else []
    ways += [f"--admin says which ({', '.join(others)})"] if others else []
    return f"several relays run here: {', or '.join(ways)}"

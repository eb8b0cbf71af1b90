"""``vmrelay dashboard``: lets a browser of this machine reach a relay's admin API.

The API is on a unix socket, to which no browser connects. While the command runs, it listens on 127.0.0.1 and
hands requests on, under a token that it makes up: other users of the machine can connect there too, and so
can web pages (``relay.admin.guard``). The link that it prints has the token behind ``#``, the part of a link
that browsers send to nobody.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import secrets
import socket
import sys
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from netstack.forward import MAX_PORT
from relay.admin.arguments import number_of
from relay.admin.client import STREAMS, AskError
from relay.admin.guard import DASHBOARD, LOOPBACK, LOOPBACK_HOSTS, MAX_BODY, Guard

if TYPE_CHECKING:
    import argparse

    from relay.admin.client import AdminClient

MAX_CONNECTIONS = 64
"""A thread each; a browser has 6 to a host."""

PATIENCE = 30.0
"""Seconds in which a browser says what it wants, and takes a piece of what it gets."""

PIECE = 64 * 1024

_OWN_HEADERS = frozenset({"connection", "date", "keep-alive", "server", "transfer-encoding"})
"""Of an answer: those that are about one connection only (RFC 9110 section 7.6.1), and those added again."""


class Bridge(http.server.ThreadingHTTPServer):
    """Hands requests that show the token on to a relay."""

    daemon_threads = True

    def __init__(self, relay: AdminClient, token: str, port: int = 0) -> None:
        """Listen on a loopback port, 0 for any. Raises OSError."""
        super().__init__((LOOPBACK, port), _Request)
        self.relay = relay
        self.guard = Guard(LOOPBACK_HOSTS, token)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is one left."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over browsers that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Request(http.server.BaseHTTPRequestHandler):
    """One request, after which the connection is closed (HTTP/1.0)."""

    server: Bridge
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Hand a request on."""
        path = self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        refusal = self.server.guard.refusal(path, headers)
        length = headers.get("content-length", "0")
        if refusal is not None:
            self._refuse(*refusal)
        elif not self.path.startswith("/"):
            self._refuse(HTTPStatus.BAD_REQUEST, "the target must be a path")
        elif not length.isascii() or not length.isdecimal() or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY} bytes")
        else:
            try:
                answer = self.server.relay.hand_on(
                    self.command, self.path, self.rfile.read(int(length)) or None
                )
            except AskError as error:
                self._refuse(HTTPStatus.BAD_GATEWAY, str(error))
            else:
                self._pass_back(*answer, endless=path in STREAMS)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names that the server looks for

    def _pass_back(
        self, response: http.client.HTTPResponse, connection: socket.socket, *, endless: bool
    ) -> None:
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _OWN_HEADERS:
                self.send_header(name, value)
        self.end_headers()
        with response, contextlib.suppress(OSError, http.client.HTTPException):
            if endless:
                connection.settimeout(None)
                self.connection.settimeout(None)
                threading.Thread(target=self._end_with_browser, args=(connection,), daemon=True).start()
            while piece := response.read1(PIECE):
                self.wfile.write(piece)
        with contextlib.suppress(OSError):  # has the thread end
            self.connection.shutdown(socket.SHUT_RDWR)

    def _end_with_browser(self, connection: socket.socket) -> None:
        """Wait until the browser goes away, and end what the relay would go on to send."""
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        body = json.dumps({"error": reason}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the relay logs what is changed."""


def dashboard(relay: AdminClient, args: argparse.Namespace) -> str:
    """Print a link and serve what it leads to, until interrupted."""
    relay.ask("/v1/rooms")  # says now if there is no relay
    token = secrets.token_urlsafe(32)
    try:
        bridge = Bridge(relay, token, args.http_port)
    except OSError as error:
        raise AskError(f"port {args.http_port}: {error.strerror}") from None
    with bridge:
        link = f"http://{LOOPBACK}:{bridge.server_port}{DASHBOARD}#token={token}"
        print(json.dumps({"link": link}) if args.json else link, flush=True)  # noqa: T201
        print("Open it in a browser; it works until this command is ended (Ctrl-C).", file=sys.stderr)  # noqa: T201
        bridge.serve_forever()
    return ""


def dashboard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    parser.add_argument(
        "--http-port",
        type=number_of(0, MAX_PORT),
        default=0,
        metavar="N",
        help="port on 127.0.0.1 for the browser (default: any)",
    )

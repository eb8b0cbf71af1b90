"""``vmrelay netcheck``: how a relay is reached from here, and what a firewall on the way eats.

One line for each step that a client takes: the addresses of the name, an answer of any kind by UDP and by
TCP, a session over WebTransport and one over WebSocket. In each session heartbeats are sent, one after the
other, which a relay answers before a client has registered: so a check takes no address of the LAN, and
nobody there sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
import ssl
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from guest import client_arguments
from guest.client import ConnectError, SessionEndedError, connect
from guest.client_connection import MAX_EXPLANATION, one_line
from guest.target import Target, Trust
from guest.vm_client import choose_kind
from netstack.encapsulation import Kind
from relay.complaint import complain
from relay.healthcheck import speaks_quic
from relay.printable import printable
from transport.admission import without_secrets

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from guest.client import WebTransportClient

PATIENCE = 5.0
"""Seconds that a step may take."""
HEARTBEATS = 20
ANSWERED_WITHIN = 1.0
"""Seconds after which a heartbeat, or its answer, counts as lost."""
HEARTBEAT = b'\x00{"type":"Heartbeat"}'
_ACKNOWLEDGED = b'"HeartbeatAck"'


class Step(NamedTuple):
    """What came of one step."""

    name: str
    ok: bool
    said: str


class Carried(Protocol):
    """A session of either carrier, as far as it is measured."""

    async def send(self, datagram: bytes) -> None:
        """Send one datagram."""

    async def receive(self) -> Sequence[bytes]:
        """Return what has come, at least one datagram. Raises SessionEndedError."""

    def note(self) -> str:
        """Say what else is known of the session."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay netcheck``."""
    client_arguments.add_target(parser)
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Check; return the exit status: 0 if a client gets through by either carrier, 1 if by none."""
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    try:
        trust = Trust.read(args.cert_hash, args.ca, args.insecure)
        token = client_arguments.token_of(args)
        say = None if args.json else _say
        check = Check(args.url, trust, say, "" if token is None else token())
        asyncio.run(check.run())
    except ValueError as error:
        return complain(error, 2)
    reached, verdict = check.verdict()
    if args.json:
        steps = {step.name: {"ok": step.ok, "said": step.said} for step in check.steps}
        print(json.dumps({"reached": reached, "verdict": verdict, "steps": steps}, indent=2))  # noqa: T201
    else:
        _say(Step("verdict", reached, verdict))
    return 0 if reached else 1


def _say(step: Step) -> None:
    mark = "ok" if step.ok else "no"
    print(f"{step.name:<13} {mark}  {printable(step.said)}", flush=True)  # noqa: T201


class Check:
    """The steps, and what came of them."""

    def __init__(self, url: str, trust: Trust, say: Any = None, token: str = "") -> None:
        """Check the relay at ``url``; ``say`` is told each step as it is done. Raises ValueError.

        ``token`` lets the client in.
        """
        if choose_kind(url, None)[1] is Kind.RAW:
            raise ValueError(
                f"{without_secrets(url)}: raw sessions have no heartbeats to measure with; "
                "leave out what asks for one"
            )
        self._url = url
        self._target = replace(Target.parse(url), token=token)
        self._trust = trust
        self._tell = say
        self._addresses: list[str] = []
        self.steps: list[Step] = []

    async def run(self) -> None:
        """Take all steps; those behind one that fails are left out where they cannot but fail."""
        self._note("addresses", *await self._resolve())
        if not self._addresses:
            return
        self._note("UDP", *await self._probe_udp())
        self._note("TCP", *await self._probe_tcp())
        self._note("WebTransport", *await self._try(self._webtransport()))
        if self._ok("TCP"):
            self._note("WebSocket", *await self._try(self._websocket()))

    def verdict(self) -> tuple[bool, str]:
        """Tell whether clients get through, and in a sentence by what or why not."""
        if self._ok("WebTransport"):
            if self._ok("WebSocket"):
                return True, "clients get through by WebTransport and by WebSocket"
            return True, "clients get through by WebTransport only; some know nothing but WebSocket"
        if self._ok("WebSocket"):
            why = (
                "UDP answers, so it is not a firewall"
                if self._ok("UDP")
                else f"a firewall on the way eats UDP port {self._target.port}"
            )
            return True, f"clients get through by WebSocket only: {why}"
        if not self._addresses:
            return False, "the name has no address"
        if self._ok("UDP") or self._ok("TCP"):
            return False, "somebody answers, but gives no session: see above"
        return False, "nobody answers: no relay is there, or a firewall eats UDP and TCP"

    def _ok(self, name: str) -> bool:
        return any(step.ok for step in self.steps if step.name == name)

    def _note(self, name: str, ok: bool, said: str) -> None:
        step = Step(name, ok, said)
        self.steps.append(step)
        if self._tell is not None:
            self._tell(step)

    # -- steps ------------------------------------------------------------------------------------

    async def _resolve(self) -> tuple[bool, str]:
        host, port = self._target.host, self._target.port
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (socket.gaierror, UnicodeError) as error:
            return False, f"{host}: {getattr(error, 'strerror', None) or 'not a host name'}"
        self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return True, ", ".join(self._addresses)

    async def _probe_udp(self) -> tuple[bool, str]:
        """Ask each address whether it speaks QUIC (RFC 9000 section 6)."""
        port = self._target.port
        answers = await asyncio.gather(
            *(asyncio.to_thread(speaks_quic, host, port) for host in self._addresses)
        )
        said = [
            f"{host} port {port} {'speaks QUIC' if answered else 'does not answer'}"
            for host, answered in zip(self._addresses, answers, strict=True)
        ]
        return any(answers), ", ".join(said)

    async def _probe_tcp(self) -> tuple[bool, str]:
        said, reached = [], False
        for host in self._addresses:
            since = time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE):
                    _, writer = await asyncio.open_connection(host, self._target.port)
            except TimeoutError:
                said.append(f"{host} does not answer")
            except OSError as error:
                said.append(f"{host}: {os.strerror(error.errno) if error.errno else error}")
            else:
                reached = True
                said.append(f"{host} after {_milliseconds(time.perf_counter() - since)}")
                writer.close()
        return reached, ", ".join(said)

    async def _try(self, session: contextlib.AbstractAsyncContextManager[Carried]) -> tuple[bool, str]:
        since = time.perf_counter()
        try:
            async with session as carried:
                opened = time.perf_counter() - since
                times = await _measure(carried)
                note = carried.note()
        except (ConnectError, SessionEndedError, OSError) as error:
            return False, str(error) or type(error).__name__
        if not times:
            return False, f"a session after {_milliseconds(opened)}, but no heartbeat is answered"
        lost = HEARTBEATS - len(times)
        said = (
            f"a session after {_milliseconds(opened)}, round trip {_milliseconds(statistics.median(times))}, "
            f"{_milliseconds(max(times))} at most, {lost} of {HEARTBEATS} heartbeats lost{note}"
        )
        return True, said

    @contextlib.asynccontextmanager
    async def _webtransport(self) -> AsyncIterator[Carried]:
        client = await connect(self._url, self._trust, token=self._target.token, timeout=PATIENCE)
        try:
            yield _WebTransport(client)
        finally:
            client.close()

    @contextlib.asynccontextmanager
    async def _websocket(self) -> AsyncIterator[Carried]:
        from websockets.asyncio.client import connect as connect_websocket
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        target = self._target
        try:
            connecting = connect_websocket(
                f"wss://{target.authority}{target.path}",
                ssl=_tls(self._trust),
                additional_headers=self._target.authorization,
                proxy=None,
                open_timeout=PATIENCE,
                close_timeout=ANSWERED_WITHIN,
                compression=None,
            )
            async with connecting as socket_:
                if not self._is_pinned(socket_.transport.get_extra_info("ssl_object")):
                    raise ConnectError(f"{target.authority}: the certificate has another hash")
                try:
                    yield _WebSocket(socket_)
                except ConnectionClosed as error:
                    raise SessionEndedError(str(error)) from None
        except TimeoutError:
            raise ConnectError(f"{target.authority}: no answer within {PATIENCE:g} s") from None
        except ssl.SSLError as error:
            said = getattr(error, "verify_message", None) or error.reason or error
            raise ConnectError(f"{target.authority}: TLS: {said}") from None
        except InvalidStatus as error:
            why = one_line((error.response.body or b"")[:MAX_EXPLANATION].decode("utf-8", "replace"))
            said = f"the server answered HTTP status {error.response.status_code}{f': {why}' if why else ''}"
            raise ConnectError(f"{target.authority}: {said}") from None
        except InvalidHandshake as error:
            raise ConnectError(f"{target.authority}: {error}") from None

    def _is_pinned(self, tls: ssl.SSLObject | None) -> bool:
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        return self._trust.takes(b"" if certificate is None else hashlib.sha256(certificate).digest())


def _tls(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if trust.ca is None else str(trust.ca))
    if trust.insecure or trust.certificate_hash is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _WebTransport:
    def __init__(self, client: WebTransportClient) -> None:
        self._client = client

    async def send(self, datagram: bytes) -> None:
        self._client.send([datagram])

    async def receive(self) -> Sequence[bytes]:
        return await self._client.receive()

    def note(self) -> str:
        return f", datagrams of up to {self._client.datagram_limit} bytes get through"


class _WebSocket:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, datagram: bytes) -> None:
        await self._connection.send(datagram)

    async def receive(self) -> Sequence[bytes]:
        message = await self._connection.recv()
        return [message if isinstance(message, bytes) else message.encode()]

    def note(self) -> str:
        return ""


async def _measure(session: Carried) -> list[float]:
    """Send heartbeats one after the other; return the seconds that each answered one took."""
    times = []
    for _ in range(HEARTBEATS):
        since = time.perf_counter()
        await session.send(HEARTBEAT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERED_WITHIN):
                while not any(_ACKNOWLEDGED in datagram for datagram in await session.receive()):
                    pass
            times.append(time.perf_counter() - since)
    return times


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"

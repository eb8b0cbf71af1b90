"""The running relay: what is started, in which order, and how it ends.

Start: the default LAN, endpoint, web listener; each needs the ones before it. The end is the reverse, begun
by SIGINT, or by SIGTERM once the relay has drained: the endpoint tells every peer and lets go of the port,
then the actors of all LANs stop and close what they hold. Nothing waits for a client's answer, so the end
takes no longer than sending those packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import os
import resource
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.close_codes import CloseCode
from actors.runtime import current_scheduler
from netstack.counters import Counters
from relay import bans, forward_changes, logs
from relay.admin.opening import AdminError, open_admin, read_token
from relay.admin.service import LoopLag, Served
from relay.admission import RelayAdmission
from relay.bans import Bans
from relay.certs import local_names, network_addresses
from relay.documents import Document
from relay.draining import Draining
from relay.forward_changes import ForwardChanges
from relay.lan import ForwardError, Lan, Shared
from relay.lan_plan import bounds_of_rooms, lan_plan, max_flows
from relay.lans import Lans
from relay.lease_store import LeaseStore
from relay.line_writer import LineWriter
from relay.memory import keep_giving_back
from relay.operations import Operations
from relay.reload import differences, merged
from relay.revocations import FILE as REVOKED
from relay.revocations import Revocations
from relay.room_rules import RoomRules
from relay.settings import REQUIRED, SettingsError
from relay.state import State, open_state
from relay.token_gate import Clocks, TokenGate
from relay.tokens import KeysError
from relay.version import path_form, version
from relay.web_pages import WebPages
from transport.binding import EVERY, EVERY_ADDRESS
from transport.certificates import CertificateError, EphemeralCertificateStore, FileCertificateStore
from transport.host import early_signals
from transport.host.descriptors import own_budget
from transport.host.interfaces import interface_addresses
from transport.origins import OriginPolicy
from transport.quic.endpoint import Endpoint
from transport.web.web_listener import MAX_CONNECTIONS, WebListener

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.settings import Settings
    from transport.certificates import Certificate, CertificateStore

LOOK_EVERY = 1.0
"""Seconds between looks at whether the switch and the gateway still live."""

GARBAGE_THRESHOLD = 20_000
"""New container objects between two looks at the youngest generation: some MB at most."""

SHUTDOWN_REASON = "relay is shutting down"
"""What clients are told; they may try again later."""

PORT_ATTEMPTS = 8
"""Port numbers tried, when any will do, until one is free for both UDP and TCP."""

SHOWN_ADDRESSES = 8
"""Addresses for other machines that are named at start."""


class StartError(Exception):
    """The relay cannot start; the message is one line for the operator."""


def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Run the relay until it is told to stop; return the exit status.

    Raises SettingsError for a certificate that cannot be used, StartError when the port cannot be had.
    """
    with LineWriter(sys.stdout, "standard output") as said, LineWriter(sys.stderr, "the log") as log:
        limiter = logs.setup(settings.log_format, settings.log_level, log)
        _raise_file_limit()
        with contextlib.closing(open_state(settings.state, settings.port, os.environ)) as state:
            certificates = _certificates(settings, state)
            _calm_garbage_collector()
            relay = Relay(settings, certificates, lambda line: said.write(f"{line}\n"), state, reread)
            return asyncio.run(relay.run(limiter))


class Relay:
    """One relay: its actors, its endpoint, and the signals that steer it."""

    def __init__(
        self,
        settings: Settings,
        certificates: CertificateStore,
        say: Callable[[str], object] = print,
        state: State | None = None,
        reread: Callable[[], Settings] | None = None,
    ) -> None:
        """``say`` takes lines for whoever started the relay; without ``state`` nothing outlives it.

        ``reread`` gives the settings as they are when the relay is told to reload.
        """
        self._reread = (lambda: settings) if reread is None else reread
        self._say = say
        self._state = state or State()
        self._leases = LeaseStore(self._state.folder)
        self._revocations = Revocations(self._state.file(REVOKED))
        self._bans = Bans(time.time, Document(self._state.file(bans.FILE), bans.HOLDS))
        self._forwards = ForwardChanges(
            Document(self._state.file(forward_changes.FILE), forward_changes.HOLDS)
        )
        self._settings = settings
        self._certificates = certificates
        self._counters = Counters()
        self._stop = asyncio.Event()
        self._drain_and_stop = asyncio.Event()
        self._read_certificate = asyncio.Event()
        self._tell_counters = asyncio.Event()
        self._lag = LoopLag()

    async def run(self, limiter: logs.Limiter) -> int:
        """Start everything, serve, stop everything; return the exit status."""
        self._listen_to_signals()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(logs.write_summaries, limiter)
            await self._start(stack)
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(logs.keep_summing_up(limiter)),
                    tasks.create_task(self._stop_once_drained()),
                    tasks.create_task(self._keep_certificate()),
                    tasks.create_task(self._keep_telling_counters()),
                    tasks.create_task(keep_giving_back()),
                    tasks.create_task(self._lag.keep_looking()),
                ]
                status = await self._until_stopped()
                for task in others:
                    task.cancel()
        return status

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        current_scheduler().counters = self._counters
        self._shared = Shared(
            current_scheduler(),
            max_flows=max_flows(self._settings),
            max_questions=own_budget().questions,
            tcp_buffers=self._settings.tcp_buffer_total,
        )
        stack.callback(self._shared.close)
        stack.callback(self._leases.close)
        try:
            self._lans = Lans(
                self._make_lan,
                self._counters,
                bounds_of_rooms(self._settings),
                asyncio.get_running_loop().time,
                self._settings.rooms,
            )
        except ForwardError as error:
            raise StartError(str(error)) from None
        stack.callback(self._lans.stop)
        self._lans.block_macs(self._bans.macs)
        await self._forwards.keep()
        make_policy = partial(
            OriginPolicy,
            certificates=self._certificates,
            on_loopback=is_loopback(self._settings.bind),
            names=_own_names(self._settings),
        )
        self._origins = make_policy(self._settings.allow_origin)
        self._rules = RoomRules(self._settings, make_policy)
        try:
            self._tokens = _token_gate(self._settings, self._revocations)
        except KeysError as error:
            raise StartError(str(error)) from None
        self._admission = RelayAdmission(self._origins, self._rules, self._tokens, self._lans, self._bans)
        endpoint, web = await self._listen()
        if web is not None:
            stack.push_async_callback(web.close)
        stack.push_async_callback(self._close, endpoint)
        self._draining = Draining(self._lans, self._admission, endpoint.go_away)
        self._operations = Operations(
            self._lans,
            self._admission,
            self._certificates,
            forwards=self._forwards,
            draining=self._draining,
            reload=self._reload,
        )
        await self._open_admin(stack, endpoint.port)
        logger.info("datagram path: {}", path_form())
        logger.info("limits of each session: {}", limits(self._settings))
        self._announce(endpoint.port)
        if self._rules.auth != {REQUIRED} and not is_loopback(self._settings.bind):
            logger.info("whoever reaches this port can join: --auth required lets in who has a token")
        network = self._lans.default.network
        if self._settings.ipv6 and not network.has_ipv6_route:
            logger.info("this machine has no way to the IPv6 internet: there guests get no answer but that")
        if not network.can_ping:
            logger.warning(
                "guests cannot ping the outside: this system allows neither unprivileged ICMP sockets "
                "(net.ipv4.ping_group_range) nor raw ones (CAP_NET_RAW)"
            )

    async def _open_admin(self, stack: contextlib.AsyncExitStack, port: int) -> None:
        """Serve the admin API, where there is to be one. Raises StartError."""
        settings = self._settings
        address = f"https://{reached_at(settings.bind)}:{port}/"
        facts = {"version": version(), "pid": os.getpid(), "address": address, "path": path_form()}
        try:
            token = None if settings.admin_token is None else read_token(settings.admin_token)
            served = Served(self._operations, facts, lambda: limits_of(self._settings), self._lag)
            service = open_admin(settings.admin, token, port, served)
        except AdminError as error:
            raise StartError(str(error)) from None
        if service is not None:
            stack.push_async_callback(service.close)

    def _make_lan(self, name: str) -> Lan:
        plan = lan_plan(self._settings, name)
        return Lan(name, plan, self._shared, self._leases.of_room(name), self._forwards.of_room(name))

    async def _listen(self) -> tuple[Endpoint, WebListener | None]:
        """Take the UDP port and the TCP port of the same number. Raises StartError."""
        bind, port = self._settings.bind, self._settings.port
        for attempt in range(1, PORT_ATTEMPTS + 1):
            endpoint = Endpoint(
                host=bind,
                port=port,
                certificates=self._certificates,
                admission=self._admission,
                turns=current_scheduler(),
                counters=self._counters,
                client_share=self._settings.client_share,
                congestion=self._settings.congestion,
                reset_key=self._state.secret("stateless-reset"),
            )
            try:
                await endpoint.start()
            except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
                raise StartError(_cannot_listen(f"{bind} port {port}", error)) from None
            if self._settings.web == "off":
                return endpoint, None
            web, taken = self._web_listener(endpoint), endpoint.port
            try:
                web.start()
            except OSError as error:
                endpoint.close(CloseCode.SHUTDOWN, SHUTDOWN_REASON)
                if port == 0 and error.errno == errno.EADDRINUSE and attempt < PORT_ATTEMPTS:
                    continue  # a number that is free for UDP may be taken for TCP: take another one
                where = f"{bind} TCP port {taken}"
                raise StartError(f"{_cannot_listen(where, error)} (--web off does without it)") from None
            return endpoint, web
        raise AssertionError("the last attempt has returned or raised")

    def _web_listener(self, endpoint: Endpoint) -> WebListener:
        return WebListener(
            host=self._settings.bind,
            port=endpoint.port,
            plain=self._settings.web == "auto" and is_loopback(self._settings.bind),
            certificates=self._certificates,
            pages=WebPages(self._certificates),
            admission=self._admission,
            turns=current_scheduler(),
            counters=self._counters,
            client_share=self._settings.client_share,
            max_connections=min(MAX_CONNECTIONS, own_budget().connections),
        )

    def _announce(self, port: int) -> None:
        """Say where the relay is, and how to try it."""
        certificate, bind, say = self._certificates.current, self._settings.bind, self._say
        url = f"https://{reached_at(bind)}:{port}"
        say(f"Certificate SHA-256 Hash: {certificate.sha256}")
        say(f"Listening on {url}")
        say("To try it, paste this into the console of a page from http://localhost, or of the relay's own:")
        say(javascript(f"{url}/", certificate))
        if bind in EVERY:
            others = [
                f"https://{_in_url(address)}:{port}"
                for address in network_addresses()
                if bind == EVERY_ADDRESS or ":" not in address
            ]
            if others:
                logger.info("other machines reach it at {}", " ".join(others[:SHOWN_ADDRESSES]))

    async def _close(self, endpoint: Endpoint) -> None:
        self._lans.close_sessions(CloseCode.SHUTDOWN, SHUTDOWN_REASON)
        endpoint.close(CloseCode.SHUTDOWN, SHUTDOWN_REASON)
        await endpoint.wait_closed()

    async def _until_stopped(self) -> int:
        """Wait for the signal to stop; without the default LAN there is nothing left to serve."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_EVERY)
            self._lans.look()
            self._operations.refresh_bans()
            if not self._lans.default.is_alive:
                logger.critical("the LAN failed; the relay ends so that it can be started afresh")
                return 1
        logger.info("the relay is shutting down")
        return 0

    # -- signals ------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        """Handle signals from now on, and those that came while the libraries were loaded."""
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._stop.set,
            signal.SIGHUP: self._read_certificate.set,
            signal.SIGUSR1: self._tell_counters.set,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            if early_signals.came(number):
                handler()

    def _terminate(self) -> None:
        """Stop after draining; asked a second time, at once."""
        (self._stop if self._drain_and_stop.is_set() else self._drain_and_stop).set()

    async def _stop_once_drained(self) -> None:
        await self._drain_and_stop.wait()
        await self._draining.until_empty(self._settings.drain_timeout)
        self._stop.set()

    async def _keep_telling_counters(self) -> None:
        """Log the counters at each SIGUSR1, also at one that came while there were none yet."""
        while True:
            await self._tell_counters.wait()
            self._tell_counters.clear()
            self._log_counters()

    def _log_counters(self) -> None:
        asked_for = logger.bind(unthinned=True)
        asked_for.bind(**dict(sorted(self._lans.totals().items()))).info("counters:")
        for lan in self._lans if len(self._lans) > 1 else ():
            asked_for.bind(**dict(sorted(lan.counters.items()))).info("counters of room {}:", lan.name)

    # -- the certificate ----------------------------------------------------------------------------

    async def _keep_certificate(self) -> None:
        """Renew or reload the certificate as time passes, files change or SIGHUP comes."""
        told: tuple[str, ...] = ()
        while True:
            found = self._certificates.current.complaints(datetime.now(UTC))
            for complaint in found:
                if complaint not in told:
                    logger.warning("{}", complaint)
            told = found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._read_certificate.wait(), self._settings.cert_poll_interval)
            asked = self._read_certificate.is_set()
            self._read_certificate.clear()
            if asked:
                await self._reload()
            else:
                await self._refresh_certificate(asked=False)
                await self._refresh_keys()

    async def _reload(self) -> dict[str, Any]:
        """Read configuration, certificate and keys again; tell what changed, and what needs a restart."""
        told: dict[str, Any] = {"changed": [], "needs_restart": [], "errors": []}
        try:
            found = await asyncio.to_thread(self._reread)
        except SettingsError as error:
            logger.error("the settings stay as they were: {}", error)
            told["errors"].append(str(error))
        else:
            told["changed"], told["needs_restart"] = differences(self._settings, found)
            self._take_over(found)
            await self._forwards.keep()
            if told["changed"]:
                logger.info("other settings are in force: {}", ", ".join(told["changed"]))
            if told["needs_restart"]:
                logger.warning("these settings need a restart: {}", ", ".join(told["needs_restart"]))
        told["certificate"] = await self._refresh_certificate(asked=True)
        told["keys"] = await self._refresh_keys()
        return told

    def _take_over(self, settings: Settings) -> None:
        """Let what can change be as in other settings; all else stays as it is."""
        self._settings = merged(self._settings, settings)
        logs.set_level(self._settings.log_level)
        self._origins.allow(self._settings.allow_origin)
        self._rules.take(self._settings)
        self._lans.bounds = bounds_of_rooms(self._settings)
        for lan in self._lans:
            lan.replan(lan_plan(self._settings, lan.name))

    async def _refresh_keys(self) -> bool:
        """Read the keys again; whether they changed."""
        try:
            changed = self._tokens.take(await asyncio.to_thread(self._tokens.load))
        except KeysError as error:
            logger.error("the keys and revoked tokens stay as they were: {}", error)
            return False
        if changed:
            logger.info("other keys or revoked tokens are in force")
        return changed

    async def _refresh_certificate(self, *, asked: bool) -> bool:
        """Read or renew the certificate where it is time, or where it was asked for; whether it changed."""
        try:
            changed = await asyncio.to_thread(self._certificates.refresh, datetime.now(UTC), force=asked)
        except CertificateError as error:
            logger.error("the certificate stays as it was: {}", error)
            return False
        except Exception:  # noqa: BLE001 - whatever a file may contain, sessions go on
            logger.exception("the certificate stays as it was")
            return False
        if changed:
            self._say(f"Certificate SHA-256 Hash: {self._certificates.current.sha256}")
            logger.info("new certificate for new sessions: {}", self._certificates.current.sha256)
        elif asked:
            logger.info("the certificate has not changed")
        return changed


def _token_gate(settings: Settings, revocations: Revocations) -> TokenGate:
    files = None if settings.auth_keys is None else (settings.auth_keys, settings.auth_revoked)
    return TokenGate(files, Clocks(time.time, asyncio.get_running_loop().time), revocations)


def _own_names(settings: Settings) -> tuple[str, ...]:
    """Tell the names of a relay that makes its own certificate; one of an authority says them itself."""
    return () if settings.cert_pem else (*local_names(), settings.bind)


def _certificates(settings: Settings, state: State) -> CertificateStore:
    if settings.cert_pem is None or settings.key_pem is None:
        kept = state.file("certificates.pem")
        return EphemeralCertificateStore(_own_names(settings), datetime.now(UTC), kept)
    try:
        return FileCertificateStore(settings.cert_pem, settings.key_pem)
    except CertificateError as error:
        raise SettingsError(str(error)) from None


def limits_of(settings: Settings) -> dict[str, Any]:
    """Tell the limits as they were set, by the names of the settings."""
    names = (
        *("bit_rate", "packet_rate", "max_peers", "client_share", "max_flows", "flow_rate", "max_half_open"),
        *("max_flows_total", "max_forwarded", "max_rooms", "rooms_per_client", "room_idle_time"),
        *("tcp_buffer", "tcp_buffer_peer", "tcp_buffer_total"),
    )
    return {name.replace("_", "-"): getattr(settings, name) for name in names}


def limits(settings: Settings) -> str:
    """Name what a session may have and send, in an operator's words."""
    bits, packets = (rate or "any number of" for rate in (settings.bit_rate, settings.packet_rate))
    return (
        f"{bits} bits/s and {packets} packets/s each way, {settings.max_flows} flows, "
        f"{settings.flow_rate} new ones/s, {settings.max_half_open} half-open; {settings.max_peers} sessions"
    )


def is_loopback(bind: str) -> bool:
    """Whether a relay bound to this name or address is reached from its own machine only."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def _cannot_listen(where: str, error: OSError | UnicodeError) -> str:
    return f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}"


def _calm_garbage_collector() -> None:
    """Have cyclic garbage looked for less often, and never in what was loaded at the start.

    The relay's objects go by reference counts; with Python's own thresholds every tenth session that opens
    pays for a walk through all modules.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _raise_file_limit() -> None:
    """Take as many files as the system allows: every flow is a socket, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- what is printed ----------------------------------------------------------------------------------


def reached_at(bind: str) -> str:
    """Host of a URL by which this machine reaches a relay that is bound to ``bind``.

    A relay of one IP version is named by address, for browsers do not try the other one: they connect by
    WebTransport to the first address of a name.
    """
    if bind not in EVERY:
        return _in_url(bind)
    return "localhost" if bind == EVERY_ADDRESS and "::1" in _own_addresses() else "127.0.0.1"


def _own_addresses() -> frozenset[str]:
    with contextlib.suppress(OSError):
        return interface_addresses()
    return frozenset()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def javascript(url: str, certificate: Certificate) -> str:
    """One line for a browser's console that connects to ``url``.

    A certificate that browsers may take by its hash is pinned; one of an authority stands for itself.
    """
    options = ""
    if certificate.can_be_pinned:
        value = f'Uint8Array.from("{certificate.sha256}".match(/../g), (byte) => parseInt(byte, 16))'
        options = f', {{serverCertificateHashes: [{{algorithm: "sha-256", value: {value}}}]}}'
    return f'var relay = new WebTransport("{url}"{options}); await relay.ready; console.log("connected");'

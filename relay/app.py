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
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.close_codes import CloseCode
from actors.runtime import current_scheduler
from netstack.counters import Counters
from relay import bans, forward_changes, logs
from relay.admin.passes import Passes
from relay.admin.service import LoopLag, Served
from relay.admission import RelayAdmission
from relay.announcement import announce, describe, is_loopback, limits_of
from relay.bans import Bans
from relay.cluster import nats_servers, place_alone
from relay.decisions import Decisions
from relay.documents import Document
from relay.draining import Draining
from relay.forward_changes import ForwardChanges
from relay.lan import ForwardError, Lan
from relay.lan_plan import bounds_of_rooms, lan_plan, max_flows
from relay.lans import Lans
from relay.lease_store import LeaseStore
from relay.memory import keep_giving_back
from relay.operations import Operations
from relay.own_certificate import CertificateKeeper, open_certificates, own_names
from relay.reload import merged, read_again, tell_reload
from relay.revocations import FILE as REVOKED
from relay.revocations import Revocations
from relay.room_rules import RoomRules
from relay.shared import Shared
from relay.starting import (
    StartError,
    calm_garbage_collector,
    cannot_listen,
    facts_of,
    open_admin_api,
    open_audit_log,
    prepared,
    renew_admin_token,
    token_gate,
)
from relay.state import State
from relay.tokens import KeysError
from relay.trunk import Trunk
from relay.web_pages import WebPages
from transport.binding import PORT_ATTEMPTS
from transport.host import early_signals
from transport.host.descriptors import own_budget
from transport.origins import OriginPolicy
from transport.quic.endpoint import Endpoint
from transport.web.web_listener import MAX_CONNECTIONS, WebListener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from relay.admin.service import Offered
    from relay.audit import AuditLog
    from relay.settings import Settings
    from relay.workers.place import Place
    from transport.certificates import CertificateStore

LOOK_EVERY = 1.0
"""Seconds between looks at whether the switch and the gateway still live."""

SHUTDOWN_REASON = "relay is shutting down"
"""What clients are told; they may try again later."""


def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Run the relay until it is told to stop; return the exit status.

    Raises SettingsError for a certificate that cannot be used, StartError when the port cannot be had.
    """
    with prepared(settings) as (limiter, state, say):
        certificates = open_certificates(settings, state)
        calm_garbage_collector()
        return asyncio.run(Relay(settings, certificates, say, state, reread).run(limiter))


class Relay:
    """One relay: its actors, its endpoint, and the signals that steer it."""

    IS_PART = False
    """Whether it is one process of several, and a supervisor has the whole."""

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
        self._keeper = CertificateKeeper(certificates, say)
        self._counters = Counters()
        self._stop = asyncio.Event()
        self._drain_and_stop = asyncio.Event()
        self._read_certificate = asyncio.Event()
        self._tell_counters = asyncio.Event()
        self._audit: AuditLog | None = None
        self._offered: Offered | None = None
        """What the admin API serves."""
        self._lag = LoopLag()
        self._decisions = Decisions()

    async def run(self, limiter: logs.Limiter) -> int:
        """Start everything, serve, stop everything; return the exit status."""
        self._listen_to_signals()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(logs.write_summaries, limiter)
            await self._start(stack)
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(logs.keep_summing_up(limiter)),
                    tasks.create_task(keep_giving_back()),
                    tasks.create_task(self._lag.keep_looking()),
                    *map(tasks.create_task, self._watches()),
                ]
                status = await self._until_stopped()
                for task in others:
                    task.cancel()
        return status

    def _watches(self) -> list[Coroutine[Any, Any, None]]:
        """Tell what goes on beside the serving."""
        return [self._stop_once_drained(), self._keep_certificate(), self._keep_telling_counters()]

    def _make_shared(self, place: Place | None, *, first_port: int = 1) -> Shared:
        """Make what the rooms of this process share. Raises StartError."""
        try:
            trunk = None
            if place is not None:
                servers = nats_servers(self._settings)
                trunk = Trunk(
                    place,
                    turns=current_scheduler(),
                    counters=self._counters,
                    cluster=servers,
                    urls=self._settings.url,
                )
            return Shared(
                current_scheduler(),
                max_flows=max_flows(self._settings),
                max_questions=own_budget().questions,
                tcp_buffers=self._settings.tcp_buffer_total,
                place=place,
                first_port=first_port,
                trunk=trunk,
                urls=self._settings.url,
            )
        except OSError as error:
            raise StartError(f"cannot share rooms: {error.strerror or error}") from None

    def _open_shared(self) -> Shared:
        return self._make_shared(place_alone(self._settings))

    def _open_audit_log(self, stack: contextlib.AsyncExitStack) -> None:
        """Begin the audit log, where there is to be one. Raises StartError."""
        self._audit = audit = open_audit_log(self._settings)
        if audit is not None:
            self._shared.journal = audit.flow
            stack.callback(audit.close)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        current_scheduler().counters = self._counters
        self._shared = self._open_shared()
        self._open_audit_log(stack)
        stack.push_async_callback(self._shared.wait_closed)
        stack.callback(self._shared.close)
        stack.callback(self._leases.close)
        try:
            self._lans = Lans(
                self._make_lan,
                self._counters,
                bounds_of_rooms(self._settings),
                asyncio.get_running_loop().time,
                self._settings.rooms,
                elsewhere=self._shared.rooms_elsewhere,
            )
        except ForwardError as error:
            raise StartError(str(error)) from None
        stack.callback(self._lans.stop)
        if self._shared.trunk is not None:
            self._shared.trunk.maker_of = self._lans.maker_of
            self._shared.trunk.remember = self._leases.learn
        self._lans.block_macs(self._bans.macs)
        await self._forwards.keep()
        make_policy = partial(
            OriginPolicy,
            certificates=self._certificates,
            on_loopback=is_loopback(self._settings.bind),
            names=own_names(self._settings),
        )
        self._origins = make_policy(self._settings.allow_origin)
        self._rules = RoomRules(self._settings, make_policy)
        try:
            self._tokens = token_gate(self._settings, self._revocations)
        except KeysError as error:
            raise StartError(str(error)) from None
        self._admission = RelayAdmission(
            self._origins, self._rules, self._tokens, self._lans, self._bans, urls=self._shared.urls
        )
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
            is_part=self.IS_PART,
        )
        await self._open_admin(stack, endpoint.port)
        self._announce(endpoint.port)

    def _announce(self, port: int) -> None:
        """Tell who started the relay where it is, and what it is like."""
        describe(self._settings)
        announce(self._say, self._settings.bind, port, self._certificates.current)
        self._tell_what_lacks()

    def _tell_what_lacks(self) -> None:
        network = self._lans.default.network
        if self._settings.ipv6 and network.policy.open_ipv6 and not network.has_ipv6_route:
            logger.info("this machine has no way to the IPv6 internet: there guests get no answer but that")
        if not network.can_ping:
            logger.warning(
                "guests cannot ping the outside: this system allows neither unprivileged ICMP sockets "
                "(net.ipv4.ping_group_range) nor raw ones (CAP_NET_RAW)"
            )

    async def _open_admin(self, stack: contextlib.AsyncExitStack, port: int) -> None:
        """Serve the admin API, where there is to be one. Raises StartError."""
        facts = facts_of(self._settings, port)
        self._offered = served = Served(
            facts=facts,
            operations=self._operations,
            limits=lambda: limits_of(self._settings),
            lag=self._lag,
        )
        service = open_admin_api(self._settings, port, served, Passes(self._tokens, self._bans))
        if service is not None:
            stack.push_async_callback(service.close)

    def _make_lan(self, name: str) -> Lan:
        plan = lan_plan(self._settings, name)
        lan = Lan(name, plan, self._shared, self._leases.of_room(name), self._forwards.of_room(name))
        self._decisions.follow([lan])
        return lan

    async def _listen(self) -> tuple[Endpoint, WebListener | None]:
        """Take the UDP port and the TCP port of the same number. Raises StartError."""
        bind, port = self._settings.bind, self._settings.port
        for attempt in range(1, PORT_ATTEMPTS + 1):
            endpoint = self._endpoint()
            try:
                await endpoint.start()
            except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
                raise StartError(cannot_listen(f"{bind} port {port}", error)) from None
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
                raise StartError(f"{cannot_listen(where, error)} (--web off does without it)") from None
            return endpoint, web
        raise AssertionError("the last attempt has returned or raised")

    def _endpoint(self, **shared: Any) -> Endpoint:
        """Make the UDP port's endpoint; ``shared`` is what goes for it where others share the port."""
        return Endpoint(
            host=self._settings.bind,
            port=self._settings.port,
            certificates=self._certificates,
            admission=self._admission,
            turns=current_scheduler(),
            counters=self._counters,
            client_share=self._settings.client_share,
            congestion=self._settings.congestion,
            reset_key=self._state.secret("stateless-reset"),
            **shared,
        )

    def _web_listener(self, endpoint: Endpoint, sockets: Sequence[socket.socket] = ()) -> WebListener:
        return WebListener(
            host=self._settings.bind,
            port=endpoint.port,
            sockets=sockets,
            plain=self._settings.web == "auto" and is_loopback(self._settings.bind),
            certificates=self._certificates,
            pages=WebPages(self._certificates),
            admission=self._admission,
            turns=current_scheduler(),
            last_turns=endpoint.last_turns,
            counters=self._counters,
            client_share=self._settings.client_share,
            max_connections=min(MAX_CONNECTIONS, own_budget().connections),
        )

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
            if self._audit is not None:
                self._audit.count_losses(self._counters)
            if not self._lans.default.is_alive:
                logger.critical("the LAN failed; the relay ends so that it can be started afresh")
                return 1
        self._say_farewell()
        return 0

    def _say_farewell(self) -> None:
        logger.info("the relay is shutting down")

    # -- signals ------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        """Handle signals from now on, and those that came while the libraries were loaded."""
        handlers = {
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._stop.set,
            signal.SIGHUP: self._read_certificate.set,
            signal.SIGUSR1: self._tell_counters.set,
        }
        early_signals.handle(asyncio.get_running_loop(), handlers)

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
        await self._keeper.keep(
            self._read_certificate,
            lambda: self._settings.cert_poll_interval,
            self._look_at_files,
            self._reload,
        )

    async def _look_at_files(self) -> None:
        await self._keeper.refresh(asked=False)
        await self._refresh_keys()
        await asyncio.to_thread(self._state.write_again)

    async def _reload(self) -> dict[str, Any]:
        """Read configuration, certificate and keys again; tell what changed, and what needs a restart."""
        told: dict[str, Any] = {"changed": [], "needs_restart": [], "errors": []}
        if self._audit is not None:
            self._audit.reopen()
        found = await read_again(self._reread, self._settings, told)
        if found is not None:
            self._take_over(found)
            await self._forwards.keep()
            await renew_admin_token(self._settings, self._offered, told)
            tell_reload(told)
        told["certificate"] = await self._keeper.refresh(asked=True, errors=told["errors"])
        told["keys"] = await self._tokens.refresh(told["errors"])
        await asyncio.to_thread(self._state.write_again)
        return told

    def _take_over(self, settings: Settings) -> None:
        """Let what can change be as in other settings; all else stays as it is."""
        self._settings = merged(self._settings, settings)
        logs.set_level(self._settings.log_level, self._settings.log_filter)
        self._origins.allow(self._settings.allow_origin)
        self._rules.take(self._settings)
        self._lans.bounds = bounds_of_rooms(self._settings)
        self._shared.flows.limit = max_flows(self._settings)
        for lan in self._lans:
            lan.replan(lan_plan(self._settings, lan.name))
        for lan in self._lans:  # now, as their forwards may have been another room's
            lan.follow_changes()
        self._lans.keep(self._settings.rooms)
        self._decisions.follow(self._lans)

    async def _refresh_keys(self) -> bool:
        """Read the keys again; whether they changed."""
        return await self._tokens.refresh()

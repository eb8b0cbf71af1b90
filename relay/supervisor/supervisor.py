"""A relay of several processes: what is started, in which order, and how it ends.

Theory of operation. The supervisor moves no packets. It opens the state and the certificate, binds the ports,
and starts a worker for each of ``--workers``: a fresh interpreter that inherits its sockets and is told the
rest (``relay.workers``). It has the kernel steer packets to the workers that live
(``transport.quic.steering``), watches them, and starts those again that end. It alone renews the certificate
and reads the settings, serves the admin API for all of them, and understands signals. Workers whose
supervisor has gone end, and tell their clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from loguru import logger

from relay import bans, forward_changes, logs
from relay.admin.passes import Passes
from relay.admin_place import PlaceError
from relay.announcement import announce, describe
from relay.bans import Bans
from relay.cluster import nats_servers, node_of, room_key
from relay.documents import Document
from relay.forward_changes import ForwardChanges
from relay.lease_store import LeaseStore
from relay.operations import OperationError
from relay.own_certificate import CertificateKeeper, open_certificates
from relay.reload import merged, read_again, tell_reload
from relay.revocations import FILE as REVOKED
from relay.revocations import Revocations
from relay.settings import SettingsError
from relay.starting import (
    StartError,
    cannot_listen,
    facts_of,
    open_admin_api,
    open_audit_log,
    prepared,
    renew_admin_token,
    token_gate,
)
from relay.supervisor import run_directory
from relay.supervisor.asking import Question, ask_all
from relay.supervisor.crew import Crew, CrewError, Life
from relay.supervisor.forwards import WholeForwards
from relay.supervisor.merging import summed
from relay.supervisor.ports import Ports, WebPortError
from relay.supervisor.served import ServedWhole
from relay.tokens import KeysError
from relay.workers import handed as handing
from relay.workers.place import Place
from transport.host import early_signals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay.settings import Settings
    from relay.state import State

RETIRE_SECONDS = 10.0
"""Over how long a time the clients of a worker that is replaced are told to move."""

RELOAD_PATIENCE = 10.0
"""Seconds that workers have to reload."""


def serve(settings: Settings, count: int, reread: Callable[[], Settings]) -> int:
    """Run a relay of ``count`` workers until it is told to stop; return the exit status.

    Raises SettingsError for a certificate that cannot be used, StartError when the port cannot be had.
    """
    if sys.platform != "linux":
        raise SettingsError("--workers needs Linux, whose kernel knows which of them a packet is for")
    with prepared(settings) as (limiter, state, say):
        return asyncio.run(Supervisor(settings, count, state, say, reread).run(limiter))


class Supervisor:
    """A relay of several workers."""

    def __init__(
        self,
        settings: Settings,
        count: int,
        state: State,
        say: Callable[[str], object],
        reread: Callable[[], Settings],
    ) -> None:
        """``say`` takes lines for whoever started the relay; ``reread`` gives the settings of the moment.

        Raises SettingsError for a certificate, or a key, that cannot be used.
        """
        self.certificates = open_certificates(settings, state)
        self.settings = settings
        self.draining = False
        self._count = count
        self._say = say
        self._state = state
        self._reread = reread
        self._keeper = CertificateKeeper(self.certificates, say)
        self._stop = asyncio.Event()
        self._status = 0
        self._offered: ServedWhole | None = None
        self.bans = Bans(time.time, Document(state.file(bans.FILE), bans.HOLDS))
        changes = ForwardChanges(Document(state.file(forward_changes.FILE), forward_changes.HOLDS))
        self.forwards = WholeForwards(changes, lambda: self.settings)
        self._revocations = Revocations(state.file(REVOKED))
        nats_servers(settings)  # what is wrong with its files is told once, before there are workers
        self._room_key = room_key(settings) or state.secret("rooms")
        self._drain_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._counters_asked = asyncio.Event()
        self._restart_asked = asyncio.Event()

    async def run(self, limiter: logs.Limiter) -> int:
        """Start everything, serve, stop everything; return the exit status."""
        self._listen_to_signals()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(logs.write_summaries, limiter)
            await self._start(stack)
            if self._stop.is_set():
                logger.info("the relay is shutting down")
                return self._status
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(logs.keep_summing_up(limiter)),
                    tasks.create_task(self._stop_once_drained()),
                    tasks.create_task(self._keep_certificate()),
                    tasks.create_task(_each_time(self._counters_asked, self._log_counters)),
                    tasks.create_task(_each_time(self._restart_asked, self._restart)),
                    tasks.create_task(self._stop_if_workers_are_not_kept()),
                ]
                await self._stop.wait()
                logger.info("the relay is shutting down")
                for task in others:
                    task.cancel()
        return self._status

    async def _stop_if_workers_are_not_kept(self) -> None:
        """End where nobody starts the workers again: whoever runs the relay starts all of it afresh."""
        try:
            await self.crew.until_failed()
        except Exception:  # noqa: BLE001 - whatever it is
            logger.exception("workers are no longer started again: the relay ends")
            self._status = 1
            self._stop.set()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        bind, port = self.settings.bind, self.settings.port
        try:
            self._ports = Ports(bind, port, self._count, web=self.settings.web != "off")
        except WebPortError as error:
            where = f"{bind} TCP port {port}"
            raise StartError(f"{cannot_listen(where, error)} (--web off does without it)") from None
        except (OSError, UnicodeError) as error:
            raise StartError(cannot_listen(f"{bind} port {port}", error)) from None
        stack.callback(self._ports.close)
        self.port = self._ports.port
        self._open_audit_log(stack)
        try:
            self._folder = run_directory.make(self.port, os.environ)
        except (OSError, PlaceError) as error:
            raise StartError(f"--workers needs a folder for its sockets: {error}") from None
        stack.callback(run_directory.remove, self._folder)
        try:
            self.forwards.try_all()
        except OperationError as error:
            raise StartError(str(error)) from None
        await self.forwards.changes.keep()  # which the settings may have changed since
        try:
            self.tokens = token_gate(self.settings, self._revocations)
        except KeysError as error:
            raise StartError(str(error)) from None
        # Made, or put aside, before there are workers: those that begin with it together lock each other out.
        LeaseStore(self._state.folder).close()
        self.crew = Crew(self._count, self._ports, self._life, self._state_of_now)
        stack.push_async_callback(self.crew.stop)
        try:
            await self.crew.start()
        except CrewError as error:
            if not self._drain_asked.is_set():
                raise StartError(str(error)) from None
            self._stop.set()  # who told all processes of a service to end has told that worker, too
            return
        logger.info("{} workers share the port", self._count)
        await self._open_admin(stack)
        describe(self.settings)
        announce(self._say, bind, self.port, self.certificates.current)

    def _open_audit_log(self, stack: contextlib.AsyncExitStack) -> None:
        """Write what operators change to the audit log, if there is one; the workers write the rest."""
        audit = open_audit_log(self.settings)
        if audit is not None:
            stack.callback(audit.close)

    async def _open_admin(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve the admin API, where there is to be one. Raises StartError."""
        self._offered = served = ServedWhole(facts=facts_of(self.settings, self.port), whole=self)
        service = open_admin_api(self.settings, self.port, served, Passes(self.tokens, self.bans))
        if service is not None:
            stack.push_async_callback(service.close)

    def _place(self, number: int) -> Place:
        return Place(number, self._count, self._folder, self._room_key, node_of(self.settings))

    def _life(self, number: int, first_port: int) -> Life:
        folder: Path | None = None if self._state.folder is None else self._state.folder.path
        handed = handing.Handed(
            self._place(number),
            udp=self._ports.of(number),
            tcp=self._ports.tcp,
            reset_key=self._state.secret("stateless-reset"),
            retry_key=self._state.secret("retry"),
            first_port=first_port,
            state=folder,
        )
        start = handing.pack(handed) | self._state_of_now()
        return Life(start, [opened.fileno() for opened in (*handed.udp, *handed.tcp)])

    def _state_of_now(self) -> dict[str, Any]:
        """Tell what operators may change while a worker starts."""
        return {
            "settings": handing.pack_settings(self.settings),
            "certificates": handing.pack_certificates(self.certificates),
            "bans": [(ban.kind, ban.what, ban.until, ban.reason) for ban in self.bans],
            "revoked": sorted(self._revocations.ids),
            "forwards": self.forwards.changes.entries(),
            "draining": self.draining,
        }

    # -- signals ------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        handlers = {
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._stop.set,
            signal.SIGHUP: self._reload_asked.set,
            signal.SIGUSR1: self._counters_asked.set,
            signal.SIGUSR2: self.restart,
        }
        early_signals.handle(asyncio.get_running_loop(), handlers)

    def _terminate(self) -> None:
        """Stop after draining; asked a second time, at once."""
        (self._stop if self._drain_asked.is_set() else self._drain_asked).set()

    async def _stop_once_drained(self) -> None:
        await self._drain_asked.wait()
        self.draining = True
        await self.crew.drain_and_stop(self.settings.drain_timeout)
        self._stop.set()

    async def forwards_changed(self) -> None:
        """Keep what an operator has done to the forwards, and have the workers do it."""
        self.crew.broadcast("forwards", forwards=self.forwards.changes.entries())
        await self.forwards.changes.keep()

    def sockets(self) -> dict[int, Path]:
        """Tell where the workers that run can be asked."""
        return {number: self._place(number).admin_socket for number in self.crew.live}

    async def _log_counters(self) -> None:
        """Log the counters of all workers together, and of each room where there are several."""
        asked_for = logger.bind(unthinned=True)
        totals = await self._counters()
        asked_for.bind(**totals).info("counters:")
        answers = await ask_all(self.sockets(), Question("GET", "/v1/rooms"))
        good = [answer.json() for answer in answers.values() if answer.is_good]
        rooms = sorted({room["name"] for answer in good for room in answer})
        for room in rooms if len(rooms) > 1 else ():
            asked_for.bind(**await self._counters(f"?room={room}")).info("counters of room {}:", room)

    async def _counters(self, query: str = "") -> dict[str, int]:
        answers = await ask_all(self.sockets(), Question("GET", f"/v1/counters{query}"))
        return summed(answer.json() for answer in answers.values() if answer.is_good)

    def restart(self) -> None:
        """Begin to replace the workers one by one."""
        self._restart_asked.set()

    async def _restart(self) -> None:
        await self.crew.restart_one_by_one(RETIRE_SECONDS)

    # -- the certificate and the settings -----------------------------------------------------------

    async def _keep_certificate(self) -> None:
        """Renew or reload the certificate as time passes, files change or SIGHUP comes."""
        await self._keeper.keep(
            self._reload_asked,
            lambda: self.settings.cert_poll_interval,
            self._look_at_files,
            self.reload,
        )

    async def _look_at_files(self) -> None:
        await self._refresh_certificate(asked=False)
        await self.tokens.refresh()
        await asyncio.to_thread(self._state.write_again)

    async def _refresh_certificate(self, *, asked: bool, errors: list[str] | None = None) -> bool:
        changed = await self._keeper.refresh(asked=asked, errors=errors)
        if changed:
            self.crew.broadcast("certificates", certificates=handing.pack_certificates(self.certificates))
        return changed

    async def reload(self) -> dict[str, Any]:
        """Read configuration, certificate and keys again; tell what changed, and what needs a restart."""
        told: dict[str, Any] = {"changed": [], "needs_restart": [], "errors": []}
        found = await read_again(self._reread, self.settings, told)
        if found is not None:
            self.settings = merged(self.settings, found)
            self.forwards.follow()
            await self.forwards.changes.keep()
            logs.set_level(self.settings.log_level, self.settings.log_filter)
            await renew_admin_token(self.settings, self._offered, told)
            tell_reload(told)
        told["certificate"] = await self._refresh_certificate(asked=True, errors=told["errors"])
        await self.crew.reload(handing.pack_settings(self.settings), RELOAD_PATIENCE)
        told["keys"] = await self.tokens.refresh(told["errors"])
        await asyncio.to_thread(self._state.write_again)
        return told


async def _each_time(asked: asyncio.Event, do: Callable[[], Awaitable[object]]) -> None:
    """Do something each time that it is asked for, and once for what comes meanwhile."""
    while True:
        await asked.wait()
        asked.clear()
        try:
            await do()
        except Exception:  # noqa: BLE001 - the workers go on without it
            logger.exception("it could not be done")

"""A worker: one of the processes of a relay that has several (``--workers``). Its supervisor starts it.

It is the relay of ``relay.app`` with what it shares handed to it: sockets, keys, certificate, settings. It
says that it lives twice a second, and does what it is told over the channel. When the channel closes, its
supervisor is gone: it tells its clients, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.close_codes import CloseCode
from actors.messages import ClosePeer
from actors.runtime import run_ready, tell_alive
from relay import logs
from relay.admin.service import AdminService, Served
from relay.admin_place import PlaceError, listen
from relay.app import Relay
from relay.bans import Ban
from relay.line_writer import LineWriter
from relay.settings import SettingsError
from relay.starting import StartError, calm_garbage_collector, raise_file_limit
from relay.state import Folder, State
from relay.version import path_form, version
from relay.workers import handed as handing
from relay.workers.channel import Channel, ChannelError
from transport.quic.siblings import Siblings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from relay.settings import Settings
    from relay.shared import Shared
    from relay.workers.channel import Message
    from relay.workers.handed import Handed
    from transport.quic.endpoint import Endpoint
    from transport.web.web_listener import WebListener

BEAT_EVERY = 0.5
"""Seconds between two signs of life."""

KNOWN_WITHIN = 1.0
"""Seconds for which the start waits for what the others say of their guests; one that hangs does not."""

MOVING = "the relay restarts this process; connect again at once"
"""What clients are told that are to move to another worker."""

IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals to the whole group, which are the supervisor's to understand."""


class WorkerRelay(Relay):
    """The relay as a worker runs it."""

    IS_PART = True

    def __init__(self, start: Message, handed: Handed, channel: Channel) -> None:
        """``start`` is the supervisor's first message."""
        self._handed = handed
        self._place = handed.place
        self._channel = channel
        self._start_message = start
        self._handed_certificates = handing.HandedCertificates(start["certificates"])
        settings = handing.settings_of(handed.place, handing.unpack_settings(start["settings"]))
        folder = None if handed.state is None else Folder(handed.state, shared=True)
        state = State(folder, {"stateless-reset": handed.reset_key}, read_only=True)
        super().__init__(settings, self._handed_certificates, lambda _: None, state)
        self._forwards.take(start["forwards"])
        self._revocations.ids |= set(start["revoked"])
        for fields in start["bans"]:
            self._bans.add(Ban(*fields))

    # -- what is different of the start --------------------------------------------------------------

    def _open_shared(self) -> Shared:
        return self._make_shared(self._place, first_port=self._handed.first_port)

    async def _listen(self) -> tuple[Endpoint, WebListener | None]:
        place, handed = self._place, self._handed
        if self._shared.trunk is not None:
            # Until then a MAC or an address of another worker's guest would be anybody's here.
            await self._shared.trunk.until_known(self._start_message["live"], KNOWN_WITHIN)
        try:
            self._siblings = Siblings(place.number, place.count, place.folder, self._counters)
        except OSError as error:
            raise StartError(f"{place.folder}: {error.strerror or error}") from None
        self._endpoint_here = self._endpoint(
            sockets=handed.udp, siblings=self._siblings, retry_key=handed.retry_key
        )
        await self._endpoint_here.start()
        self._web = self._web_listener(self._endpoint_here, handed.tcp) if handed.tcp else None
        if self._web is not None:
            self._web.start()
        return self._endpoint_here, self._web

    async def _open_admin(self, stack: contextlib.AsyncExitStack, port: int) -> None:
        path = self._place.admin_socket
        facts = {"version": version(), "path": path_form(), "address": "", "port": port}
        served = Served(facts=facts, operations=self._operations, limits=dict, lag=self._lag)
        try:
            service = AdminService(listen(path), served, path)
        except PlaceError as error:
            raise StartError(str(error)) from None
        service.start()
        stack.push_async_callback(service.close)

    def _announce(self, port: int) -> None:  # noqa: ARG002 - the supervisor says it
        if self._place.number == 0:
            self._tell_what_lacks()
        self._admission.draining = self._start_message["draining"]
        self._take_membership(self._start_message)
        self._channel.send("ready", version=version())

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain_and_stop.set)

    def _watches(self) -> list[Coroutine[Any, Any, None]]:
        return [self._stop_once_drained(), self._obey(), self._keep_beating(), self._keep_keys()]

    def _say_farewell(self) -> None:
        pass

    # -- what the supervisor hears and says ---------------------------------------------------------

    async def _keep_beating(self) -> None:
        while True:
            sessions = sum(len(lan.peers) for lan in self._lans)
            with contextlib.suppress(ChannelError):
                self._channel.send("beat", last_port=self._shared.last_port, sessions=sessions)
            await asyncio.sleep(BEAT_EVERY)

    async def _keep_keys(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cert_poll_interval)
            await self._refresh_keys()

    async def _obey(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while message := await self._channel.receive():
                if message["kind"] == "retire":
                    tasks.create_task(self._retire(message["seconds"]))
                    continue
                try:
                    await self._do(message)
                except Exception:  # noqa: BLE001 - what one version says and another does not understand
                    logger.exception("the supervisor's {} is not understood", message["kind"])
            logger.error("the supervisor is gone: this worker ends")
            self._stop.set()

    async def _do(self, message: Message) -> None:
        match message["kind"]:
            case "members":
                self._take_membership(message)
            case "certificates":
                self._handed_certificates.take(message["certificates"])
            case "reload":
                settings = handing.unpack_settings(message["settings"])
                self._take_over(handing.settings_of(self._place, settings))
                if self._audit is not None:
                    self._audit.reopen()
                await self._refresh_keys()
                self._channel.send("reloaded")
            case "forwards":
                self._take_forwards(message)
            case "state":
                self._take_state(message)
            case "drain and stop":
                self._drain_and_stop.set()
            case "stop":
                self._stop.set()

    def _take_forwards(self, told: Message) -> None:
        self._forwards.take(told["forwards"])
        for lan in self._lans:
            lan.follow_changes()

    def _take_state(self, told: Message) -> None:
        """Take over what has changed since this worker was started."""
        if told["settings"] != self._start_message["settings"]:
            self._take_over(handing.settings_of(self._place, handing.unpack_settings(told["settings"])))
        self._handed_certificates.take(told["certificates"])
        self._admission.draining = told["draining"]
        self._tokens.follow(told["revoked"])
        wanted = {ban.id: ban for ban in (Ban(*fields) for fields in told["bans"])}
        for ban in self._bans:
            if ban.id not in wanted:
                self._bans.remove(ban.id)
        for ban in wanted.values():
            self._bans.add(ban)
        self._operations.refresh_bans()
        self._take_forwards(told)

    def _take_membership(self, told: Message) -> None:
        for number in set(self._siblings.live) - set(told["live"]):
            if self._shared.trunk is not None:
                self._shared.trunk.lost(number)
        self._siblings.live = tuple(told["live"])
        self._siblings.accepting = tuple(told["accepting"])

    async def _retire(self, seconds: float) -> None:
        """Have all clients go to other workers, one after the other, and end."""
        self._admission.draining = True
        self._endpoint_here.go_away()
        if self._web is not None:
            self._web.take_no_more()
        peers = [peer for lan in self._lans for peer in lan.peers]
        for number, peer in enumerate(peers):
            if number:
                await asyncio.sleep(seconds / len(peers))
            tell_alive(peer, ClosePeer(CloseCode.SHUTDOWN, MOVING))
            run_ready()
        self._stop.set()


async def _work(channel: Channel, start: Message, handed: Handed) -> int:
    settings: Settings = handing.unpack_settings(start["settings"])
    with LineWriter(sys.stderr, "the log") as log:
        limiter = logs.setup(settings.log_format, settings.log_level, log, settings.log_filter)
        logger.configure(extra={"worker": handed.place.number})
        raise_file_limit()
        calm_garbage_collector()
        try:
            return await WorkerRelay(start, handed, channel).run(limiter)
        except (StartError, SettingsError) as error:
            channel.send("failed", reason=str(error))
            await channel.flush()
            return 1


async def _run(descriptor: int) -> int:
    channel = await Channel.open(socket.socket(fileno=descriptor))
    try:
        start = await channel.receive()
        if start is None:
            return 1
        return await _work(channel, start, handing.unpack(start))
    finally:
        channel.close()


def main() -> int:
    """Work for the supervisor at the other end of the descriptor that is named; return the exit status."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return asyncio.run(_run(int(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())

"""Commands that ask a running relay: what they are called, what they take, and how they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.admin import client
from relay.admin.arguments import room_argument
from relay.admin.bridge import dashboard, dashboard_arguments
from relay.admin.capture_command import capture, capture_arguments, trace, trace_arguments
from relay.admin.changes import (
    ban,
    ban_arguments,
    disconnect,
    disconnect_arguments,
    drain,
    drain_arguments,
    forwards,
    forwards_arguments,
    reload,
    restart,
)
from relay.admin.inspection import (
    NOT_TOLD,
    WHY_STATUS,
    Verdict,
    drops,
    events,
    events_arguments,
    flows,
    flows_arguments,
    leases,
    macs,
    peers,
    rooms,
    status,
    why,
    why_arguments,
)
from relay.admin.top_command import top, top_arguments
from relay.complaint import complain
from relay.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


USAGE = 2
"""Exit status of a command that was asked for wrongly."""


class Command(NamedTuple):
    """A command that asks a running relay; ``relay.main`` has what it is for."""

    name: str
    ask: Callable[[client.AdminClient, argparse.Namespace], str | Verdict]
    own_arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None
    epilog: str | None = None
    not_told: int = 1
    """Exit status where the relay could not be asked, or said no."""

    @property
    def EPILOG(self) -> str | None:  # noqa: N802 - named as in the commands that are modules
        """What its help ends with."""
        return self.epilog

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments, and those that all have."""
        self.own_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        client.add_arguments(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and print what is answered; return the exit status."""
        try:
            answer = self.ask(client.connect(args), args)
        except client.AskError as error:
            status = USAGE if isinstance(error, client.UsageError) else self.not_told
            return complain(printable(str(error)), status)
        said, status = answer if isinstance(answer, Verdict) else (answer, 0)
        if said:
            print("\n".join(map(printable, said.split("\n"))))  # noqa: T201
        return status


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("status", status, room_argument),
        Command("top", top, top_arguments),
        Command("dashboard", dashboard, dashboard_arguments),
        Command("rooms", rooms, room_argument),
        Command("peers", peers, room_argument),
        Command("flows", flows, flows_arguments),
        Command("leases", leases, room_argument),
        Command("macs", macs, room_argument),
        Command("drops", drops, room_argument),
        Command("events", events, events_arguments),
        Command("why", why, why_arguments, WHY_STATUS, NOT_TOLD),
        Command("capture", capture, capture_arguments),
        Command("trace", trace, trace_arguments),
        Command("forwards", forwards, forwards_arguments),
        Command("disconnect", disconnect, disconnect_arguments),
        Command("ban", ban, ban_arguments),
        Command("reload", reload),
        Command("restart", restart),
        Command("drain", drain, drain_arguments),
    )
}

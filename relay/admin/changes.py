"""Commands by which an operator changes something on a running relay; of the form of ``inspection``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.admin import client
from relay.admin.arguments import duration_of
from relay.admin.client import port_of
from relay.admin.inspection import by_room, say
from relay.admin.tables import duration, table

if TYPE_CHECKING:
    import argparse


def forwards(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the forwards, add one or remove one."""
    if args.add:
        # Without a room it is the default one, or that of the token.
        room = {} if args.room is None else {"room": args.room}
        added = relay.post("/v1/forwards", {**room, "forward": args.add})
        return say(args, added, lambda done: f"added {done['forward']} to room {done['room']}")
    if args.remove:
        removed = relay.delete("/v1/forwards", {"room": args.room, "forward": args.remove})
        return say(args, removed, lambda done: f"removed {done['removed']}")
    return say(
        args,
        relay.ask("/v1/forwards", {"room": args.room}),
        lambda found: table(
            ("ROOM", "FORWARD", "GUEST", "CLIENTS"),
            [(where, item["forward"], item["guest"], item["clients"]) for where, item in by_room(found)],
        ),
    )


def forwards_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay forwards``."""
    parser.add_argument(
        "--room", metavar="NAME", help="of this room (to change something: default, or the token's)"
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--add", metavar="FORWARD", help="tcp:HOSTIP:PORT:VM:PORT or udp:..., as for the relay"
    )
    change.add_argument("--remove", metavar="FORWARD", help="as it is listed, or its first three parts")


def disconnect(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """End a session."""
    port = port_of(relay, args.peer)
    answer = relay.delete(f"/v1/peers/{port}", {"reason": args.reason})
    return say(args, answer, lambda done: f"session {done['disconnected']} has been ended")


def disconnect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay disconnect``."""
    parser.add_argument(
        "peer",
        metavar="VM",
        help="the session's port, as vmrelay peers lists it, or its name, address or MAC",
    )
    parser.add_argument("--reason", metavar="TEXT", help="told to its client")


def ban(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List who is kept out, keep somebody out, or let somebody in again."""
    if args.lift:
        return say(
            args, relay.delete(f"/v1/bans/{args.lift}"), lambda done: f"{done['lifted']} may come again"
        )
    whom = f"token={args.token}" if args.token else args.what
    if whom:
        kind, mark, what = whom.partition("=")
        if not mark:
            raise client.UsageError("whom? address=192.0.2.0/24, mac=52:54:00:12:34:56 or token=ID")
        fields = {"kind": kind, "what": what, "reason": args.reason or ""}
        if args.time is not None:
            fields |= {"seconds": args.time}
        answer = relay.post("/v1/bans", fields)
        return say(args, answer, lambda done: f"{done['id']} is banned; {done['ended']} sessions were ended")
    return say(
        args,
        relay.ask("/v1/bans"),
        lambda found: table(
            ("ID", "ENDS IN", "REASON"),
            [(item["id"], duration(item["ends_in"]) or "never", item["reason"] or None) for item in found],
        ),
    )


def ban_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay ban``."""
    parser.add_argument("what", nargs="?", metavar="KIND=WHOM", help="address=NETWORK, mac=MAC or token=ID")
    parser.add_argument(
        "--time", type=duration_of, metavar="TIME", help="for how long, such as 30m (default: for ever)"
    )
    parser.add_argument("--token", metavar="ID", help="the same as token=ID")
    parser.add_argument("--reason", metavar="TEXT", help="told to the clients")
    parser.add_argument("--lift", metavar="ID", help="let in again: the id as it is listed, or KIND=WHOM")


def reload(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Have the relay read its configuration, certificate and keys again."""

    def text(told: Any) -> str:
        lines = [f"in force: {', '.join(told['changed']) or 'nothing new'}"]
        if told["needs_restart"]:
            lines.append(f"needs a restart: {', '.join(told['needs_restart'])}")
        lines.append(f"certificate: {'new' if told['certificate'] else 'as before'}")
        return "\n".join(lines)

    told = relay.post("/v1/reload")
    said = say(args, told, text)
    if told["errors"]:
        print(said)  # noqa: T201
        raise client.AskError("; ".join(told["errors"]))
    return said


def restart(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Have the relay replace its workers one by one."""
    answer = relay.post("/v1/restart")
    return say(
        args, answer, lambda told: f"{len(told['restarting'])} workers are replaced, one after the other"
    )


def drain(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Have the relay take no new sessions, or take them again."""
    fields = None if args.time is None else {"seconds": args.time}
    answer = relay.delete("/v1/drain") if args.end else relay.post("/v1/drain", fields)
    return say(
        args,
        answer,
        lambda told: "no new sessions are taken" if told["draining"] else "new sessions are taken",
    )


def drain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay drain``."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--end", action="store_true", help="take new sessions again")
    how.add_argument(
        "--time",
        type=duration_of,
        metavar="TIME",
        help="close the sessions that stand after this time, such as 10m",
    )

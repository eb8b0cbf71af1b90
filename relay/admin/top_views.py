"""What ``vmrelay top`` shows: kinds of things with their columns, and lines about the relay and a session.

Names and messages are others' to choose: control characters are taken out of all that is shown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.admin.live import Look, Session
from relay.admin.tables import amount, duration, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DASH = "-"


@dataclass
class Known:
    """All that has been asked."""

    look: Look = field(default_factory=lambda: Look(0.0))
    events: list[dict[str, Any]] = field(default_factory=list)
    flows: list[dict[str, Any]] = field(default_factory=list)
    """Of the session that is looked at."""


class Column(NamedTuple):
    """A column of a view."""

    head: str
    value: Callable[[Any], Any]
    """What the row is sorted by; None comes last."""
    text: Callable[[Any], object] = str
    """How a value is shown."""
    right: bool = False

    def shown(self, row: Any) -> str:
        """Write what a row has in this column."""
        value = self.value(row)
        return _DASH if value is None else plain(self.text(value))


class View(NamedTuple):
    """A kind of things, and how they are shown."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[Known], Sequence[Any]]
    key: Callable[[Any], object]
    """What a row is known by, from one look to the next."""
    sort: int
    """Column by which it is sorted at first."""
    reverse: bool = False
    more: Callable[[Any], str] = lambda _: ""
    """Text in which the filter looks too."""

    def chosen(self, known: Known, sought: str, number: int, *, reverse: bool) -> list[Any]:
        """Pick the rows in which a text stands, in the order of a column; those without a value are last."""
        value, sought = self.columns[number].value, sought.casefold()
        rows = [
            row
            for row in self.rows(known)
            if not sought
            or sought in self.more(row).casefold()
            or any(sought in column.shown(row).casefold() for column in self.columns)
        ]
        having = [row for row in rows if value(row) is not None]
        having.sort(key=value, reverse=reverse)
        return [*having, *(row for row in rows if value(row) is None)]


def plain(value: object) -> str:
    """Take out what would move the cursor, or worse."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _rate(bits: float) -> str:
    return amount(bits).replace(" ", "")


def _share(part: float) -> str:
    return f"{100 * part:.1f}%"


def _told(name: str) -> Callable[[Session], Any]:
    return lambda session: session.told[name]


def _of(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda thing: thing[name]


def _drops(session: Session) -> str:
    return ", ".join(session.told["drops"])


SESSIONS = View(
    "sessions",
    (
        Column("NAME", lambda session: session.told["name"] or session.told["mac"]),
        Column("ADDRESS", _told("address")),
        Column("FROM", lambda session: session.from_guest, _rate, right=True),
        Column("TO", lambda session: session.to_guest, _rate, right=True),
        Column("RTT", _told("round_trip"), lambda seconds: f"{seconds * 1000:.1f}ms", right=True),
        Column("LOSS", lambda session: session.loss, _share, right=True),
        Column("FLOWS", _told("flows"), right=True),
        Column("DROPS", lambda session: session.drops, right=True),
        Column("ROOM", _told("room")),
        Column("PORT", lambda session: session.port, right=True),
        Column("CARRIER", _told("carrier")),
        Column("MAC", _told("mac")),
        Column("CLIENT", _told("remote")),
    ),
    lambda known: known.look.sessions,
    lambda session: session.port,
    sort=3,
    reverse=True,
    more=_drops,
)
ROOMS = View(
    "rooms",
    (
        Column("ROOM", _of("name")),
        Column("NETWORK", _of("network")),
        Column("SESSIONS", _of("sessions"), right=True),
        Column("LEASES", _of("leases"), right=True),
        Column("POOL", _of("pool"), right=True),
        Column("FLOWS", _of("flows"), right=True),
        Column("FORWARDS", _of("forwards"), right=True),
    ),
    lambda known: known.look.rooms,
    _of("name"),
    sort=2,
    reverse=True,
)
DROPS = View(
    "drops",
    (
        Column("REASON", lambda drop: drop[0]),
        Column("COUNT", lambda drop: drop[1], right=True),
        Column("PER SECOND", lambda drop: drop[2], lambda rate: f"{rate:.1f}", right=True),
    ),
    lambda known: [
        (reason, count, known.look.drop_rates.get(reason, 0.0)) for reason, count in known.look.drops.items()
    ],
    lambda drop: drop[0],
    sort=1,
    reverse=True,
)
EVENTS = View(
    "events",
    (
        Column("TIME", _of("time"), lambda moment: time.strftime("%H:%M:%S", time.localtime(moment))),
        Column("EVENT", lambda event: event["message"]),
        Column("TIMES", lambda event: event.get("times", 1), right=True),
    ),
    lambda known: known.events,
    lambda event: (event["time"], event["message"]),
    sort=0,
    reverse=True,
)
FLOWS = View(
    "flows",
    (
        Column("PROTO", _of("protocol")),
        Column("GUEST", _of("guest")),
        Column("REMOTE", _of("remote")),
        Column("STATE", _of("state")),
        Column("AGE", _of("age"), duration, right=True),
        Column("OUT", _of("bytes_out"), lambda count: amount(count, "B"), right=True),
        Column("IN", _of("bytes_in"), lambda count: amount(count, "B"), right=True),
    ),
    lambda known: known.flows,
    lambda flow: (flow["protocol"], flow["guest"], flow["remote"], flow["age"] > 0),
    sort=4,
)

VIEWS = {view.name: view for view in (SESSIONS, ROOMS, DROPS, EVENTS, FLOWS)}


def about_relay(look: Look) -> list[str]:
    """Tell the relay in two lines."""
    status, sessions = look.status, look.sessions
    if not status:
        return ["asking the relay"]
    draining = ", DRAINING" if status["draining"] else ""
    ways = [
        amount(sum(rate or 0.0 for rate in rates), "bit/s")
        for rates in (
            [session.from_guest for session in sessions],
            [session.to_guest for session in sessions],
        )
    ]
    flows = sum(session.told["flows"] for session in sessions)
    there = f"{len(sessions)} sessions in {len(look.rooms)} rooms, {flows} flows"
    dropped = f"{sum(look.drop_rates.values()):.0f} drops/s"
    return [
        f"vmrelay {status['version']} at {status['address']}, up {duration(status['uptime'])}{draining}",
        f"{there}; from guests {ways[0]}, to them {ways[1]}; {dropped}",
    ]


def about_session(look: Look, port: int) -> list[str]:
    """Tell a session in lines of 80 characters, most of them."""
    session = look.session(port)
    if session is None:
        return [f"session {port} has ended"]
    told = session.told
    who = [told["name"] or "no name", told["mac"] or "no MAC", told["address"] or "no address"]
    ways = [
        _DASH if rate is None else amount(rate, "bit/s") for rate in (session.from_guest, session.to_guest)
    ]
    times = f"for {duration(told['age'])}, silent for {duration(told['silent'])}"
    trip = milliseconds(told["round_trip"]) or _DASH
    drops = sorted(told["drops"].items(), key=lambda item: -item[1])
    return [
        f"session {told['port']} of room {told['room']}: {', '.join(who)}",
        f"{told['carrier']} from {told['remote']}, {told['encapsulation'] or 'silent so far'}, {times}",
        f"from it {ways[0]}, {told['frames_in']} frames; to it {ways[1]}, {told['frames_out']} frames",
        f"round trip {trip}, MTU {told['mtu']}, {told['queued']} bytes wait to be sent",
        f"dropped: {', '.join(f'{count} {reason}' for reason, count in drops) or 'nothing'}",
    ]

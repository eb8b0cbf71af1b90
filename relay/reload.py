"""What of the settings can change while the relay runs, and what cannot.

The rest is fixed at the start because sockets, tables or what clients were told depend on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from netstack.room_names import DEFAULT_ROOM
from relay.room_tables import ALL_OTHERS, NO_TABLES, RoomTables
from relay.settings import OPTIONS, Settings, SettingsError, SettingsWithRooms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIVE = frozenset(
    {
        *("log_level", "log_filter", "allow_origin", "drain_timeout"),
        *("allow_cidr", "deny_cidr", "allow_smtp", "forward"),
        *("max_rooms", "rooms_per_client", "room_idle_time", "create_rooms"),
        *("bit_rate", "packet_rate", "heartbeat_interval", "peer_timeout", "resume_grace", "max_peers"),
        *("max_flows", "flow_rate", "max_half_open", "max_forwarded", "max_flows_total", "peer_list"),
        *("udp_timeout", "dns_timeout", "icmp_timeout", "tcp_timeout", "tcp_transitory_timeout"),
        *("tcp_keep_alive", "upstream_dns"),
    }
)
"""Settings that take effect at once, for the sessions that stand too."""


class Differences(NamedTuple):
    """How new settings differ from those in force, by flags' names."""

    live: list[str]
    fixed: list[str]
    """Those that need a restart."""


def differences(old: Settings, new: Settings) -> Differences:
    """Compare settings, those of single rooms included, also of such as only one of both names."""
    taken = merged(old, new)
    live, fixed = _unlike(old, taken), _unlike(taken, new)
    return Differences([_flag(name) for name in live], [_flag(name) for name in fixed])


def _unlike(one: Settings, other: Settings) -> list[str]:
    """Tell the settings that differ, in any room."""
    names: set[str] = set()
    for room in {DEFAULT_ROOM, ALL_OTHERS} | one.rooms | other.rooms:
        of_one, of_other = one.of_room(room), other.of_room(room)
        names |= {name for name in OPTIONS if getattr(of_one, name) != getattr(of_other, name)}
    return sorted(names)


def merged(old: Settings, new: Settings) -> Settings:
    """Give what is in force once ``new`` is taken over: the live settings of it, and the others of ``old``.

    So it is in each table of rooms. One that is gone stays while it has a setting that needs a restart; one
    that is new is taken as it is, for no room was made by it yet.
    """
    before, after = _tables_of(old), _tables_of(new)
    named = {
        room: _merged_table(before.named[room], after.named.get(room, {}))
        if room in before.named
        else dict(after.named[room])
        for room in (*before.named, *after.named)
    }
    named = {room: table for room, table in named.items() if table or room in after.named}
    tables = RoomTables(_merged_table(before.others, after.others), named)
    values = {name: getattr(new if name in LIVE else old, name) for name in OPTIONS}
    return Settings(**values) if tables == NO_TABLES else SettingsWithRooms(**values, tables=tables)


def _tables_of(settings: Settings) -> RoomTables:
    return settings.tables if isinstance(settings, SettingsWithRooms) else NO_TABLES


def _merged_table(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {name: value for name, value in old.items() if name not in LIVE}
    return fixed | {name: value for name, value in new.items() if name in LIVE}


def tell_reload(told: dict[str, Any]) -> None:
    """Log what a reload has changed, and what needs a restart."""
    if told["changed"]:
        changed = ", ".join(told["changed"])
        what = f"took over {changed}"
        logger.bind(event="changed", who="a reload", what=what).info(
            "other settings are in force: {}", changed
        )
    if told["needs_restart"]:
        logger.warning("these settings need a restart: {}", ", ".join(told["needs_restart"]))


async def read_again(reread: Callable[[], Settings], old: Settings, told: dict[str, Any]) -> Settings | None:
    """Read the settings, in a thread; note in ``told`` what is different, or what is wrong.

    Returns them, None where they are wrong.
    """
    try:
        found = await asyncio.to_thread(reread)
    except SettingsError as error:
        logger.error("the settings stay as they were: {}", error)
        told["errors"].append(str(error))
        return None
    told["changed"], told["needs_restart"] = differences(old, found)
    return found


def _flag(name: str) -> str:
    return name.replace("_", "-")

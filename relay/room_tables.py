"""Settings of single rooms: the tables ``[rooms]`` and ``[room.NAME]`` of the configuration file.

A room has the settings of the whole relay, over them those of ``[rooms]``, which are for all rooms but
``default``, over these those of its own table. What only one room can have, forwards and fixed leases, is
the default room's unless such a table names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from netstack.room_names import DEFAULT_ROOM, NAME_RULE, ROOM_NAME
from relay.setting_kinds import SettingsError
from relay.spelling import perhaps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

OTHERS, ROOMS = "rooms", "room"
"""Tables of the file."""

LISTED = "listed"
"""The setting by which only rooms of the file are made."""

OF_ROOMS = frozenset(
    {
        *("allow_origin", "auth", "client_share"),
        *(
            "network",
            "domain",
            "dns",
            "upstream_dns",
            "dns_allow_private",
            "static_lease",
            "lease_time",
            "peer_list",
        ),
        *("dhcp", "dhcp_boot", "dhcp_search", "dhcp_ntp", "dhcp_route", "dhcp_wpad", "ipv6", "ipv6_prefix"),
        *("allow_cidr", "deny_cidr", "host_access", "allow_smtp", "internet", "isolated", "source_guard"),
        *("max_peers", "max_flows", "flow_rate", "max_half_open", "max_forwarded", "bit_rate", "packet_rate"),
        *(
            "udp_timeout",
            "dns_timeout",
            "icmp_timeout",
            "tcp_timeout",
            "tcp_transitory_timeout",
            "tcp_keep_alive",
        ),
        *(
            "tcp_keep_alive",
            "udp_filtering",
            "forward",
            "tcp_buffer",
            "tcp_buffer_peer",
            "port_hold",
            "ports_held",
        ),
        *("heartbeat_interval", "peer_timeout", "resume_grace", "lease_time"),
    }
)
"""Settings that rooms may have of their own; the others are the whole relay's."""

ALL_OTHERS = ""
"""In the place of a room's name: rooms without a table of their own."""

OF_ONE_ROOM: Mapping[str, Any] = {"forward": (), "static_lease": ()}
"""Settings of the default room that others do not take over: ports can be had once, and MACs are guests'."""


class RoomTables(NamedTuple):
    """Values that the tables set, by setting."""

    others: Mapping[str, Any] = {}
    """For all rooms but the default one."""
    named: Mapping[str, Mapping[str, Any]] = {}
    """For single rooms."""
    written: Mapping[str, Any] = {}
    """The tables as they stand in the file, ``rooms`` and ``room``, where there are; keys as there."""


NO_TABLES = RoomTables()


def take_tables(
    table: dict[str, Any],
    source: str,
    read: Callable[[Mapping[str, Any], str], dict[str, Any]],
    switches: Collection[str] = (),
) -> RoomTables:
    """Take the rooms' tables out of a file's. ``read`` reads settings. Raises SettingsError.

    ``switches`` are the keys of settings that are true or false.
    """
    others, named = table.pop(OTHERS, {}), table.pop(ROOMS, {})
    for found, name in ((others, OTHERS), (named, ROOMS)):
        if not isinstance(found, dict):
            raise SettingsError(f"{source}: {name}: must be a table")
    rooms = {}
    for name, values in named.items():
        where = f"{source}: {ROOMS}.{name[:80]}"
        if not ROOM_NAME.fullmatch(name):
            raise SettingsError(f"{where}: {NAME_RULE}")
        if name == DEFAULT_ROOM:
            raise SettingsError(f"{where}: the settings of this room stand outside of tables")
        if not isinstance(values, dict):
            raise SettingsError(f"{where}: must be a table")
        rooms[name] = _of_rooms(values, where, read, switches)
    found = _of_rooms(others, f"{source}: {OTHERS}", read, switches)
    if "forward" in found:
        raise SettingsError(f"{source}: {OTHERS}: forward: only one room can have a port; see [{ROOMS}.NAME]")
    written = {name: values for name, values in ((OTHERS, others), (ROOMS, named)) if values}
    return RoomTables(found, rooms, written)


def _of_rooms(
    values: Mapping[str, Any],
    where: str,
    read: Callable[[Mapping[str, Any], str], dict[str, Any]],
    switches: Collection[str],
) -> dict[str, Any]:
    known = {name.replace("_", "-") for name in OF_ROOMS}
    for key, value in values.items():
        if key not in known:
            hint = perhaps(key, known, known.intersection(switches))
            if isinstance(value, dict):
                hint = f": those of one room stand in [{ROOMS}.NAME]"
            raise SettingsError(f"{where}: {key[:80]!r} is no setting of rooms{hint}")
    return read(values, where)

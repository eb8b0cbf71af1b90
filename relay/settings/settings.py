"""Everything that can be set, as one table of which flags, variables and the file's keys are derived."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, get_type_hints

from netstack.room_names import DEFAULT_ROOM
from relay.cpus import usable_cpus
from relay.room_tables import NO_TABLES, OF_ONE_ROOM, RoomTables
from relay.setting_kinds import MAX_WORKERS
from relay.settings.clients import ClientSettings, RoomSettings
from relay.settings.egress import EgressSettings, FlowSettings
from relay.settings.network import NetworkSettings
from relay.settings.process import ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.setting_kinds import Option


@dataclass(frozen=True)
class Settings(  # the fields of the last base come first: so they stand in --help
    ProcessSettings, FlowSettings, RoomSettings, EgressSettings, NetworkSettings, ClientSettings
):
    """Everything that can be set, checked."""

    @property
    def rooms(self) -> frozenset[str]:
        """Rooms that have settings of their own, besides the default one."""
        return frozenset()

    def of_room(self, room: str) -> Settings:
        """Tell what holds for a room."""
        return self if room == DEFAULT_ROOM else replace(self, **OF_ONE_ROOM)


@dataclass(frozen=True)
class SettingsWithRooms(Settings):
    """Settings of the relay, and those of single rooms."""

    tables: RoomTables = NO_TABLES

    @property
    def rooms(self) -> frozenset[str]:
        """Rooms that have settings of their own, besides the default one."""
        return frozenset(self.tables.named)

    def of_room(self, room: str) -> Settings:
        """Tell what holds for a room."""
        if room == DEFAULT_ROOM:
            return self
        values = {name: getattr(self, name) for name in OPTIONS}
        own = self.tables.named.get(room, {})
        return Settings(**{**values, **OF_ONE_ROOM, **self.tables.others, **own})


def _table() -> dict[str, Option]:
    hints = get_type_hints(Settings, include_extras=True)
    return {setting.name: hints[setting.name].__metadata__[0] for setting in fields(Settings)}


OPTIONS: Mapping[str, Option] = _table()
"""Every setting by its field's name, in the order of ``--help``."""


def count_of_workers(settings: Settings) -> int:
    """Tell how many processes the relay is to have; for ``auto`` as many as CPUs that this one may use."""
    if isinstance(settings.workers, int):
        return settings.workers
    return min(MAX_WORKERS, usable_cpus())

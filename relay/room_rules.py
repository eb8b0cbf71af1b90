"""Who may come into which room: what the rooms' tables say of origins and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netstack.room_names import DEFAULT_ROOM
from relay.room_tables import ALL_OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.settings import Settings
    from transport.origins import OriginPolicy


class RoomRule(NamedTuple):
    """Who may come into a room, beside what holds for the whole relay."""

    auth: str
    """One of ``relay.setting_kinds.AUTH_CHOICES``."""
    origins: OriginPolicy | None = None
    """Pages have to be of one of these too; None where the relay's own policy is all."""


class RoomRules:
    """The rules of all rooms, looked up once for each request."""

    def __init__(self, settings: Settings, make_policy: Callable[[Sequence[str]], OriginPolicy]) -> None:
        """``make_policy`` makes one that lets pages of these origins in, and the relay's own."""
        self._make_policy = make_policy
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """Go by these settings from now on."""
        rooms = (DEFAULT_ROOM, ALL_OTHERS, *settings.rooms)
        self._rules = {room: self._rule(settings.of_room(room), settings) for room in rooms}

    def of(self, room: str) -> RoomRule:
        """Tell the rule of a room, whether it is there or not."""
        return self._rules.get(room) or self._rules[ALL_OTHERS]

    def _rule(self, own: Settings, relays: Settings) -> RoomRule:
        if own.allow_origin == relays.allow_origin:
            return RoomRule(own.auth)
        return RoomRule(own.auth, self._make_policy(own.allow_origin))

"""What operators do, at the level of the relay's parts; ``test_commands.py`` does it from outside."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from relay.bans import Bans, parse_ban
from relay.draining import Draining
from relay.forward_changes import ForwardChanges
from relay.operations import NotThereError, OperationError, Operations, Who

ME = Who("the operator (me)")


def operations(**lans):
    async def reload():
        return {"changed": []}

    class Lans(SimpleNamespace):
        blocked: frozenset = frozenset()

        def block_macs(self, macs):
            self.blocked = macs

        def tell_of_drain(self, seconds):
            pass

        def __iter__(self):
            return iter(())

    tokens = SimpleNamespace(end_sessions=lambda *_: 0)
    admission: Any = SimpleNamespace(tokens=tokens, bans=Bans(lambda: 0.0), draining=False)
    rooms: Any = Lans(find=lambda _: None, **lans)
    draining = Draining(rooms, admission, lambda: None)
    return Operations(rooms, admission, None, forwards=ForwardChanges(), draining=draining, reload=reload)


def test_what_is_not_there_is_told_apart_from_what_cannot_be_done():
    async def nobody(*_):
        return False

    relay = operations(close_session=nobody)
    for act in (
        lambda: asyncio.run(relay.disconnect(7, "", ME)),
        lambda: asyncio.run(relay.unban("mac:x", ME)),
        lambda: asyncio.run(relay.add_forward("lab", "tcp::1:web:1", ME)),
        lambda: asyncio.run(relay.remove_forward("lab", "tcp::1:web:1", ME)),
    ):
        with pytest.raises(NotThereError):
            act()


def test_an_impossible_forward_is_one_line():
    def refuse(_):
        raise AssertionError

    relay = operations()
    relay.lans.find = lambda _: SimpleNamespace(add_forward=refuse)
    with pytest.raises(OperationError, match="must be"):
        asyncio.run(relay.add_forward("default", "nonsense", ME))


def test_switches_are_told_of_macs_only_and_forget_what_was_lifted():
    relay = operations()
    for kind, what in (("mac", "52:54:00:00:00:01"), ("token", "t"), ("address", "192.0.2.1")):
        asyncio.run(relay.ban(parse_ban(kind, what, math.inf), ME))
    assert relay.lans.blocked == {bytes.fromhex("525400000001")}
    asyncio.run(relay.unban("mac:52:54:00:00:00:01", ME))
    assert relay.lans.blocked == frozenset()


def test_draining_is_switched_and_asked():
    relay = operations()
    relay.drain(ME)
    assert relay.is_draining
    relay.end_draining(ME)
    assert not relay.is_draining

"""The parts of a room that are at other workers, as ports of the switch.

A worker that has ports of the room is one port here: numbered downwards from FIRST_TRUNK, trusted, without
limits of its own. What the switch sends there goes into the trunk at once. Its guests' MACs are bound to that
port as the worker announces them, and their sessions count among the room's ports, by client too; those whose
clients are away among these.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.lan.forwarding import FIRST_TRUNK, Port
from actors.messages import PortOpened
from actors.port_policy import Guard, Role
from actors.runtime import NEVER
from netstack.mac_table import MAX_MACS
from netstack.resume import is_secret_of
from netstack.room_wire import Flag
from netstack.shares import client_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.lan.forwarding import Forwarding
    from actors.messages import FramesToPeer, RegisterMac
    from actors.port_policy import PortPolicy
    from actors.ports import RoomLink
    from netstack.room_wire import Binding
    from netstack.shares import Shares


class TrunkPort:
    """What frames for guests of another worker are told to, in the place of a PeerActor."""

    def __init__(self, link: RoomLink, worker: int) -> None:
        self._link = link
        self._worker = worker

    def tell(self, message: FramesToPeer, /) -> None:
        """Send frames to the worker; there is nothing else that it is told this way."""
        frames = getattr(message, "frames", None)
        if frames is not None:
            self._link.send(self._worker, frames)


def _of_trunks(usual: PortPolicy) -> PortPolicy:
    return replace(usual, role=Role.TRUNK, guards=Guard.NONE, macs=None, max_macs=MAX_MACS)


class Elsewhere:
    """Keeps the ports of a switch that stand for other workers."""

    def __init__(
        self, link: RoomLink, forwarding: Forwarding, usual: PortPolicy, present: Shares, absent: Shares
    ) -> None:
        """``usual`` is the policy of the room's ports; ``present`` and ``absent`` count them."""
        self._link = link
        self._forwarding = forwarding
        self._policy = _of_trunks(usual)
        self._has_opened = False
        """Whether there is a port that :meth:`set_workers` has not told of."""
        self._present = present
        self._absent = absent
        self._guests: dict[bytes, tuple[int, int]] = {}
        """Worker and port, by MAC."""
        self._macs: Counter[tuple[int, int]] = Counter()
        """MACs behind each worker's ports."""
        self._away: dict[bytes, str] = {}
        """MACs whose clients are away, with the clients' networks, who is away for longest first."""
        self._counted: dict[tuple[int, int], tuple[Shares, str]] = {}
        """Among which these ports are counted, and as whose."""

    def go_by(self, usual: PortPolicy, now: float) -> None:
        """Let the other workers' ports do what the room's do from now on."""
        self._policy = _of_trunks(usual)
        for number in self._forwarding.trunks:
            self._forwarding.ports[number].go_by(self._policy, now)

    def set_workers(self, workers: Mapping[int, int], now: float) -> bool:
        """Have a port for each of these; whether one is new, also by what was heard of its guests."""
        forwarding = self._forwarding
        wanted = {FIRST_TRUNK - worker: worker for worker in workers}
        for number in [number for number in forwarding.trunks if number not in wanted]:
            del forwarding.ports[number]
            forwarding.trunks.remove(number)
            forwarding.groups.forget_port(number)
        for worker in [worker for number, worker in wanted.items() if number not in forwarding.ports]:
            self._open(worker, now)
        is_new, self._has_opened = self._has_opened, False
        return is_new

    def _open(self, worker: int, now: float) -> None:
        number = FIRST_TRUNK - worker
        opened = PortOpened(number, TrunkPort(self._link, worker), lambda: NEVER, policy=self._policy)
        self._forwarding.ports[number] = Port(opened, "", self._policy, now)
        self._forwarding.trunks.append(number)
        self._has_opened = True

    def bind(self, worker: int, binding: Binding, now: float) -> int | None:
        """Note where a MAC is; return the port here whose bound MAC it was."""
        is_away = bool(binding.flags & Flag.AWAY)
        self._count(binding.mac, (worker, binding.port), binding.client, is_away=is_away)
        if is_away:
            self._away.setdefault(binding.mac, client_network(binding.client))
        else:
            self._away.pop(binding.mac, None)
        trunk = FIRST_TRUNK - worker
        if trunk not in self._forwarding.ports:
            self._open(worker, now)
        return self._forwarding.table.register(
            binding.mac, trunk, now, explicit=True, limit=MAX_MACS
        ).displaced

    def taken(self, mac: bytes) -> None:
        """Note that a MAC is behind a port here now."""
        self._away.pop(mac, None)
        self._count(mac, None)

    def unbind(self, mac: bytes) -> None:
        """Forget where a MAC was, unless it is behind a port here by now."""
        guest = self._guests.get(mac)
        self._away.pop(mac, None)
        self._count(mac, None)
        if guest is not None:
            self._forwarding.table.forget(mac, FIRST_TRUNK - guest[0])

    def ask_who_is_away(self, client: str, *, only_own: bool) -> bytes | None:
        """Have a guest let go whose client is away, one of the same client's first; tell its MAC, if any."""
        own = (mac for mac, owner in self._away.items() if owner == client)
        mac = next(own, None)
        if mac is None and not only_own:
            mac = next(iter(self._away), None)
        if mac is not None:
            del self._away[mac]
            self._link.want_address_of(self._guests[mac][0], mac)
        return mac

    def _count(
        self, mac: bytes, guest: tuple[int, int] | None, client: str = "", *, is_away: bool = False
    ) -> None:
        """Count a guest's session among the room's ports, or take it back."""
        before = self._guests.pop(mac, None)
        if before is not None:
            self._macs[before] -= 1
            if not self._macs[before]:
                del self._macs[before]
                self._take_back(before)
        if guest is not None:
            self._guests[mac] = guest
            self._macs[guest] += 1
            shares = self._absent if is_away else self._present
            if guest not in self._counted or self._counted[guest][0] is not shares:
                self._take_back(guest)
                owner = client_network(client) or f"{guest}"
                self._counted[guest] = shares, owner
                shares.add(owner)

    def _take_back(self, guest: tuple[int, int]) -> None:
        if guest in self._counted:
            shares, owner = self._counted.pop(guest)
            shares.give_back(owner)

    def may_be_taken(self, message: RegisterMac, port: Port) -> bool:
        """Whether a session may have a MAC of another worker's guest, by the rules of the switch."""
        found = self._link.elsewhere(message.mac)
        if found is None:
            return True
        worker, binding = found
        if binding.flags & Flag.SILENT:
            return True
        if not message.explicit:
            return False
        is_named = bool(binding.flags & Flag.NAMED_BY_TOKEN)
        names_it = port.macs is not None
        if names_it and not is_named:
            return True
        if names_it == is_named and port.client() == binding.client != "":
            return True
        return self._is_proved(message, worker, binding)

    def holder(self, message: RegisterMac) -> int | None:
        """Tell the worker that keeps the port of a session's client, and may be passed the session."""
        found = self._link.elsewhere(message.mac)
        if found is None or message.stays or not message.explicit:
            return None
        worker, binding = found
        holds = self._link.may_carry(worker) and self._is_proved(message, worker, binding)
        return worker if holds else None

    def _is_proved(self, message: RegisterMac, worker: int, binding: Binding) -> bool:
        """Whether a Register has the secret of a port at another worker."""
        key = self._link.key_of(worker)
        return key is not None and is_secret_of(key, message.mac, binding.port, message.resume)

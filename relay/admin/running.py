"""A running relay as an object at a prompt: what ``vmrelay shell`` without a URL offers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from relay.admin.capture_command import packets as read_packets
from relay.admin.client import AskError, captured, port_of
from relay.admin.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from relay.admin.client import AdminClient

MOST_COLUMNS = 9

BANNER = """\
{relay}
  relay.peers, .flows, .leases, .macs, .rooms, .names, .forwards, .drops      what there is
  relay.sniff(count=10, peer="web", filter="icmp")     packets as they pass, as scapy has them
  relay.trace("web", "192.0.2.1", timeout=5)           what becomes of a guest's packets
  relay.inject(Ether()/ARP(pdst="10.0.2.2"), as_="web")   a frame as if the guest had sent it; to="web" to it
  relay.ask("/v1/status"), relay.disconnect("web"), relay.ban("mac", "52:54:00:...")
scapy's names are there too. Ctrl-D leaves."""


class Rows(list[dict[str, Any]]):
    """Things of one kind; shown as a table, used as a list of dictionaries."""

    def __repr__(self) -> str:
        if not self:
            return "(none)"
        names = list(self[0])[:MOST_COLUMNS]
        return table(
            [name.upper() for name in names], [[_short(row[name]) for name in names] for row in self]
        )

    def where(self, **fields: object) -> Rows:
        """Pick those whose fields have these values."""
        return Rows(row for row in self if all(row.get(name) == value for name, value in fields.items()))


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.3f}"
    return json.dumps(value) if isinstance(value, dict | list) else value


class RunningRelay:
    """Asks and changes a relay through its admin API."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client

    def __repr__(self) -> str:
        told = self.ask("/v1/status")
        sessions = sum(room["sessions"] for room in told["rooms"])
        return (
            f"vmrelay {told['version']} at {told['address']}: {len(told['rooms'])} rooms, {sessions} sessions"
        )

    def ask(self, path: str, **query: str) -> Any:
        """Get what the API answers at a path, such as ``/v1/status``."""
        return self._client.ask(path, query)

    # -- what there is ------------------------------------------------------------------------------

    @property
    def rooms(self) -> Rows:
        """The rooms."""
        return Rows(self.ask("/v1/rooms"))

    @property
    def peers(self) -> Rows:
        """The sessions."""
        return Rows(self.ask("/v1/peers"))

    @property
    def flows(self) -> Rows:
        """NAT mappings and connections."""
        return self._by_room("/v1/flows")

    @property
    def leases(self) -> Rows:
        """Who holds which address."""
        return self._by_room("/v1/leases")

    @property
    def macs(self) -> Rows:
        """The MAC tables."""
        return self._by_room("/v1/macs")

    @property
    def forwards(self) -> Rows:
        """The forwards."""
        return self._by_room("/v1/forwards")

    @property
    def names(self) -> Rows:
        """The guests' names, with their addresses."""
        return Rows(
            {"room": room, "name": name, "addresses": ", ".join(addresses)}
            for room, server in self.ask("/v1/names").items()
            for name, addresses in server["names"].items()
        )

    @property
    def drops(self) -> Rows:
        """What was dropped, the most frequent reason first."""
        return Rows({"reason": name, "count": count} for name, count in self.ask("/v1/drops").items())

    def _by_room(self, path: str) -> Rows:
        found: Mapping[str, Sequence[dict[str, Any]]] = self.ask(path)
        return Rows({"room": room, **item} for room, items in found.items() for item in items)

    # -- what passes --------------------------------------------------------------------------------

    def sniff(
        self,
        count: int = 0,
        timeout: float | None = None,
        *,
        room: str | None = None,
        peer: str | int | None = None,
        filter: str | None = None,  # noqa: A002 - scapy's name for it
        prn: Any = None,
    ) -> Any:
        """Collect packets as scapy's sniff does: ``count`` of them (0: no limit), for ``timeout`` seconds.

        Ctrl-C ends it; what was collected is returned.
        """
        from scapy.layers.l2 import Ether
        from scapy.plist import PacketList

        query = captured(self._client, None if peer is None else str(peer), room)
        packets: list[Any] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._client.stream("/v1/capture", {**query, "filter": filter}, deadline) as source:
                for data, told in read_packets(source):
                    packet = Ether(data)
                    packet.sniffed_on = (told.ifname or b"").decode(errors="replace")
                    packets.append(packet)
                    if prn is not None and (shown := prn(packet)) is not None:
                        print(shown)  # noqa: T201
                    if count and len(packets) >= count:
                        break
        except KeyboardInterrupt:
            pass
        return PacketList(packets, "Sniffed")

    def trace(self, vm: str | int, destination: str, timeout: float = 10.0) -> Iterator[dict[str, Any]]:
        """Follow what a guest exchanges with a destination; gives a dictionary for each decision."""
        query = {"peer": str(port_of(self._client, str(vm))), "destination": destination}
        with self._client.stream("/v1/trace", query, time.monotonic() + timeout) as source:
            while line := source.readline():
                yield json.loads(line)

    # -- what is done -------------------------------------------------------------------------------

    def inject(self, frames: Any, *, as_: str | int | None = None, to: str | int | None = None) -> int:
        """Have the switch take frames as if a guest had sent them, or give them to a guest.

        ``frames`` is a packet, of scapy's or its bytes, or a list of them. Returns how many. Raises AskError.
        """
        if (as_ is None) == (to is None):
            raise AskError("as whom, or to whom? as_= is the guest that seems to send, to= who gets it")
        port = port_of(self._client, str(to if as_ is None else as_))
        several = [frames] if isinstance(frames, bytes | bytearray) else list(frames)
        fields = {"frames": [bytes(frame).hex() for frame in several], "to_guest": as_ is None}
        return int(self._client.post(f"/v1/peers/{port}/frames", fields)["frames"])

    def disconnect(self, vm: str | int, reason: str = "") -> None:
        """End a session."""
        self._client.delete(f"/v1/peers/{port_of(self._client, str(vm))}", {"reason": reason})

    def ban(self, kind: str, what: str, seconds: float | None = None, reason: str = "") -> Any:
        """Keep an ``address``, a ``mac`` or a ``token`` out."""
        limit = {} if seconds is None else {"seconds": seconds}
        return self._client.post("/v1/bans", {"kind": kind, "what": what, "reason": reason, **limit})

"""What a worker has of its supervisor: settings, certificate and keys, sockets, and its place.

It comes over the channel (``relay.workers.channel``) and by inherited descriptors, never in arguments or the
environment, which others can read. Settings are pickled: they come from the process that started this one,
over a socket that nobody else has. They travel by their names, so that a newer worker has defaults for what
an older supervisor does not know.
"""

from __future__ import annotations

import base64
import pickle
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.settings import OPTIONS, Settings, SettingsWithRooms
from relay.workers.place import Place
from transport.certificates import Certificate

if TYPE_CHECKING:
    from datetime import datetime

    from transport.certificates import CertificateStore

_TABLES = "tables"


@dataclass(frozen=True, slots=True)
class Handed:
    """What a worker has of its supervisor when it starts."""

    place: Place
    udp: tuple[socket.socket, ...]
    """Its own of each group, in the order in which all workers have them."""
    tcp: tuple[socket.socket, ...]
    """Those that listen, which all workers share."""
    reset_key: bytes
    retry_key: bytes
    first_port: int
    """Number of its first session."""
    state: Path | None
    """Folder of what outlives the relay."""


def settings_of(place: Place, settings: Settings) -> Settings:
    """Tell by what settings a worker goes: what bounds the whole relay is divided among them."""
    return replace(
        settings,
        max_flows_total=max(1, settings.max_flows_total // place.count),
        tcp_buffer_total=max(settings.tcp_buffer, settings.tcp_buffer_total // place.count),
    )


def pack_settings(settings: Settings) -> str:
    """Write settings so that :func:`unpack_settings` reads them."""
    values: dict[str, Any] = {name: getattr(settings, name) for name in OPTIONS}
    if isinstance(settings, SettingsWithRooms):
        values[_TABLES] = settings.tables
    return base64.b85encode(pickle.dumps(values)).decode()


def unpack_settings(text: str) -> Settings:
    """Undo :func:`pack_settings`; for what comes from one's own supervisor."""
    values = pickle.loads(base64.b85decode(text))  # noqa: S301 - it is from our own parent
    known = {name: value for name, value in values.items() if name in OPTIONS}
    tables = values.get(_TABLES)
    return Settings(**known) if tables is None else SettingsWithRooms(**known, tables=tables)


def pack_certificates(store: CertificateStore) -> list[list[str]]:
    """Write the certificate of the moment, and the one that follows if it is known."""
    found = [store.current, *([] if store.next is None else [store.next])]
    return [[item.chain_pem().decode(), item.private_key_pem().decode()] for item in found]


class HandedCertificates:
    """The certificate as the supervisor hands it over; implements ``CertificateStore``."""

    def __init__(self, packed: list[list[str]]) -> None:
        """Begin with what :func:`pack_certificates` wrote."""
        self.next: Certificate | None = None
        self.take(packed)

    def take(self, packed: list[list[str]]) -> None:
        """Show this one from now on."""
        found = [Certificate.from_pem(chain.encode(), key.encode()) for chain, key in packed]
        self.current = found[0]
        self.next = found[1] if len(found) > 1 else None

    def refresh(self, now: datetime, *, force: bool = False) -> bool:  # noqa: ARG002
        """Leave it as it is: the supervisor renews it."""
        return False


def pack(handed: Handed) -> dict[str, Any]:
    """Write what is handed, for a message; sockets are told by their descriptors, which are inherited."""
    return {
        "number": handed.place.number,
        "count": handed.place.count,
        "folder": str(handed.place.folder),
        "room_key": handed.place.room_key.hex(),
        "node": handed.place.node,
        "udp": [opened.fileno() for opened in handed.udp],
        "tcp": [opened.fileno() for opened in handed.tcp],
        "reset_key": handed.reset_key.hex(),
        "retry_key": handed.retry_key.hex(),
        "first_port": handed.first_port,
        "state": None if handed.state is None else str(handed.state),
    }


def unpack(told: dict[str, Any]) -> Handed:
    """Undo :func:`pack`, in the process that has inherited the descriptors."""
    key = bytes.fromhex(told["room_key"])
    return Handed(
        Place(told["number"], told["count"], Path(told["folder"]), key, told.get("node", 0)),
        udp=tuple(socket.socket(fileno=descriptor) for descriptor in told["udp"]),
        tcp=tuple(socket.socket(fileno=descriptor) for descriptor in told["tcp"]),
        reset_key=bytes.fromhex(told["reset_key"]),
        retry_key=bytes.fromhex(told["retry_key"]),
        first_port=told["first_port"],
        state=None if told["state"] is None else Path(told["state"]),
    )

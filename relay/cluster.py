"""What the operator's settings mean for a cluster: relays of several machines that share their rooms.

Everything comes of one key that all have: what tags messages, and what makes the secrets by which clients
resume. A machine is known by its node's name, of which its workers' numbers are made; two that have one
name are told so.
"""

from __future__ import annotations

import hmac
import socket
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from relay.setting_kinds import SettingsError
from relay.workers.place import Place
from transport.trunk.nats_servers import NatsServers

if TYPE_CHECKING:
    from relay.settings import Settings

LEAST_KEY = 16
"""Bytes that a key file has at least, white space aside."""
MOST_KEY = 4096
"""Bytes that it has at most, with white space: what is longer is another file, named by mistake."""


def nats_servers(settings: Settings) -> NatsServers | None:
    """Tell how the cluster is reached; None for a relay that is in none. Raises SettingsError."""
    if not settings.cluster or settings.cluster_key is None:
        return None
    servers = NatsServers(
        settings.cluster,
        settings.cluster_name,
        _derived(settings.cluster_key, "messages"),
        settings.cluster_credentials,
        settings.cluster_ca,
    )
    # Without these looks each attempt to connect would fail, in the log only, and the relay go on alone.
    if settings.cluster_ca is not None:
        try:
            servers.tls_context()
        except OSError as error:  # so is ssl.SSLError
            raise SettingsError(f"--cluster-ca {settings.cluster_ca}: {error.strerror or error}") from None
    try:
        servers.read_credentials()
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"--cluster-credentials {settings.cluster_credentials}: {reason}") from None
    except ValueError as error:
        raise SettingsError(f"--cluster-credentials {settings.cluster_credentials}: {error}") from None
    return servers


def room_key(settings: Settings) -> bytes | None:
    """Tell what makes the secrets of guests; None for a relay that is in no cluster. Raises SettingsError."""
    if not settings.cluster or settings.cluster_key is None:
        return None
    return _derived(settings.cluster_key, "rooms")


def place_alone(settings: Settings) -> Place | None:
    """Tell the place of a relay that is one process; None in no cluster. Raises SettingsError."""
    key = room_key(settings)
    return None if key is None else Place(0, 1, Path(), key, node_of(settings))


def node_of(settings: Settings) -> int:
    """Make a number of 24 bits of the node's name, never 0; 0 for a relay that is in no cluster."""
    if not settings.cluster:
        return 0
    name = settings.cluster_node or socket.gethostname()
    return int.from_bytes(blake2b(name.encode(), digest_size=3).digest()) or 1


def _derived(file: Path, purpose: str) -> bytes:
    """Derive 32 bytes for one purpose from the cluster's key (HMAC-SHA256). Raises SettingsError."""
    found = _read(file, "--cluster-key")
    if len(found) > MOST_KEY:
        raise SettingsError(f"--cluster-key {file}: must have {MOST_KEY} bytes at most")
    key = found.strip()
    if len(key) < LEAST_KEY:
        raise SettingsError(
            f"--cluster-key {file}: must have {LEAST_KEY} bytes at least, as openssl rand -hex 32 makes them"
        )
    return hmac.digest(key, f"vmrelay cluster {purpose}".encode(), "sha256")


def _read(file: Path, flag: str) -> bytes:
    """Read no more than what shows that a key is too long. Raises SettingsError."""
    try:
        with file.open("rb") as opened:
            return opened.read(MOST_KEY + 1)
    except OSError as error:
        raise SettingsError(f"{flag} {file}: {error.strerror or error}") from None

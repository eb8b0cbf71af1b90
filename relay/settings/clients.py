"""Settings of the edge towards clients: where they connect, who may, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - hints are read
from typing import Annotated

from relay.room_tables import LISTED
from relay.setting_kinds import (
    AUTH_CHOICES,
    DAY,
    HOST,
    HOUR,
    OFF,
    ORIGINS,
    PATH,
    STATE,
    Option,
    choice,
    seconds,
    whole,
)

WEB_CHOICES = ("auto", "https", "off")
ROOM_CREATION = ("any", LISTED)
CONGESTION_CONTROLS = ("bbr", "cubic", "reno")


@dataclass(frozen=True)
class ClientSettings:
    """Where clients connect and who may; what is kept of them, and for how long."""

    port: Annotated[
        int, Option(whole(0, 65535), "N", "UDP port for QUIC and TCP port for WebSocket; 0 takes a free one")
    ] = 4433
    bind: Annotated[
        str,
        Option(
            HOST,
            "ADDRESS",
            "address or name to listen on; :: is all of this machine's, IPv6 and IPv4, 0.0.0.0 all of IPv4, "
            "a name all of its addresses",
        ),
    ] = "::"
    web: Annotated[
        str,
        Option(
            choice(*WEB_CHOICES),
            "HOW",
            "WebSocket on the TCP port: auto (https, and http too when bound to loopback), https, or off",
        ),
    ] = "auto"
    allow_origin: Annotated[
        tuple[str, ...],
        Option(
            ORIGINS,
            None,
            "let web pages of this origin connect, such as https://example.org or, for any one label, "
            "https://*.example.org; * is all pages of the internet; repeat, or comma list",
        ),
    ] = ()
    auth: Annotated[
        str,
        Option(
            choice(*AUTH_CHOICES),
            "HOW",
            "tokens: off, optional (who has one is held to it), or required",
        ),
    ] = OFF
    auth_keys: Annotated[
        Path | None,
        Option(PATH, "FILE", "keys that tokens are checked by (JWK Set); see vmrelay token --help"),
    ] = None
    auth_revoked: Annotated[
        Path | None,
        Option(
            PATH, "FILE", "ids (jti) of tokens that hold no longer, one per line; read again when it changes"
        ),
    ] = None
    cert_pem: Annotated[
        Path | None,
        Option(
            PATH,
            "FILE",
            "TLS certificate chain, leaf first; without one the relay makes its own, to be pinned by hash",
            "RELAY_CERT_PEM",
        ),
    ] = None
    key_pem: Annotated[
        Path | None, Option(PATH, "FILE", "private key of the certificate, unencrypted", "RELAY_KEY_PEM")
    ] = None
    cert_poll_interval: Annotated[
        float,
        Option(
            seconds(0.1, DAY),
            "SECONDS",
            "how often to look whether the certificate files changed",
            "CERT_POLL_INTERVAL",
        ),
    ] = 60.0
    state: Annotated[
        str,
        Option(
            STATE,
            "FOLDER",
            "keeps what outlives a restart: certificate, guests' addresses, keys; auto is $STATE_DIRECTORY, "
            "else ~/.local/state/vmrelay/PORT, and none keeps nothing",
        ),
    ] = "auto"
    heartbeat_interval: Annotated[
        float, Option(seconds(0.1, DAY), "SECONDS", "how often peers that went silent are looked for")
    ] = 30.0
    peer_timeout: Annotated[
        float, Option(seconds(0.1, DAY), "SECONDS", "silence after which a peer is removed")
    ] = 150.0
    resume_grace: Annotated[
        float,
        Option(
            seconds(0, HOUR),
            "SECONDS",
            "time for which a client that lost its connection finds its addresses and connections again; "
            "0 for none",
        ),
    ] = 60.0


@dataclass(frozen=True)
class RoomSettings:
    """How many sessions and rooms there may be, and how fast a session is sent to."""

    max_peers: Annotated[
        int, Option(whole(1, 65535), "N", "sessions at a time; --network has addresses for 245 guests")
    ] = 1024
    client_share: Annotated[
        int,
        Option(
            whole(0, 100),
            "PERCENT",
            "what the clients of one address (IPv6: of one /64) may take of connections, sessions and LAN "
            "addresses; 0, as behind a proxy, is no limit",
        ),
    ] = 98
    max_rooms: Annotated[
        int, Option(whole(1, 65535), "N", "rooms at a time; 1 is the default room alone")
    ] = 256
    rooms_per_client: Annotated[
        int,
        Option(
            whole(0, 65535),
            "N",
            "rooms that the clients of one address (IPv6: of one /64) may make; 0 is no limit",
        ),
    ] = 16
    room_idle_time: Annotated[
        float, Option(seconds(1, DAY), "SECONDS", "time after which a room ends that nobody is in")
    ] = 60.0
    create_rooms: Annotated[
        str,
        Option(
            choice(*ROOM_CREATION),
            "WHICH",
            "rooms that whoever names them makes: any, or listed (those of the configuration file)",
        ),
    ] = "any"
    congestion: Annotated[
        str,
        Option(
            choice(*CONGESTION_CONTROLS),
            "NAME",
            "what decides how fast a QUIC client is sent to: bbr (the path's measured rate), cubic or reno "
            "(until packets are lost)",
        ),
    ] = "bbr"

"""Settings of the relay's process, and of several: its end, admin API, workers, cluster and logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - hints are read
from typing import Annotated

from relay.admin_place import AUTO, Address
from relay.log_filter import LEVELS, LIBRARIES, PARTS
from relay.setting_kinds import (
    ADMIN,
    CLIENT_URLS,
    CLUSTER_NAME,
    CLUSTER_NODE,
    DAY,
    LOG_FILTER,
    MAX_BUFFERS,
    NATS_URLS,
    PATH,
    WORKERS,
    Option,
    choice,
    seconds,
    size,
    whole,
)

LOG_FORMATS = ("auto", "human", "json")

MIN_AUDIT_LOG = 4096
"""Bytes: some lines."""


@dataclass(frozen=True)
class ProcessSettings:
    """How the process runs and ends, whom it tells what, and with whom it shares its rooms."""

    drain_timeout: Annotated[
        float,
        Option(
            seconds(0, DAY),
            "SECONDS",
            "time for which sessions go on after SIGTERM, while new ones are refused; 0 ends them at once",
        ),
    ] = 5.0
    admin: Annotated[
        str | Path | Address,
        Option(
            ADMIN,
            "WHERE",
            "the admin API, which vmrelay status and others ask: auto (a socket for this user), the path of "
            "a socket, ADDRESS:PORT with --admin-token, or none",
        ),
    ] = AUTO
    admin_token: Annotated[
        Path | None, Option(PATH, "FILE", "file with the token that requests to --admin ADDRESS:PORT show")
    ] = None
    workers: Annotated[
        int | str,
        Option(
            WORKERS,
            "N",
            "processes that share the port and the work, on Linux; auto is one for each CPU that it may use",
        ),
    ] = 1
    audit_log: Annotated[
        Path | None,
        Option(
            PATH,
            "FILE",
            "writes who had which address, flows' first packets and operators' changes, a JSON object a line",
        ),
    ] = None
    audit_log_size: Annotated[
        int,
        Option(
            size(MIN_AUDIT_LOG, MAX_BUFFERS),
            "BYTES",
            "size at which the audit log becomes FILE.1 and a new one begins, such as 10M",
        ),
    ] = 10 * 2**20
    audit_log_files: Annotated[
        int, Option(whole(0, 999), "N", "old audit logs that are kept, besides the one that is written")
    ] = 5
    url: Annotated[
        tuple[str, ...],
        Option(
            CLIENT_URLS,
            None,
            "where clients reach this machine, such as https://east.example:4433; they are told those of the "
            "whole cluster, and go elsewhere when their machine is lost; repeat, or comma list",
        ),
    ] = ()
    cluster: Annotated[
        tuple[str, ...],
        Option(
            NATS_URLS,
            None,
            "share rooms with the relays of other machines through this NATS server, such as "
            "nats://USER:PASSWORD@HOST:4222 or tls://HOST:4222; needs --cluster-key; repeat, or comma list",
        ),
    ] = ()
    cluster_key: Annotated[
        Path | None,
        Option(PATH, "FILE", "secret that all relays of the cluster share, as openssl rand -hex 32 makes it"),
    ] = None
    cluster_name: Annotated[
        str, Option(CLUSTER_NAME, "NAME", "the cluster's name, with which its subjects begin")
    ] = "vmrelay"
    cluster_node: Annotated[
        str,
        Option(
            CLUSTER_NODE,
            "NAME",
            "this relay's name, which no other of the cluster has; empty: the host's name",
        ),
    ] = ""
    cluster_credentials: Annotated[
        Path | None, Option(PATH, "FILE", "credentials for the NATS server (.creds), as nsc makes them")
    ] = None
    cluster_ca: Annotated[
        Path | None,
        Option(
            PATH, "FILE", "certificates (PEM) by which a tls:// server is checked, instead of the system's"
        ),
    ] = None
    log_format: Annotated[
        str, Option(choice(*LOG_FORMATS), "FORMAT", "auto (in colour on a terminal), human, or json")
    ] = "auto"
    log_level: Annotated[str, Option(choice(*LEVELS), "LEVEL", "debug, info, warning or error")] = "info"
    log_filter: Annotated[
        tuple[tuple[str, str], ...],
        Option(
            LOG_FILTER,
            None,
            f"another level for a part ({', '.join(PARTS)}), a module such as transport.quic, or a library "
            f"({', '.join(LIBRARIES)}), as in switch=debug; repeat, or comma list",
        ),
    ] = ()

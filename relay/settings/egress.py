"""Settings of the ways out and in: what guests may reach, the NAT's flows, and forwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from netstack.forward import Forward  # noqa: TC001 - hints are read
from relay.setting_kinds import (
    DAY,
    FORWARDS,
    MAX_BUFFERS,
    MAX_TCP_BUFFER,
    MIN_TCP_BUFFER,
    NETWORKS,
    RATE,
    SWITCH,
    Network,
    Option,
    choice,
    seconds,
    size,
    whole,
)

UDP_FILTERINGS = ("address-dependent", "endpoint-independent")

MAX_KEEP_ALIVE = 32_767.0
"""Seconds of silence that Linux takes before it probes."""


@dataclass(frozen=True)
class EgressSettings:
    """What guests may reach beyond their LAN."""

    allow_cidr: Annotated[
        tuple[Network, ...],
        Option(
            NETWORKS,
            "NETWORK",
            "let guests reach this otherwise refused network; what is this machine's own must be named "
            "itself; repeat, or comma list",
        ),
    ] = ()
    deny_cidr: Annotated[
        tuple[Network, ...],
        Option(NETWORKS, "NETWORK", "never let guests reach this network; repeat, or comma list"),
    ] = ()
    host_access: Annotated[
        bool, Option(SWITCH, None, "let guests reach this machine's 127.0.0.1 as 10.0.2.4 (--network)")
    ] = False
    internet: Annotated[
        bool,
        Option(
            SWITCH,
            None,
            "let guests out; without, a LAN has its guests, its gateway and what --forward lets in",
        ),
    ] = True
    allow_smtp: Annotated[
        bool, Option(SWITCH, None, "let guests connect to TCP port 25, as mail servers do, and bots")
    ] = False


@dataclass(frozen=True)
class FlowSettings:
    """Number, rate, life and memory of NAT flows, and ports of this machine that lead to guests."""

    max_flows: Annotated[int, Option(whole(1, 65535), "N", "NAT flows of one peer at a time")] = 512
    max_flows_total: Annotated[
        int,
        Option(
            whole(1, 1_000_000),
            "N",
            "NAT flows of all peers at a time, as far as there are files for them (ulimit -n); one peer gets "
            "half of these, and of the host's UDP ports",
        ),
    ] = 65_536
    flow_rate: Annotated[
        int, Option(whole(1, 65535), "N", "NAT flows that one peer may open per second, on average")
    ] = 50
    max_half_open: Annotated[
        int,
        Option(whole(1, 65535), "N", "TCP connections of one peer, or one forward, that wait for an answer"),
    ] = 64
    bit_rate: Annotated[
        int,
        Option(RATE, "N", "bits per second from one peer, and to it: off, or a number such as 50M"),
    ] = 0
    packet_rate: Annotated[
        int,
        Option(RATE, "N", "packets per second from one peer, and to it: off, or a number such as 20k"),
    ] = 0
    udp_timeout: Annotated[
        float, Option(seconds(1, DAY), "SECONDS", "life of a UDP mapping that its guest does not use")
    ] = 300.0
    dns_timeout: Annotated[
        float,
        Option(seconds(1, DAY), "SECONDS", "life of a mapping to name servers after the last answer"),
    ] = 10.0
    tcp_timeout: Annotated[
        float, Option(seconds(1, DAY), "SECONDS", "life of a TCP connection on which nothing moves")
    ] = 7440.0
    tcp_transitory_timeout: Annotated[
        float,
        Option(seconds(1, DAY), "SECONDS", "the same of one that is opening, or that one side has ended"),
    ] = 240.0
    tcp_keep_alive: Annotated[
        float,
        Option(
            seconds(0, MAX_KEEP_ALIVE),
            "SECONDS",
            "silence after which the far end of a TCP connection is probed, and given up if it is gone; "
            "0 for never",
        ),
    ] = 300.0
    tcp_buffer: Annotated[
        int,
        Option(
            size(MIN_TCP_BUFFER, MAX_TCP_BUFFER),
            "BYTES",
            "what a TCP connection holds for each direction at most, and its largest window, such as 8M",
        ),
    ] = 8 * 2**20
    tcp_buffer_peer: Annotated[
        int,
        Option(
            size(MIN_TCP_BUFFER, MAX_BUFFERS),
            "BYTES",
            "the same of all connections of one peer; as it is used up each may hold less, 64k at last",
        ),
    ] = 32 * 2**20
    tcp_buffer_total: Annotated[
        int, Option(size(MIN_TCP_BUFFER, MAX_BUFFERS), "BYTES", "the same of all peers")
    ] = 256 * 2**20
    icmp_timeout: Annotated[
        float, Option(seconds(1, DAY), "SECONDS", "life of a ping's mapping after its last request")
    ] = 60.0
    udp_filtering: Annotated[
        str,
        Option(
            choice(*UDP_FILTERINGS),
            "WHO",
            "who may write to a guest's UDP mapping: address-dependent (addresses that the guest wrote to), "
            "or endpoint-independent (anyone)",
        ),
    ] = "address-dependent"
    forward: Annotated[
        tuple[Forward, ...],
        Option(
            FORWARDS,
            "FORWARD",
            "tcp:HOSTIP:PORT:VM:PORT or udp:…: lead a port of this machine (of 127.0.0.1 where HOSTIP is "
            "empty; IPv6 in brackets, as [::1]) to one of a guest, named by MAC, address or name; with "
            ",proxy behind it each connection or datagram begins with a PROXY protocol v2 header, with "
            ",transparent it comes from the client's own address; repeat, or comma list",
        ),
    ] = ()
    max_forwarded: Annotated[
        int,
        Option(whole(1, 65535), "N", "TCP connections through one forward at a time; further clients wait"),
    ] = 512
    port_hold: Annotated[
        float, Option(seconds(0, DAY), "SECONDS", "time for which the port of an ended mapping rests")
    ] = 120.0
    ports_held: Annotated[int, Option(whole(0, 16384), "N", "resting ports at a time")] = 8192

"""What the operator's settings mean for a LAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.settings import LanSettings
from netstack.egress import EgressPolicy
from relay.lan import LanPlan
from transport.descriptors import own_budget

if TYPE_CHECKING:
    from relay.settings import Settings


def lan_plan(settings: Settings) -> LanPlan:
    """Plan the LAN that these settings describe."""
    return LanPlan(
        settings=lan_settings(settings),
        policy=lambda: EgressPolicy(
            map(str, settings.allow_cidr),
            map(str, settings.deny_cidr),
            host_access=settings.host_access,
            allow_smtp=settings.allow_smtp,
        ),
        name_servers=settings.upstream_dns,
        forwards=settings.forward,
        port_hold=settings.port_hold,
        ports_held=settings.ports_held,
    )


def max_flows(settings: Settings) -> int:
    """Tell how many sockets the flows of all LANs may have."""
    return min(settings.max_flows_total, own_budget().flows)


def lan_settings(settings: Settings) -> LanSettings:
    """Tell what the actors of the LAN go by."""
    return LanSettings(
        dns=settings.dns.packed,
        dns_allow_private=settings.dns_allow_private,
        fixed_leases=settings.static_lease,
        dhcp_lease_time=settings.lease_time,
        peer_list=settings.peer_list,
        dhcp=settings.dhcp,
        dhcp_boot=settings.dhcp_boot,
        dhcp_search=settings.dhcp_search,
        dhcp_ntp=settings.dhcp_ntp,
        dhcp_routes=settings.dhcp_route,
        dhcp_wpad=settings.dhcp_wpad,
        source_guard=settings.source_guard,
        ipv6_prefix=settings.ipv6_prefix.network_address.packed[:8] if settings.ipv6 else None,
        host_access=settings.host_access,
        heartbeat_interval=settings.heartbeat_interval,
        peer_timeout=settings.peer_timeout,
        max_peers=settings.max_peers,
        bits_per_second=settings.bit_rate,
        packets_per_second=settings.packet_rate,
        client_share=settings.client_share,
        max_flows=max_flows(settings),
        max_questions=own_budget().questions,
        max_flows_per_peer=settings.max_flows,
        new_flows_per_second=settings.flow_rate,
        max_half_open_per_peer=settings.max_half_open,
        max_connections_per_forward=settings.max_forwarded,
        udp_idle_timeout=settings.udp_timeout,
        dns_answered_timeout=settings.dns_timeout,
        tcp_idle_timeout=settings.tcp_timeout,
        tcp_transitory_timeout=settings.tcp_transitory_timeout,
        tcp_keep_alive=settings.tcp_keep_alive,
        tcp_buffer=settings.tcp_buffer,
        tcp_buffers_per_peer=settings.tcp_buffer_peer,
        icmp_idle_timeout=settings.icmp_timeout,
        endpoint_independent_filtering=settings.udp_filtering == "endpoint-independent",
    )

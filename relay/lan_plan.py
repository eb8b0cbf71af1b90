"""What the operator's settings mean for a LAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.settings import LanSettings
from netstack.egress import EgressPolicy
from netstack.ipv4 import format_ipv4
from netstack.lan_network import addresses_of, is_reached_inside
from netstack.room_names import DEFAULT_ROOM
from relay.lan import LanPlan
from relay.lans import Bounds
from relay.room_tables import LISTED
from transport.host.descriptors import own_budget

if TYPE_CHECKING:
    from relay.settings import Settings

EVERYWHERE = ("0.0.0.0/0", "::/0")
"""What guests of an offline LAN may not reach."""


def lan_plan(settings: Settings, room: str = DEFAULT_ROOM) -> LanPlan:
    """Plan the LAN of a room."""
    settings = settings.of_room(room)
    lan = lan_settings(settings, room)
    return LanPlan(
        settings=lan,
        policy=lambda host_address="": EgressPolicy(
            map(str, settings.allow_cidr),
            map(str, settings.deny_cidr if settings.internet else EVERYWHERE),
            host_access=settings.host_access,
            host_address=host_address or format_ipv4(lan.host_ip),
            allow_smtp=settings.allow_smtp,
        ),
        name_servers=settings.upstream_dns,
        offline=not settings.internet,
        forwards=settings.forward,
        port_hold=settings.port_hold,
        ports_held=settings.ports_held,
    )


def bounds_of_rooms(settings: Settings) -> Bounds:
    """Tell how many rooms there may be, and for how long."""
    return Bounds(
        total=settings.max_rooms,
        per_client=settings.rooms_per_client,
        idle_time=settings.room_idle_time,
        listed=settings.rooms if settings.create_rooms == LISTED else None,
    )


def max_flows(settings: Settings) -> int:
    """Tell how many sockets the flows of all LANs may have."""
    return min(settings.max_flows_total, own_budget().flows)


def lan_settings(settings: Settings, room: str = DEFAULT_ROOM) -> LanSettings:
    """Tell what the actors of the LAN go by."""
    addresses = addresses_of(settings.network)
    return LanSettings(
        room=room,
        **addresses._asdict(),
        dns=_name_server(settings) or addresses.gateway_ip,
        domain=settings.domain,
        dns_allow_private=settings.dns_allow_private,
        fixed_leases=settings.static_lease,
        dhcp_lease_time=settings.lease_time,
        peer_list=settings.peer_list and not settings.isolated,
        isolated=settings.isolated,
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
        resume_grace=settings.resume_grace,
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


def _name_server(settings: Settings) -> bytes | None:
    """Tell the name server that guests are told of, where it is not the gateway.

    One outside that is the whole relay's is not for a LAN without a way out.
    """
    dns = settings.dns
    if dns is None:
        return None
    inside = is_reached_inside(dns, settings.network, settings.dhcp_route)
    return dns.packed if settings.internet or inside else None

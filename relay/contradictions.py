"""Settings that cannot be had together: told at the start, in one line that names the setting."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from actors.settings import LanSettings
from netstack.address_pool import AddressPool
from netstack.dns_zone import RESERVED_NAMES
from netstack.egress import EgressPolicy
from netstack.ethernet import MAC_LENGTH, format_mac, is_station
from netstack.forward import Clients
from netstack.ipv4 import format_ipv4
from netstack.lan_network import addresses_of, is_reached_inside
from netstack.room_names import DEFAULT_ROOM
from relay.admin_place import Address
from relay.room_tables import ALL_OTHERS, LISTED, OTHERS, ROOMS
from relay.setting_kinds import OFF, SettingsError, flag

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from netstack.forward import Forward
    from relay.room_tables import RoomTables
    from relay.settings import Settings, SettingsWithRooms


def refuse_half_a_certificate(settings: Settings) -> None:
    """Look whether there is a key for the certificate. Raises SettingsError."""
    if (settings.cert_pem is None) != (settings.key_pem is None):
        there, missing = ("cert", "key") if settings.key_pem is None else ("key", "cert")
        raise SettingsError(
            f"--{there}-pem needs --{missing}-pem (or RELAY_{missing.upper()}_PEM): both or neither"
        )


def refuse_half_of_auth(settings: Settings) -> None:
    """Look whether tokens, of any room or of operators, can be checked. Raises SettingsError."""
    asks = any(settings.of_room(room).auth != OFF for room in (DEFAULT_ROOM, ALL_OTHERS, *settings.rooms))
    if asks == (settings.auth_keys is None):
        raise SettingsError("--auth optional and required need --auth-keys, and that needs one of them")
    if settings.auth_revoked is not None and settings.auth_keys is None:
        raise SettingsError("--auth-revoked needs --auth-keys")
    if isinstance(settings.admin, Address) and settings.admin_token is None and settings.auth_keys is None:
        raise SettingsError(f"--admin {settings.admin} needs --admin-token, for others can connect there")


def refuse_contradictions(settings: Settings) -> None:
    """Look at the settings of one LAN. Raises SettingsError."""
    if settings.host_access and not settings.internet:
        raise SettingsError("--host-access needs a way out, which --no-internet takes away")
    _refuse_half_a_cluster(settings)
    _refuse_idle_dhcp(settings)
    _refuse_servers_that_are_none(settings)
    _refuse_misplaced_addresses(settings)
    _refuse_name_servers_out_of_reach(settings)
    _refuse_forwards(settings)


def refuse_ways_out_of_islands(settings: Settings, tables: RoomTables) -> None:
    """Look whether what opens a way out, or asks outside, is for LANs that have one. Raises SettingsError.

    A room that ``internet = false`` closes may take such a setting over from the whole relay: it is for the
    others. One that no LAN can use which has it is a mistake. Forwards lead in, and are no way out.
    """
    for name in ("allow_cidr", "allow_smtp", "upstream_dns", "dns_allow_private", "dns"):
        with_a_way_out: dict[str, bool] = {}
        for room in (DEFAULT_ROOM, ALL_OTHERS, *sorted(tables.named)):
            own = settings.of_room(room)
            if _leads_out(own, name):
                place = _place_of(name, room, tables)
                with_a_way_out[place] = with_a_way_out.get(place, False) or own.internet
        for place, out in with_a_way_out.items():
            if not out:
                where = f"{place}: " if place else ""
                raise SettingsError(f"{where}{flag(name)} needs a way out, which --no-internet takes away")


def _leads_out(settings: Settings, name: str) -> bool:
    """Whether a LAN's setting asks for a way out."""
    if name == "dns":
        dns = settings.dns
        return dns is not None and not is_reached_inside(dns, settings.network, settings.dhcp_route)
    return bool(getattr(settings, name))


def _place_of(name: str, room: str, tables: RoomTables) -> str:
    """Tell which table a room has a setting from; nothing for the whole relay's."""
    if name in tables.named.get(room, {}):
        return f"{ROOMS}.{room}"
    return OTHERS if room != DEFAULT_ROOM and name in tables.others else ""


def _refuse_half_a_cluster(settings: Settings) -> None:
    if settings.cluster and settings.cluster_key is None:
        raise SettingsError("--cluster needs --cluster-key, a secret that all its relays share")
    for name in ("cluster_key", "cluster_node", "cluster_credentials", "cluster_ca"):
        if getattr(settings, name) and not settings.cluster:
            raise SettingsError(f"{flag(name)} needs --cluster, the NATS servers")


def _refuse_idle_dhcp(settings: Settings) -> None:
    """Refuse what DHCP is to tell where there is none, or what it must not tell."""
    for name in (field.name for field in fields(settings) if field.name.startswith("dhcp_")):
        if getattr(settings, name) and not settings.dhcp:
            raise SettingsError(f"{flag(name)} needs DHCP, which --no-dhcp takes away")


def _refuse_servers_that_are_none(settings: Settings) -> None:
    """Refuse to tell guests of a server that they cannot have under that address."""
    servers = {
        "dns": [] if settings.dns is None else [settings.dns.packed],
        "dhcp_boot": [file.server for file in settings.dhcp_boot if any(file.server)],  # URLs have none
        "dhcp_ntp": settings.dhcp_ntp,
    }
    network = settings.network
    ends = (network.network_address, network.broadcast_address)
    host = IPv4Address(addresses_of(network).host_ip)
    for name, address in ((name, IPv4Address(each)) for name, all_of in servers.items() for each in all_of):
        if address.is_loopback:
            wrong = f"is each guest itself; this machine is {host}, with --host-access"
        elif address in ends:
            wrong = f"is nobody's address in {network}"
        elif address not in network and (
            address.is_unspecified or address.is_multicast or address.is_reserved
        ):
            wrong = "is no server's address"
        elif address == host and not settings.host_access:
            wrong = "is this machine, which needs --host-access"
        else:
            continue
        raise SettingsError(f"{flag(name)}: {address} {wrong}")


def _refuse_misplaced_addresses(settings: Settings) -> None:
    """Refuse what is to be on the LAN and is not, and what is to be outside and is on the LAN."""
    network, addresses = settings.network, addresses_of(settings.network)
    ends = (network.network_address, network.broadcast_address)
    try:
        AddressPool(
            str(network),
            format_ipv4(addresses.pool_first),
            format_ipv4(addresses.pool_last),
            addresses.services,
            {lease.mac: lease.ip for lease in settings.static_lease},
        )
    except ValueError as error:
        raise SettingsError(f"--static-lease: {error}") from None
    mac = LanSettings().gateway_mac
    if any(lease.mac == mac for lease in settings.static_lease):
        raise SettingsError(
            f"--static-lease: {format_mac(mac)} is the gateway's MAC, and no guest's: a QEMU machine that "
            "has it by default gets another from vmrelay attach, which says so and has --mac to choose it"
        )
    for router in (IPv4Address(route.router) for route in settings.dhcp_route):
        if router not in network or router in ends:
            raise SettingsError(f"--dhcp-route: {router} is no router for guests of {network}")
    lans: dict[int, IPv4Network | IPv6Network] = {4: network}
    if settings.ipv6:
        lans[6] = settings.ipv6_prefix
    for allowed in settings.allow_cidr:
        lan = lans.get(allowed.version)
        if lan is not None and allowed.network_address in lan and allowed.prefixlen >= lan.prefixlen:
            raise SettingsError(f"--allow-cidr: {allowed} is inside {lan}, which is the guests' own network")


def _refuse_name_servers_out_of_reach(settings: Settings) -> None:
    """Refuse to tell guests to ask a host that they may not reach. One on their LAN is a guest."""
    dns = settings.dns
    if dns is None or not settings.internet or not _leads_out(settings, "dns"):
        return
    policy = EgressPolicy(map(str, settings.allow_cidr), map(str, settings.deny_cidr))
    decision = policy.decide(dns.packed)
    if not decision.allowed:
        why = "--deny-cidr" if decision.reason == "denied_by_rule" else f"--allow-cidr {dns}/32 lets them"
        raise SettingsError(f"--dns: {dns} is not in {settings.network}, and guests may not reach it: {why}")


def _refuse_forwards(settings: Settings) -> None:
    for forward in settings.forward:
        why = why_no_forward(forward, settings.network, ipv6=settings.ipv6)
        if why is not None:
            raise SettingsError(f"--forward: {why}")


def why_no_forward(forward: Forward, network: IPv4Network, *, ipv6: bool) -> str | None:
    """Say why a forward leads to no guest that a LAN of this network can have, if it does not.

    ``ipv6`` tells whether the LAN has it.
    """
    if forward.clients is Clients.TRANSPARENT and ":" in forward.host and not ipv6:
        return f"{forward} needs IPv6 on the LAN, which --no-ipv6 takes away"
    if not _can_be_a_guest(forward.vm, network):
        return f"{forward} does not lead to a guest of {network}"
    return None


def _can_be_a_guest(vm: bytes | str, network: IPv4Network) -> bool:
    if isinstance(vm, str):
        return vm not in RESERVED_NAMES
    if len(vm) == MAC_LENGTH:
        return is_station(vm) and vm != LanSettings().gateway_mac
    nobody = {network.network_address.packed, network.broadcast_address.packed}
    return IPv4Address(vm) in network and vm not in nobody | addresses_of(network).services


def refuse_contradictions_of_rooms(settings: SettingsWithRooms) -> None:
    """Look at the settings of all rooms but the default one. Raises SettingsError that names the table."""
    named = sorted(settings.rooms)
    others = [] if named and settings.create_rooms == LISTED else [ALL_OTHERS]
    for room in others + named:
        try:
            refuse_contradictions(settings.of_room(room))
        except SettingsError as error:
            raise SettingsError(f"room{f'.{room}' if room else 's'}: {error}") from None
    owners: dict[str, str] = {}
    for room in (DEFAULT_ROOM, *named):
        for forward in settings.of_room(room).forward:
            owner = owners.setdefault(forward.listener, room)
            if owner != room:
                raise SettingsError(f"room.{room}: --forward: {forward.listener} is room {owner}'s already")
    if len(named) >= settings.max_rooms:
        raise SettingsError(f"more rooms than --max-rooms {settings.max_rooms} with the default one")

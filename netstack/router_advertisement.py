"""Router advertisements (RFC 4861, RFC 8106): prefix for SLAAC, MTU, name server, domains. Built by scapy.

The preference is medium (RFC 4191 section 2.2), so that a guest's other routers keep their weight. While the
host has no way to the IPv6 internet the lifetime is 0: the gateway is no default router then (RFC 7084 G-4).
"""

from __future__ import annotations

import logging
from functools import lru_cache

from netstack.ethernet import LAN_MTU, format_mac
from netstack.ipv6 import MIN_MTU, format_ipv6

INTERVAL = 200.0
"""Seconds between unsolicited advertisements: well below the lifetimes (RFC 4861 allows up to 1800)."""

ROUTER_LIFETIME = 1800
_MEDIUM_PREFERENCE = 0
PREFERRED_LIFETIME = 14_400
VALID_LIFETIME = 86_400


class RouterAdvertisements:
    """Advertisements of the gateway for one /64 ``prefix`` (first 8 of 16 bytes are used)."""

    def __init__(
        self, mac: bytes, link_local: bytes, prefix: bytes, dns: bytes | None, domains: tuple[str, ...] = ()
    ) -> None:
        """``dns`` is a name server or None; ``domains`` are those in which short names are looked for."""
        self._mac = mac
        self._link_local = link_local
        self._prefix = prefix
        self._dns = dns
        self._domains = domains

    def frame(self, guest_mac: bytes, mtu: int, *, is_default_router: bool) -> bytes:
        """Build the frame for one NIC: all-nodes in IPv6, that NIC's address in Ethernet (RFC 6085)."""
        lifetime = ROUTER_LIFETIME if is_default_router else 0
        told = self._mac, self._link_local, self._prefix, self._dns, self._domains
        return guest_mac + _build(*told, mtu=min(LAN_MTU, max(MIN_MTU, mtu)), lifetime=lifetime)[6:]


@lru_cache(maxsize=256)
def _build(
    mac: bytes,
    link_local: bytes,
    prefix: bytes,
    dns: bytes | None,
    domains: tuple[str, ...],
    *,
    mtu: int,
    lifetime: int,
) -> bytes:
    """Build the frame; LANs whose routers say the same share it."""
    # It warns of missing routes and the like, of no interest to one who only builds packets.
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.layers.inet6 import (
        ICMPv6ND_RA,
        ICMPv6NDOptDNSSL,
        ICMPv6NDOptMTU,
        ICMPv6NDOptPrefixInfo,
        ICMPv6NDOptRDNSS,
        ICMPv6NDOptSrcLLAddr,
        IPv6,
    )
    from scapy.layers.l2 import Ether

    packet = (
        Ether(src=format_mac(mac), dst="33:33:00:00:00:01", type=0x86DD)
        / IPv6(src=format_ipv6(link_local), dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(chlim=64, M=0, O=1, prf=_MEDIUM_PREFERENCE, routerlifetime=lifetime)
        / ICMPv6NDOptSrcLLAddr(lladdr=format_mac(mac))
        / ICMPv6NDOptMTU(mtu=mtu)
        / ICMPv6NDOptPrefixInfo(
            prefix=format_ipv6(prefix[:8] + bytes(8)),
            prefixlen=64,
            L=1,
            A=1,
            preferredlifetime=PREFERRED_LIFETIME,
            validlifetime=VALID_LIFETIME,
        )
    )
    if dns is not None:
        packet /= ICMPv6NDOptRDNSS(dns=[format_ipv6(dns)], lifetime=3 * int(INTERVAL))
    if domains:
        names = [f"{domain}." for domain in domains]
        packet /= ICMPv6NDOptDNSSL(searchlist=names, lifetime=3 * int(INTERVAL))
    return bytes(packet)

"""The one exception that every packet parser raises."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "truncated",
    "wrong_ethertype",
    "bad_ip_version",
    "bad_ip_header_length",
    "bad_ip_total_length",
    "bad_ip_checksum",
    "fragment",
    "bad_fragment",
    "bad_extension_header",
    "bad_neighbour",
    "bad_dhcpv6",
    "bad_udp_length",
    "bad_udp_checksum",
    "bad_udp_port",
    "bad_icmp_checksum",
    "bad_tcp_header_length",
    "bad_tcp_checksum",
    "bad_tcp_port",
    "bad_arp",
    "bad_dhcp",
    "bad_room_message",
]
"""Why a packet was not taken; a fixed set, since reasons become names of counters."""


class MalformedPacket(ValueError):  # noqa: N818 - says what the packet is, and reads so where it is caught
    """A packet that is cut short, lies about its lengths, is damaged, or is not what it should be."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason

"""The header by which a proxy tells a server who its client is: PROXY protocol, version 2 (binary).

Source: "The PROXY protocol", section 2.2. Over TCP it is the first that the server reads; over UDP each
datagram begins with it, which is how name servers that know it take it.
"""

from __future__ import annotations

from struct import Struct

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_FAMILIES = {4: 0x10, 16: 0x20}
"""AF_INET and AF_INET6, by the length of an address."""
_PROTOCOLS = {"tcp": 0x01, "udp": 0x02}
_HEADER = Struct("!12sBBH")
_PORTS = Struct("!HH")


def build_proxy_header(protocol: str, client: tuple[bytes, int], local: tuple[bytes, int]) -> bytes:
    """Build the header for a client and the address that it wrote to: 4 or 16 bytes each, and a port."""
    addresses = client[0] + local[0] + _PORTS.pack(client[1], local[1])
    kind = _FAMILIES[len(client[0])] | _PROTOCOLS[protocol]
    return _HEADER.pack(_SIGNATURE, _VERSION_2_PROXY, kind, len(addresses)) + addresses

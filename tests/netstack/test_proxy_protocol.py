from __future__ import annotations

import pytest

from netstack.family import pack_ip
from netstack.proxy_protocol import build_proxy_header

SIGNATURE = "0d0a0d0a000d0a515549540a"


@pytest.mark.parametrize(
    ("protocol", "client", "local", "expected"),
    [
        ("tcp", "192.0.2.1", "198.51.100.2", "2111000cc0000201c6336402c3500050"),
        ("udp", "192.0.2.1", "198.51.100.2", "2112000cc0000201c6336402c3500050"),
        ("tcp", "2001:db8::1", "::1", "21210024" + "20010db8" + "0" * 23 + "1" + "0" * 31 + "1c3500050"),
        ("udp", "2001:db8::1", "::1", "21220024" + "20010db8" + "0" * 23 + "1" + "0" * 31 + "1c3500050"),
    ],
)
def test_the_header_is_that_of_the_specification(protocol, client, local, expected):
    header = build_proxy_header(protocol, (pack_ip(client), 50_000), (pack_ip(local), 80))
    assert header.hex() == SIGNATURE + expected

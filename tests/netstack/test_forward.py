from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.forward import Forward, parse_forward

MAC = bytes.fromhex("525400a1b2c3")


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("tcp::8080:10.0.2.10:80", Forward("tcp", "127.0.0.1", 8080, bytes((10, 0, 2, 10)), 80)),
        ("udp:0.0.0.0:53:web:5353", Forward("udp", "0.0.0.0", 53, "web", 5353)),
        ("TCP:192.0.2.1:65535:52:54:00:A1:B2:C3:1", Forward("tcp", "192.0.2.1", 65_535, MAC, 1)),
        (" udp::1:web.vm.internal:1 ", Forward("udp", "127.0.0.1", 1, "web", 1)),
    ],
)
def test_forwards_as_operators_write_them(text, forward):
    assert parse_forward(text) == forward


@pytest.mark.parametrize(
    "text",
    [
        *("", "tcp", "tcp:8080:web:80", "sctp::1:web:1", "tcp:localhost:1:web:1", "tcp:::1:web:80"),
        *("tcp::0:web:80", "tcp::1:web:65536", "tcp::1::80", "tcp::1:-web-:80", "tcp::1:10.0.2:80"),
        *("tcp::1:10.0.2.256:80", "udp:256.0.0.1:1:web:1", "tcp::99999:web:1", "tcp::1:web:", "tcp::1:5:80"),
    ],
)
def test_what_is_none_is_refused_with_words(text):
    with pytest.raises(ValueError, match=r"must be|is not"):
        parse_forward(text)


@given(st.text(alphabet="tcpudp:0123456789.abf-", max_size=40))
def test_any_text_is_a_forward_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert parse_forward(text).protocol in ("tcp", "udp")

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netstack.dhcp_options import Code, option_spans

MAC = bytes.fromhex("525400aa0001")


def test_values_are_found_where_they_stand():
    options = [("message-type", 1), "pad", ("client_id", b"\0one"), ("client_id", b"two"), "end"]
    message = bytes(BOOTP(chaddr=MAC) / DHCP(options=options))
    assert [message[a:b] for a, b in option_spans(message, Code.CLIENT_ID)] == [b"\0one", b"two"]
    assert list(option_spans(message[:240] + b"\x3d\x09\1", Code.CLIENT_ID)) == []


@given(st.binary(max_size=300))
def test_no_message_whatever_is_too_odd_to_look_through(message):
    for start, end in option_spans(message, Code.CLIENT_ID):
        assert 240 < start <= end <= len(message)

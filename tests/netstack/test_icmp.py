from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP
from scapy.packet import Raw

from netstack.icmp import ECHO_REPLY, ECHO_REQUEST, IcmpMessage, build_echo, build_error, parse_icmp
from netstack.malformed import MalformedPacket

word = st.integers(0, 0xFFFF)


@given(word, word, st.binary(max_size=1472))
def test_echo_messages_are_scapys(identifier, sequence, data):
    for kind in (ECHO_REQUEST, ECHO_REPLY):
        expected = bytes(ICMP(type=kind, id=identifier, seq=sequence) / Raw(data))
        assert build_echo(kind, identifier, sequence, data) == expected
        if any(expected):
            assert parse_icmp(expected) == IcmpMessage(kind, 0, identifier, sequence, data)


@given(
    st.sampled_from(
        [
            (3, 3, 0, {"unused": 0}),
            (3, 4, 1400, {"nexthopmtu": 1400}),
            (11, 0, 0, {"unused": 0}),
            (12, 0, 20 << 24, {"ptr": 20}),
        ]
    ),
    st.binary(max_size=68),
)
def test_errors_are_scapys(error, quote):
    kind, code, rest, fields = error
    expected = ICMP(type=kind, code=code, **fields) / Raw(quote)
    assert build_error(kind, code, rest, quote) == bytes(expected)


@given(st.binary(max_size=40))
def test_garbage_gives_a_message_or_malformed(message):
    try:
        parsed = parse_icmp(message)
    except MalformedPacket:
        return
    assert parsed.data == message[8:]


def test_damage_is_seen():
    message = bytearray(build_echo(ECHO_REQUEST, 1, 2, b"data"))
    message[-1] ^= 1
    with pytest.raises(MalformedPacket, match="bad_icmp_checksum"):
        parse_icmp(bytes(message))
    with pytest.raises(MalformedPacket, match="truncated"):
        parse_icmp(bytes(message[:7]))

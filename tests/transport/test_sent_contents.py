"""Payloads of packets in flight, by number."""

from __future__ import annotations

from transport.quic.sent_contents import SentContents


def test_each_packet_has_its_payload_until_its_run_is_over():
    contents = SentContents()
    contents.add(10, [b"ten", b"eleven"])
    contents.add(14, [b"fourteen"])
    contents.add(15, [b"fifteen", b"sixteen"])
    names = {10: b"ten", 11: b"eleven", 14: b"fourteen", 15: b"fifteen", 16: b"sixteen"}
    assert {number: contents.of(number) for number in names} == names
    assert [contents.of(number) for number in (0, 9, 12, 13, 17)] == [b""] * 5
    contents.forget_before(11)
    assert contents.of(10) == b"ten", "a run goes as a whole"
    contents.forget_before(12)
    assert (contents.of(11), contents.of(14), len(contents)) == (b"", b"fourteen", 3)
    contents.forget_before(17)
    assert len(contents) == 0
    assert contents.of(16) == b""

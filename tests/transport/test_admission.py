from __future__ import annotations

from transport import admission
from transport.admission import ClientRequest, NoRoom

HEADERS = [("origin", "null"), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")]


def test_a_request_gives_all_values_of_a_header():
    request = ClientRequest("websocket", "/", "", HEADERS, "relay.example", True, "198.51.100.1:4000")
    assert request.values("x-forwarded-for") == ["192.0.2.1", "192.0.2.2"]
    assert request.values("authorization") == []


def test_of_connections_that_find_no_room_one_event_in_a_while_is_told_for_each_reason(bound):
    no_room = NoRoom("webtransport")
    for number in range(100):
        no_room.tell(f"192.0.2.1:{number}", "too many", 5.0)
        no_room.tell(f"192.0.2.1:{number}", "too many of one", 5.0)
    assert [event["why"] for event in bound] == ["too many", "too many of one"]
    del bound[0]["reason"]
    assert bound[0] == {
        "event": "refused",
        "room": None,
        "mac": None,
        "remote": "192.0.2.1:0",
        "carrier": "webtransport",
        "why": "too many",
    }
    no_room.tell("192.0.2.2:1", "too many", 4.9 + admission.TOLD_EVERY)
    no_room.tell("192.0.2.2:2", "too many", 5.0 + admission.TOLD_EVERY)
    assert [event["remote"] for event in bound[2:]] == ["192.0.2.2:2"]

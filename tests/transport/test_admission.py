from __future__ import annotations

from transport.admission import ClientRequest

HEADERS = [("origin", "null"), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")]


def test_a_request_gives_all_values_of_a_header():
    request = ClientRequest("websocket", "/", "", HEADERS, "relay.example", True, "198.51.100.1:4000")
    assert request.values("x-forwarded-for") == ["192.0.2.1", "192.0.2.2"]
    assert request.values("authorization") == []

from __future__ import annotations

from typing import Any

import pytest

from relay.admin.client import AskError
from relay.admin.live import Live

STATUS = {"version": "1", "rooms": [{"name": "lab", "sessions": 1}]}


def peer(port=1, **told):
    packets = {"packets_sent": 100, "packets_lost": 10, "drops": {}}
    return {"port": port, "room": "lab", "age": 10.0, "bytes_in": 0, "bytes_out": 0, **packets, **told}


class Relay:
    """Answers as an admin API does; ``answers`` has what is changed in between."""

    def __init__(self, *peers, drops=()):
        self.answers: dict[str, Any] = {
            "/v1/status": STATUS,
            "/v1/peers": list(peers),
            "/v1/drops": dict(drops),
            "/v1/flows": {"lab": [{"remote": "192.0.2.1"}]},
            "/v1/events/recent": [{"message": "one"}],
        }
        self.asked = []
        self.now = 0.0

    def ask(self, path, query=None):
        self.asked.append((path, query))
        if path not in self.answers:
            raise AskError("no")
        return self.answers[path]


@pytest.fixture
def live():
    relay: Any = Relay(peer(), drops={"switch.drop.runt": 5})
    return relay, Live(relay, lambda: relay.now)


def test_the_first_look_knows_no_rates(live):
    _, live = live
    look = live.look()
    (session,) = look.sessions
    assert (session.from_guest, session.to_guest, session.loss) == (None, None, 0.1)
    assert (look.drops, look.drop_rates) == ({"switch.drop.runt": 5}, {})
    assert [room["name"] for room in look.rooms] == ["lab"]


def test_rates_are_of_the_time_between_two_looks(live):
    relay, live = live
    live.look()
    relay.now = 4.0  # answers came late: a session's own age tells how long it was
    relay.answers["/v1/peers"] = [peer(age=12.0, bytes_in=1000, bytes_out=500, packets_sent=200)]
    relay.answers["/v1/drops"] = {"switch.drop.runt": 13, "switch.drop.isolated": 2}
    look = live.look()
    (session,) = look.sessions
    assert (session.from_guest, session.to_guest, session.loss) == (4000.0, 2000.0, 0.0)
    assert look.drop_rates == {"switch.drop.runt": 2.0, "switch.drop.isolated": 0.5}


def test_losses_that_are_noticed_later_are_no_more_than_all(live):
    relay, live = live
    live.look()
    relay.answers["/v1/peers"] = [peer(age=11.0, packets_sent=101, packets_lost=30)]
    assert live.look().sessions[0].loss == 1.0
    relay.answers["/v1/peers"] = [peer(age=12.0, packets_sent=101, packets_lost=30)]
    assert live.look().sessions[0].loss == pytest.approx(30 / 101)


def test_a_session_without_packets_has_no_loss(live):
    relay, live = live
    relay.answers["/v1/peers"] = [peer(packets_sent=None, packets_lost=None), peer(2, packets_sent=0)]
    live.look()
    assert [session.loss for session in live.look().sessions] == [None, None]


def test_sessions_come_and_go(live):
    relay, live = live
    live.look()
    relay.answers["/v1/peers"] = [peer(2, drops={"peer.drop.absent": 2, "peer.drop.too_big": 1})]
    look = live.look()
    assert look.session(1) is None
    assert look.session(2).from_guest is None
    assert look.session(2).drops == 3


def test_a_session_of_the_next_relay_with_the_same_number_is_another(live):
    relay, live = live
    relay.answers["/v1/peers"] = [peer(age=100.0, bytes_in=1_000_000)]
    live.look()
    relay.answers["/v1/peers"] = [peer(age=1.0, bytes_in=10)]
    (session,) = live.look().sessions
    assert (session.from_guest, session.to_guest, session.loss) == (None, None, 0.1)


def test_counters_of_a_room_that_ended_are_no_negative_rate(live):
    relay, live = live
    live.look()
    relay.now = 1.0
    relay.answers["/v1/drops"] = {"switch.drop.runt": 1}
    assert live.look().drop_rates == {"switch.drop.runt": 0.0}


def test_flows_are_asked_for_of_one_session(live):
    relay, live = live
    (session,) = live.look().sessions
    assert live.flows(session) == [{"remote": "192.0.2.1"}]
    assert relay.asked[-1] == ("/v1/flows", {"room": "lab", "port": "1"})
    relay.answers["/v1/flows"] = {}
    assert live.flows(session) == []
    assert live.events() == [{"message": "one"}]


def test_a_look_that_fails_leaves_the_one_before_for_the_next(live):
    relay, live = live
    live.look()
    kept = relay.answers.pop("/v1/peers")
    with pytest.raises(AskError):
        live.look()
    relay.answers["/v1/peers"] = [{**kept[0], "age": 20.0, "bytes_in": 1250}]
    assert live.look().sessions[0].from_guest == 1000.0

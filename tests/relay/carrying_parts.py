"""A carrier and a holder of sessions whose messages the test passes on."""

from __future__ import annotations

from types import SimpleNamespace

from lan_parts import FakeSession

from actors.ports import SessionTerms
from actors.runtime import NEVER
from netstack import carried_wire as wire
from netstack.counters import Counters
from relay.carried_end import Worker
from relay.carrying import Carrying

STATE = wire.State(0, 0, 100_000, 1160, 5.0, None, None, None, "websocket", "192.0.2.1:5")
TERMS = SessionTerms("", NEVER, None, "")


class Told(list):
    def tell(self, message):
        self.append(message)


def make_pair():
    found = SimpleNamespace(
        now=0.0, live={1: 11, 2: 22}, counters=Counters(), works=0, peer=Told(), told=Told()
    )

    def carrying(number):
        def work():
            found.works += 1

        return Carrying(
            Worker(number, found.live[number]),
            now=lambda: found.now,
            incarnation_of=found.live.get,
            work_at_end=work,
            counters=found.counters,
        )

    found.carrier, found.holder = carrying(1), carrying(2)
    found.accepted = []

    def accept(session, terms):
        found.accepted.append((session, terms))
        return found.told

    found.holder.accept_by("lab", accept)
    found.session = FakeSession(7, "/?encap=framed")
    found.ends = {1: found.carrier, 2: found.holder}

    def passes(*, drop=0):
        """Pass on what there is, but for the first ``drop`` messages."""
        messages = [m for end in (found.carrier, found.holder) for m in end.take_outgoing()]
        for worker, message in messages[drop:]:
            found.ends[worker].receive(message)
        return len(messages)

    found.passes = passes
    return found


def opened(pair, terms=TERMS):
    passage = pair.carrier.carry(2, "lab", pair.session, terms, pair.peer)
    while pair.passes():
        pass
    return passage, pair.accepted[-1][0]

"""The states of a TCP connection (RFC 9293 section 3.3.2) and every way from one to another, in one table."""

from __future__ import annotations

from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(Enum):
    """Where a connection is, seen from the relay's end."""

    CLOSED = auto()
    SYN_SENT = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()
    FIN_WAIT_1 = auto()
    FIN_WAIT_2 = auto()
    CLOSE_WAIT = auto()
    CLOSING = auto()
    LAST_ACK = auto()
    TIME_WAIT = auto()


class Event(Enum):
    """What moves a connection. *Got* is from the guest, *sent* is towards it."""

    GOT_OPENING_SYN = auto()
    """The guest opens the connection."""
    SENT_SYN = auto()
    """The relay opens the connection."""
    GOT_SYN = auto()
    """A SYN without ACK meets ours: both open at once."""
    GOT_SYN_ACK = auto()
    SYN_ACKNOWLEDGED = auto()
    """The guest acknowledged our SYN, after its own was received."""
    SENT_FIN = auto()
    FIN_ACKNOWLEDGED = auto()
    GOT_FIN = auto()
    """The guest's FIN, with everything before it received."""
    ENDED = auto()
    """Reset by either side, given up, or the wait is over."""


class ImpossibleTransition(Exception):  # noqa: N818 - a bug of ours, whatever the guest sends
    """An event for which a state has no way: the connection's code should have asked first."""


_S, _E = State, Event

TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        _S.CLOSED: {
            _E.GOT_OPENING_SYN: _S.SYN_RECEIVED,
            _E.SENT_SYN: _S.SYN_SENT,
            _E.ENDED: _S.CLOSED,
        },
        _S.SYN_SENT: {
            _E.GOT_SYN_ACK: _S.ESTABLISHED,
            _E.GOT_SYN: _S.SYN_RECEIVED,
            _E.ENDED: _S.CLOSED,
        },
        _S.SYN_RECEIVED: {
            _E.SYN_ACKNOWLEDGED: _S.ESTABLISHED,
            _E.ENDED: _S.CLOSED,
        },
        _S.ESTABLISHED: {
            _E.SENT_FIN: _S.FIN_WAIT_1,
            _E.GOT_FIN: _S.CLOSE_WAIT,
            _E.ENDED: _S.CLOSED,
        },
        _S.FIN_WAIT_1: {
            _E.FIN_ACKNOWLEDGED: _S.FIN_WAIT_2,
            _E.GOT_FIN: _S.CLOSING,
            _E.ENDED: _S.CLOSED,
        },
        _S.FIN_WAIT_2: {
            _E.GOT_FIN: _S.TIME_WAIT,
            _E.ENDED: _S.CLOSED,
        },
        _S.CLOSE_WAIT: {
            _E.SENT_FIN: _S.LAST_ACK,
            _E.ENDED: _S.CLOSED,
        },
        _S.CLOSING: {
            _E.FIN_ACKNOWLEDGED: _S.TIME_WAIT,
            _E.ENDED: _S.CLOSED,
        },
        _S.LAST_ACK: {
            _E.FIN_ACKNOWLEDGED: _S.CLOSED,
            _E.ENDED: _S.CLOSED,
        },
        _S.TIME_WAIT: {
            _E.ENDED: _S.CLOSED,
        },
    }
)

OPENING = frozenset({State.SYN_SENT, State.SYN_RECEIVED})
"""Not yet agreed on both sides: half-open."""

SYNCHRONIZED = frozenset(State) - OPENING - {State.CLOSED}
"""Both sequence numbers are known and agreed."""

MAY_RECEIVE = frozenset({State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2})
"""The guest's FIN has not come: data may still."""


def after(state: State, event: Event) -> State:
    """Return the state that follows. Raises ImpossibleTransition."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ImpossibleTransition(f"{event.name} in {state.name}") from None

from __future__ import annotations

import socket

import pytest

from netstack.forward import MAX_FORWARDS, parse_forward
from relay.forward_changes import ForwardChanges
from relay.operations import NotThereError, OperationError
from relay.room_tables import RoomTables
from relay.settings import Settings, SettingsWithRooms
from relay.supervisor.forwards import WholeForwards


def forward(port, vm="web"):
    return parse_forward(f"tcp:127.0.0.1:{port}:{vm}:80")


@pytest.fixture
def free():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened.getsockname()[1]


def having(*configured):
    return WholeForwards(ForwardChanges(), lambda: Settings(forward=configured))


def having_in(room, *configured):
    tables = RoomTables(named={} if room == "default" else {room: {"forward": configured}})
    own = configured if room == "default" else ()
    return SettingsWithRooms(forward=own, tables=tables)


def test_what_is_added_and_removed_is_told(free):
    forwards = having()
    forwards.add("lab", forward(free))
    assert forwards.of_room("lab") == [str(forward(free))]
    assert [entry["change"] for entry in forwards.changes.entries()] == ["added"]
    assert forwards.remove("lab", f"tcp:127.0.0.1:{free}") == str(forward(free))
    assert forwards.of_room("lab") == []
    with pytest.raises(NotThereError, match="has no forward"):
        forwards.remove("lab", str(forward(free)))


def test_one_of_the_settings_can_be_closed_and_opened_again(free):
    forwards = having(forward(free))
    assert forwards.of_room("default") == [str(forward(free))]
    forwards.remove("default", str(forward(free)))
    assert forwards.of_room("default") == []
    forwards.try_all()
    forwards.add("default", forward(free))
    assert forwards.changes.entries() == ()


@pytest.mark.parametrize("room", ["default", "lab"])
def test_what_the_settings_say_themselves_is_no_longer_an_operators_change(room):
    one, other = forward(18080), forward(18081)
    settings = having_in(room, one)
    forwards = WholeForwards(ForwardChanges(), lambda: settings)
    forwards.changes.of_room(room).open(str(other), configured=False)
    forwards.remove(room, str(one))
    assert len(forwards.changes.entries()) == 2
    settings = having_in(room, other)
    forwards.follow()
    assert (forwards.changes.entries(), forwards.of_room(room)) == ((), [str(other)])


def test_a_port_that_somebody_has_is_told(taken):
    with pytest.raises(
        OperationError, match=f"cannot forward tcp:127.0.0.1:{taken}:web:80: Address already in use"
    ):
        having().add("default", forward(taken))
    with pytest.raises(OperationError, match="Address already in use"):
        having(forward(taken)).try_all()


def test_a_port_is_one_forwards_whether_somebody_listens_there_or_not(free):
    """Nobody may, of a room that is at another worker than the one that answers for guests who are away."""
    forwards = having(forward(18080))
    forwards.add("lab", forward(free))
    for room, taken in (("attic", free), ("lab", free), ("lab", 18080)):
        with pytest.raises(OperationError, match=r"mail:80: another forward has this port"):
            forwards.add(room, forward(taken, "mail"))
    forwards.remove("default", str(forward(18080)))
    forwards.remove("lab", str(forward(free)))
    forwards.add("attic", forward(free, "mail"))


def test_a_forward_that_leads_to_no_guest_is_refused(free):
    with pytest.raises(OperationError, match=r"does not lead to a guest of 10\.0\.2\.0/24"):
        having().add("lab", forward(free, "192.0.2.1"))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_two_forwards_want_is_told(protocol, free):
    one, other = (parse_forward(f"{protocol}:{host}:{free}:web:80") for host in ("127.0.0.1", "0.0.0.0"))
    having(one).try_all()
    with pytest.raises(OperationError, match=f"cannot forward {protocol}:0.0.0.0:{free}:web:80: Address"):
        having(one, other).try_all()
    having(other).try_all()


def test_the_number_of_forwards_is_bounded(free):
    forwards = having(*(forward(port + 1) for port in range(MAX_FORWARDS)))
    with pytest.raises(OperationError, match=f"there are {MAX_FORWARDS} already"):
        forwards.add("default", forward(free))
    with pytest.raises(OperationError, match="it is forwarded already"):
        forwards.add("default", forward(1))

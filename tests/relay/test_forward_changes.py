"""How forwards of the configuration and those of operators relate; tests/system does it from outside."""

from __future__ import annotations

import asyncio

import pytest

from relay import forward_changes
from relay.documents import Document
from relay.forward_changes import ForwardChanges, TooManyChangesError
from relay.state import Folder, State

WEB, MAIL = "tcp:127.0.0.1:8080:web:80", "tcp:127.0.0.1:2525:mail:25"


@pytest.fixture
def document(tmp_path):
    file = State(Folder(tmp_path / "state")).file(forward_changes.FILE)
    return lambda: Document(file, forward_changes.HOLDS)


def kept(changes, document):
    """Keep changes, and read them as the next relay would."""
    asyncio.run(changes.keep())
    return ForwardChanges(document())


def test_changes_outlive_the_process_by_room(document):
    changes = ForwardChanges(document())
    changes.of_room("default").open(WEB, configured=False)
    changes.of_room("lab").close(MAIL, configured=True)
    again = kept(changes, document)
    assert [str(forward) for forward in again.of_room("default").added] == [WEB]
    assert again.of_room("default").closed == frozenset()
    assert again.of_room("lab").closed == {MAIL}


def test_what_is_undone_leaves_nothing(document):
    changes = ForwardChanges(document())
    room = changes.of_room("default")
    room.open(WEB, configured=False)
    room.close(WEB, configured=False)
    room.close(MAIL, configured=True)
    room.open(MAIL, configured=True)
    again = kept(changes, document).of_room("default")
    assert (again.added, again.closed) == ([], frozenset())


def test_a_forward_that_the_configuration_comes_to_name_is_its_own_from_then_on():
    room = ForwardChanges().of_room("default")
    room.open(WEB, configured=False)
    room.follow({WEB})
    room.follow(set())
    assert room.added == []


def test_a_closed_forward_stays_so_until_the_configuration_forgets_it():
    room = ForwardChanges().of_room("default")
    room.close(WEB, configured=True)
    room.follow({WEB, MAIL})
    assert room.closed == {WEB}
    room.follow({MAIL})
    room.follow({WEB})
    assert room.closed == frozenset()


def test_their_number_is_bounded_and_the_most_are_read_again(document, monkeypatch):
    monkeypatch.setattr(forward_changes, "MAX_CHANGES", 3)
    changes = ForwardChanges(document())
    for port in range(1, 4):
        changes.note("default", f"tcp:127.0.0.1:{port}:web:80", "added")
    with pytest.raises(TooManyChangesError, match="3 forwards"):
        changes.note("lab", WEB, "added")
    changes.note("default", "tcp:127.0.0.1:1:web:80", "closed")  # known already
    assert len(kept(changes, document).find("default", "added")) == 2


def test_entries_that_mean_nothing_are_counted_in_one_line(document, lines):
    good = {"room": "default", "forward": WEB, "change": "added"}
    odd = [1, None, {}, good | {"forward": "tcp"}, good | {"change": "x"}, good | {"room": "A/B"}]
    asyncio.run(document().keep((*odd, good)))
    assert ForwardChanges(document()).find("default", "added") == [WEB]
    assert lines == ["WARNING 6 of the changes of forwards that were kept are none"]

"""Tokens that are revoked while the relay runs."""

from __future__ import annotations

import pytest

from relay import revocations
from relay.revocations import Revocations
from relay.state import Folder, State


@pytest.fixture
def file(tmp_path):
    return State(Folder(tmp_path / "state")).file(revocations.FILE)


def test_what_was_revoked_stays_so(file):
    first = Revocations(file)
    assert first.ids == frozenset()
    for identifier in ("t1", "t2", "t1"):
        first.add(identifier)
    first.save()
    assert Revocations(file).ids == first.ids == {"t1", "t2"}


@pytest.mark.parametrize("identifier", ["", "a b", "a\n", "é", "x" * 201])
def test_what_can_be_no_id_is_refused(file, identifier):
    with pytest.raises(ValueError, match="1 to 200 characters"):
        Revocations(file).add(identifier)


def test_none_is_dropped_where_there_are_too_many(file, monkeypatch):
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    full = Revocations(file)
    for identifier in ("t1", "t2", "t1"):
        full.add(identifier)
    with pytest.raises(ValueError, match="2 tokens are revoked already"):
        full.add("t3")
    assert full.ids == {"t1", "t2"}


def test_the_largest_list_is_read_again(file):
    most = Revocations(file)
    for number in range(revocations.MAX_REVOKED):
        most.add(f"{number:0200}")
    most.save()
    assert Revocations(file).ids == most.ids


def test_a_file_that_is_damaged_is_one_line(file, lines):
    file.write(b"t1\n\xff\xfe\x00\nt2\n")
    assert Revocations(file).ids == {"t1", "t2"}
    assert len(lines) == 1

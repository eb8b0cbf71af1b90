from __future__ import annotations

import pytest

from relay.called import as_told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Web", "web"),
        ("10.0.2.15", "10.0.2.15"),
        ("FD76:6d72:656c:6179:0:0:0:78", "fd76:6d72:656c:6179::78"),
        ("52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
        ("52-54-00-ab-cd-ef", "52:54:00:ab:cd:ef"),
        ("52:54:00", "52:54:00"),
    ],
)
def test_a_guest_is_called_in_any_spelling(said, told):
    assert as_told(said) == told

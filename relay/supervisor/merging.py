"""Makes one answer of what several workers answer. Pure: JSON in, JSON out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def summed(answers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counters, by their names."""
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(answer)
    return dict(sorted(total.items()))

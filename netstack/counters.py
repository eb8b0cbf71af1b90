"""Named totals: every drop has a reason, every reason a counter."""

from __future__ import annotations


class Counters(dict[str, int]):
    """Monotonic totals by dotted name, such as ``switch.drop.spoofed_source``.

    One instance serves the whole process; every part adds to it and nothing ever subtracts. The set of
    names is fixed by the code (never built from input), so the table cannot grow without a bound.
    """

    __slots__ = ()

    def __missing__(self, name: str) -> int:
        return 0

    def add(self, name: str, count: int = 1) -> None:
        """Add ``count`` to the total called ``name``."""
        self[name] = self.get(name, 0) + count

    def total(self, prefix: str) -> int:
        """Sum of all totals whose name starts with ``prefix``."""
        return sum(count for name, count in self.items() if name.startswith(prefix))


class PartCounters(Counters):
    """Totals of a part, such as a session, which count for the whole as well."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Counters) -> None:
        super().__init__()
        self._whole = whole

    def add(self, name: str, count: int = 1) -> None:
        """As :meth:`Counters.add`, here and for the whole."""
        super().add(name, count)
        self._whole.add(name, count)

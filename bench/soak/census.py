"""A relay that tells what it is made of: ``census.py FILE [--trace] OPTIONS-OF-VMRELAY``.

At each SIGRTMIN it appends a JSON object to FILE: how many objects of which type the garbage collector knows,
and, with ``--trace``, how many bytes which line of code holds (tracemalloc; that costs half of the speed).
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

from relay.main import main

MOST = 400
"""Types, and lines of code, that are told."""


def take(file: Path) -> None:
    """Append what there is at this moment."""
    gc.collect()
    types = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    lines = {}
    if tracemalloc.is_tracing():
        statistics = tracemalloc.take_snapshot().statistics("lineno")[:MOST]
        lines = {str(entry.traceback): entry.size for entry in statistics}
    with file.open("a") as out:
        out.write(json.dumps({"types": dict(types.most_common(MOST)), "lines": lines}) + "\n")


if __name__ == "__main__":
    _, file, *words = sys.argv
    if words[:1] == ["--trace"]:
        del words[0]
        tracemalloc.start()
    signal.signal(signal.SIGRTMIN, lambda *_: take(Path(file)))
    sys.exit(main(words))

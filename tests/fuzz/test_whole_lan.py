"""Whatever guests send, a neighbour is served as ever, sees nothing forged, and nothing stays behind."""

from __future__ import annotations

import os

from edits import BYTES_PER_EDIT, edited
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from whole_lan import DATAGRAMS, FRAMES, PATHS, run, sealed

EXAMPLES = 200 if os.environ.get("CI", "").lower() in {"1", "true"} else 25
RAW = PATHS.index("/?encap=raw")
STEPS = 8
FRAMES_PER_STEP = 4
_SIZE = FRAMES_PER_STEP * (1 + BYTES_PER_EDIT)


def steps_of(script):
    """Choose clients, pauses and what they send."""
    for start in range(0, len(script), 2 + _SIZE):
        which, pause, *rest = script[start : start + 2 + _SIZE]
        which %= len(PATHS)
        kinds, edits = rest[:FRAMES_PER_STEP], bytes(rest[FRAMES_PER_STEP:])
        datagrams = []
        for kind, frame in zip(kinds, edited(FRAMES, edits), strict=True):
            if kind % 16 == 0:
                datagrams.append(DATAGRAMS[kind // 16 % len(DATAGRAMS)])
                continue
            prefix = b"" if which == RAW or kind % 16 == 1 else b"\1"
            datagrams.append(prefix + (sealed(frame) if kind % 4 else frame))
        yield which, pause, datagrams


@settings(max_examples=EXAMPLES, phases=[Phase.generate])  # to shrink a script takes minutes
@given(st.binary(min_size=STEPS * (2 + _SIZE), max_size=STEPS * (2 + _SIZE)))
def test_no_input_hurts_a_neighbour(script):
    run(steps_of(script))


def test_each_frame_as_it_is_from_each_client():
    for which in range(len(PATHS)):
        run((which, 3, [frame if which == RAW else b"\1" + frame]) for frame in FRAMES)

"""Fuzz the parsers for a chosen time, each in turn, and print a table.

    make fuzz                                    10 minutes for all together
    make fuzz ARGS="--minutes 60"
    make fuzz ARGS="--minutes 5 tcp dns_answers"
    make fuzz ARGS="--keep"                      and keep the few inputs that reach what was reached

With atheris (libFuzzer, guided by what code is reached), where it can be installed; else with mutations at
random. What is of use for going on is in ``.cache/fuzz/TARGET``. An input that shows an error is added to
``tests/fuzz/corpus``, so that the tests fail until the error is mended; the status is 1 then.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path

from corpora import keep, kept
from edits import BYTES_PER_EDIT, LONGEST, edited

ROOT = Path(__file__).parent.parent.parent
CORPORA = ROOT / ".cache/fuzz"
LONGEST_KEPT = 160
"""Bytes of an input that ``--keep`` adds to the corpus."""
SLOWEST = 2
"""Seconds that one input may take: more is an error."""
INSTRUMENTED = ["guest", "netstack", "transport"]


def fuzz_guided(name, seconds):
    """Run libFuzzer on a target in this process, to its end."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from targets import TARGETS

    folder = CORPORA / name
    folder.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    for seed in [*target.seeds, *kept(name)]:
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-timeout={SLOWEST}", f"-max_len={LONGEST}"]
    options += [f"-artifact_prefix={folder}-", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(folder), *options], target.run)
    atheris.Fuzz()


def guided(name, seconds):
    """Fuzz with atheris in a process of its own; give figures, and the inputs that went wrong."""
    command = [sys.executable, __file__, "--one", name, "--minutes", str(seconds / 60)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        print(said[-3000:], file=sys.stderr)
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", said)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said) or [("", "", "")]
    found = [file.read_bytes() for file in CORPORA.glob(f"{name}-*")]
    for file in CORPORA.glob(f"{name}-*"):
        file.unlink()
    return (executed[1] if executed else "?", *reached[-1][::2]), found


def lines_reached(run, data):
    """Run a target; give the lines of the packages that it came by."""
    reached = set()

    def trace(frame, event, _):
        file = frame.f_code.co_filename
        if Path(file).parent.name not in INSTRUMENTED:
            return None
        reached.add((file, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return reached


def choose(name):
    """Keep the few inputs that reach together what was reached, the shortest first."""
    from targets import TARGETS

    run = TARGETS[name].run
    reached = set().union(*(lines_reached(run, data) for data in [*TARGETS[name].seeds, *kept(name)]))
    for data in sorted((file.read_bytes() for file in (CORPORA / name).iterdir()), key=len):
        if len(data) <= LONGEST_KEPT and (lines := lines_reached(run, data)) - reached:
            reached |= lines
            keep(name, [data])


def at_random(name, seconds):
    """Fuzz in this process; give figures, and the input that went wrong, if any."""
    from targets import TARGETS

    target, rng = TARGETS[name], random.Random()
    seeds = [*target.seeds, *kept(name)]
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for data in edited(seeds, rng.randbytes(64 * BYTES_PER_EDIT)):
            began = time.monotonic()
            count += 1
            try:
                target.run(data)
                assert time.monotonic() - began < SLOWEST, "too slow"
            except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
                traceback.print_exc()
                return (count, "", len(seeds)), [data]
    return (count, "", len(seeds)), []


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="targets; default: all")
    parser.add_argument("--minutes", type=float, default=10, help="for all together; default: 10")
    parser.add_argument("--keep", action="store_true", help="add inputs to the corpus (with atheris)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_guided(options.one, round(60 * options.minutes))
        return
    from targets import TARGETS

    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no target {' or '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = options.names or list(TARGETS)
    has_atheris = importlib.util.find_spec("atheris") is not None
    seconds = max(1, round(60 * options.minutes / len(names)))
    print("atheris" if has_atheris else "mutations at random (atheris is not installed)", end=", ")
    print(f"{seconds} s for each\n")
    print("| parser | inputs | branches reached | corpus | errors |\n|---|---|---|---|---|")
    wrong = 0
    for name in names:
        row, found = (guided if has_atheris else at_random)(name, seconds)
        keep(name, found)
        if options.keep and has_atheris:
            choose(name)
        wrong += len(found)
        print(f"| {' | '.join(map(str, (name, *row, len(found))))} |", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""The two lines that the README opens with, in a copy of the tree without anything prepared."""

from __future__ import annotations

import contextlib
import re

import pytest
from processes import ROOT, Program
from trees import copy_of_the_tree
from waiting import wait_until

SETTING_UP = 600.0
"""Seconds for making an environment, installing what the lock files name, and compiling."""


# A home that cannot be written to, as for a service account; nothing of the make that runs these tests; and
# compiled in a hurry.
SURROUNDINGS = {"HOME": "/nonexistent", "MAKEFLAGS": "", "PYTHONPATH": "", "VMRELAY_OPTIMIZE": "0"}


class MadeRelay(Program):
    """A relay that ``make run`` starts in a tree; ``form`` is the one that it names."""

    def __init__(self, tree):
        options = "--port 0 --bind 127.0.0.1"
        super().__init__("make", "-C", tree, "run", f"ARGS={options}", environment=SURROUNDINGS)
        self.hash = self.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})$", patience=SETTING_UP)[1]
        self.url = self.wait_for(r"Listening on (https://\S+)$")[1]
        self.form = self.wait_for(r"datagram path: ([\w ]+)")[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_of_the_tree(tmp_path_factory.mktemp("clone") / "vmrelay")


@pytest.fixture
def make_run(clone):
    """Start relays by ``make run``, one after the other."""
    with contextlib.ExitStack() as stack:

        def start():
            relay = MadeRelay(clone)
            stack.callback(relay.stop)
            return relay

        yield start


def compiled_forms(clone):
    return set(clone.glob(".cache/accelerated/[0-9a-f]*/"))


def test_make_run_sets_up_and_starts_the_relay(make_run, load):
    relay = make_run()
    figures = load(relay, "ping", "--dst", "10.0.2.2", "--count", 3)
    relay.stop()
    assert figures["intact"] == 3
    assert relay.form == "compiled accelerator"
    assert "the relay is shutting down" in relay.output


def test_changed_sources_run_at_once_and_are_compiled_for_the_next_start(clone, make_run):
    make_run().stop()
    before = compiled_forms(clone)
    changed = clone / "relay/announcement.py"
    changed.write_text(changed.read_text().replace("datagram path: {}", "changed, datagram path: {}"))
    at_once = make_run()
    at_once.stop()
    assert at_once.form == "pure Python"
    assert "changed, datagram path" in at_once.output
    wait_until(
        lambda: compiled_forms(clone) != before,
        lambda: "nothing was compiled in the background",
        every=0.2,
        patience=SETTING_UP,
    )
    next_time = make_run()
    next_time.stop()
    assert next_time.form == "compiled accelerator"
    assert "changed, datagram path" in next_time.output


def test_a_clone_that_was_moved_runs_as_before(clone, tmp_path):
    moved = clone.rename(tmp_path / "vm relay")
    try:
        relay = MadeRelay(moved)
        relay.stop()
        assert relay.form == "compiled accelerator"
    finally:
        moved.rename(clone)


def test_readme_opens_with_make_run_and_make_test():
    commands = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert commands[:2] == ["make run\n", "make test\n"]

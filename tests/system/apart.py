"""Two kernel guests of one relay, at different workers where it has several."""

from __future__ import annotations

from kernel_guest import KernelGuest
from worker_relays import Workers


def two_guests(relay, namespace, *options, first=()):
    """Give two guests, of different workers if the relay has several; ``first`` is for the first one only."""
    if isinstance(relay, Workers):
        return guests_apart(relay, namespace, *options, first=first)
    one = KernelGuest("one", relay, namespace, *options, *first)
    return [one, KernelGuest("two", relay, namespace, *options)]


def guests_apart(relay, namespace, *options, first=()):
    """Give two guests of different workers; ``relay`` is of several (``test_workers.Workers``)."""
    one = KernelGuest("one", relay, namespace, *options, *first)
    for _ in range(20):
        two = KernelGuest("two", relay, namespace, *options)
        if relay.worker_of(one.address) != relay.worker_of(two.address):
            return [one, two]
        two.leave()  # the kernel chose the same worker: another connection may be another's
    raise AssertionError("all connections went to one worker")

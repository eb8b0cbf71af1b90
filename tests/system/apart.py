"""Kernel guests at different workers of one relay."""

from __future__ import annotations

from kernel_guest import KernelGuest


class PatientGuest(KernelGuest):
    """One that waits for slow answers: ping gives up after an interval, or twice the slowest round trip."""

    def ping(self, destination, *options, count=5):
        return super().ping(destination, *options, "-i", "0.3", count=count)


def guests_apart(relay, namespace, *options):
    """Give two guests of different workers; ``relay`` is of several (``test_workers.Workers``)."""
    one = PatientGuest("one", relay, namespace, *options)
    for _ in range(20):
        two = PatientGuest("two", relay, namespace, *options)
        if _worker_of(relay, one) != _worker_of(relay, two):
            return [one, two]
        two.leave()  # the kernel chose the same worker: another connection may be another's
    raise AssertionError("all connections went to one worker")


def _worker_of(relay, guest):
    relay.wait_for(f'registered .* as {guest.address}"')
    return relay.worker_of(guest.address)

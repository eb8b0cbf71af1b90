"""A relay that is started again, under Linux kernels that know nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from random import Random

import pytest
from kernel_guest import KernelGuest
from processes import Relay
from waiting import until

from guest.vm_client import vm_client

FIRST, SECOND = "52:54:15:ee:00:01", "52:54:15:ee:00:f6"
"""MACs that have one place in the pool, so whoever comes first decides about both addresses."""
PLACE = "10.0.2.10"
AT_ONCE = 3
"""Seconds. Had holders to be asked first, that alone would take 1.5 s for each."""


class UnconfiguredGuest(KernelGuest):
    """One whose kernel keeps the address that it was told first, as one with a lease of DHCP does."""

    def _command(self, relay, options):
        return tuple(word for word in super()._command(relay, options) if word != "--configure")

    def _settle(self):
        super()._settle()
        self.run("ip", "address", "add", f"{self.address}/24", "dev", self.device)
        self.run("ip", "route", "add", "default", "via", self.gateway)

    def signal(self, number):
        self._attached.signal(number)

    def wait_until_back(self):
        self._attached.wait_for("attached to ", count=2)

    def is_answered_by(self, address):
        """Whether a ping is answered at once, and those after it are."""
        first = self.run("ping", "-n", "-c", 1, "-i", "0.1", "-w", AT_ONCE, address, check=False)
        return first.returncode == 0 and self.ping(address)[0] == 5


@pytest.mark.parametrize("kept", [True, False], ids=["with state", "without"])
def test_kernels_go_on_with_their_addresses_whoever_comes_back_first(
    relay_namespace, certificate_options, tmp_path, kept
):
    state = tmp_path / "state"
    options = (*certificate_options, "--state", state)
    relay = Relay(*options, before=relay_namespace.prefix)
    guests = [
        UnconfiguredGuest(role, relay, relay_namespace, "--mac", mac)
        for role, mac in (("one", FIRST), ("two", SECOND))
    ]
    one, two = guests
    try:
        assert one.address == PLACE != two.address
        assert [guest.ping(one.gateway)[0] for guest in guests] == [5, 5]
        one.signal(signal.SIGSTOP)
        relay.signal(signal.SIGTERM)  # which clients hear; after a kill they would find out in seconds
        relay.wait()
        if not kept:
            shutil.rmtree(state)
        relay.stop()
        relay = Relay(*options, "--port", relay.port, before=relay_namespace.prefix)
        two.wait_until_back()
        assert two.is_answered_by(two.gateway)
        one.signal(signal.SIGCONT)
        one.wait_until_back()
        assert one.is_answered_by(one.gateway)
        assert two.is_answered_by(one.address)
        assert one.is_answered_by(two.address)
        assert relay.counters()["gateway.addresses_moved"] == 0, "nobody had to be asked"
        assert "Traceback" not in relay.output
    finally:
        for guest in guests:
            guest.signal(signal.SIGCONT)
            guest.leave()
        relay.stop()


def test_guests_have_their_addresses_again_from_a_relay_that_has_lost_all(certificate_options):
    """With MACs at random, of which some have one place in the pool, and in whatever order they come back."""
    random = Random(7)
    macs = [b"\x52\x54\0" + random.randbytes(3) for _ in range(30)]

    async def scenario():
        relay = Relay(*certificate_options, "--client-share", 0, "--state", "none")
        try:
            async with contextlib.AsyncExitStack() as stack:
                nics = [
                    await stack.enter_async_context(
                        vm_client(relay.url, cert_hash=relay.hash, mac=mac, reconnect=True)
                    )
                    for mac in macs
                ]
                before = [nic.assigned.ip for nic in nics]
                sessions = [nic._session for nic in nics]
                relay.signal(signal.SIGINT)  # which clients hear
                relay.wait()
                relay.stop()
                relay = Relay(
                    *certificate_options, "--client-share", 0, "--state", "none", "--port", relay.port
                )
                await until(
                    lambda: all(
                        nic.attached and nic._session is not session
                        for nic, session in zip(nics, sessions, strict=True)
                    )
                )
                assert [nic.assigned.ip for nic in nics] == before
        finally:
            relay.stop()

    asyncio.run(scenario())


def test_a_restarted_relay_shows_the_same_certificate(tmp_path):
    hashes = set()
    for _ in range(2):
        relay = Relay("--state", tmp_path)
        hashes.add(relay.hash)
        relay.signal(signal.SIGKILL)
        relay.wait()
        relay.stop()
    assert len(hashes) == 1


def test_two_relays_start_side_by_side_as_they_are(tmp_path):
    """Each with its own state, or the second without; in no case with a warning."""
    home = {"VMRELAY_STATE": "auto", "XDG_STATE_HOME": str(tmp_path)}
    relays = [Relay(environment=home) for _ in range(2)]
    for relay in relays:
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        relay.stop()
        assert '"level": "WARNING"' not in relay.output.replace('"WARNING", "message": "guests cannot', "")
    assert "another relay is using this folder" in relays[1].output
    assert relays[0].hash != relays[1].hash

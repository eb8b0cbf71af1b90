"""Linux kernels as guests: a namespace whose only NIC is a TAP device on the relay's LAN."""

from __future__ import annotations

import re
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path

from namespaces import Namespace
from processes import PATIENCE, ROOT
from waiting import wait_until

TCP_TIME_WAIT, TCP_LISTEN = "06", "0A"
"""As the kernel writes them in /proc/net/tcp."""


def mac_of(role):
    """Give the MAC of a guest, the same in every run.

    Addresses follow from MACs: with one by chance a guest would at times be given what a test takes by hand.
    """
    return "52:54:00:" + blake2b(role.encode(), digest_size=3).digest().hex(":")


_roles: Counter[str] = Counter()
"""How many guests of this module have had which role."""


def forget_roles():
    """Have the guests of a module of tests not depend on those before it."""
    _roles.clear()


def _next_mac_of(role):
    _roles[role] += 1
    return mac_of(role if _roles[role] == 1 else f"{role} {_roles[role]}")


class KernelGuest:
    """A namespace with a TAP device that ``vmrelay attach`` bridges."""

    device = "tap0"

    def __init__(self, role, relay, relay_namespace, *options):
        self.namespace = Namespace(role)
        self.mac = _next_mac_of(role)
        self._attached = relay_namespace.start(*self._command(relay, options))
        self._settle()

    def _command(self, relay, options):
        return (
            *(sys.executable, "-m", "relay.main", "attach", "--tap", self.device, "--configure"),
            *("--netns", self.namespace.name, "--cert-hash", relay.hash),
            *("--mac", self.mac, *options, relay.url),
        )

    def _settle(self):
        found = self._attached.wait_for(r"attached to \S+ as (\S+), address ([\d.]+)/\d+, gateway ([\d.]+)")
        self.mac, self.address, self.gateway = found.groups()

    def run(self, *command, **options):
        return self.namespace.run(*command, **options)

    def start(self, *command):
        return self.namespace.start(*command)

    def ping(self, destination, *options, count=5, errors_end_it=True):
        """Ping and give (how many of ``count`` requests were answered, whole output).

        With a deadline ping waits for answers that are late, and asks again meanwhile, which is not counted;
        without one it waits for two round trips only, once it had an answer, but goes on after errors.
        """
        patience = ("-i", "0.05", "-w", 5) if errors_end_it else ("-i", "0.3", "-W", 5)
        words = ("ping", "-n", "-c", count, *patience, *options, destination)
        done = self.run(*words, check=False)
        answered = {int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", done.stdout)}
        return sum(number <= count for number in answered), done.stdout

    def wait_until_quiet(self, *, patience=PATIENCE):
        """Wait until nothing of earlier tests comes any more: no connection goes on, all frames are there."""
        wait_until(lambda: not self._goes_on(), lambda: "there are connections still", patience=patience)
        # Its answer comes behind all that was on its way, in both directions.
        assert self.ping(self.gateway, count=1)[0] == 1

    def speak_only_when_asked(self):
        """Have the kernel say nothing by itself any more, as for IPv6; what it said has arrived then."""
        self.run("sysctl", "-q", "-w", f"net.ipv6.conf.{self.device}.disable_ipv6=1")
        assert self.ping(self.gateway, count=1)[0] == 1

    def _goes_on(self):
        with self.namespace.entered():
            sockets = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[3] not in (TCP_TIME_WAIT, TCP_LISTEN) for line in sockets)

    def wait_for_news(self, pattern, **options):
        return self._attached.wait_for(pattern, **options)

    def leave(self):
        self._attached.stop()
        self.namespace.delete()


class RawKernelGuest(KernelGuest):
    """One with the raw encapsulation, which assigns nothing: it takes ``address`` by hand."""

    address, gateway = "10.0.2.200", "10.0.2.2"

    def _command(self, relay, options):
        return (
            *(sys.executable, "-m", "relay.main", "attach", "--tap", self.device, "--encap", "raw"),
            *("--netns", self.namespace.name, "--cert-hash", relay.hash),
            *("--mac", self.mac, *options, relay.url),
        )

    def _settle(self):
        self.mac = self._attached.wait_for(r"attached to \S+ as (\S+)")[1]
        self.run("ip", "address", "add", f"{self.address}/24", "dev", self.device)
        self.run("ip", "route", "add", "default", "via", self.gateway)


class WebSocketKernelGuest(KernelGuest):
    """One whose session is a WebSocket."""

    def _command(self, relay, options):
        url = relay.url.replace("https:", "wss:")
        script = ROOT / "tests/system/websocket_tap.py"
        return (
            *("env", f"PYTHONPATH={ROOT}", sys.executable, script),
            *(self.device, self.namespace.name, url, *options),
        )

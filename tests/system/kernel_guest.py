"""A Linux kernel as a guest: a namespace whose only NIC is a TAP device that ``vmrelay attach`` bridges."""

from __future__ import annotations

import re
import sys

from namespaces import Namespace


class KernelGuest:
    """A namespace with a TAP device on the relay's LAN."""

    device = "tap0"

    def __init__(self, role, relay, relay_namespace, *options):
        self.namespace = Namespace(role)
        self._attached = relay_namespace.start(
            *(sys.executable, "-m", "relay.main", "attach", "--tap", self.device, "--configure"),
            *("--netns", self.namespace.name, "--cert-hash", relay.hash, *options, relay.url),
        )
        found = self._attached.wait_for(r"attached to \S+ as (\S+), address ([\d.]+)/24, gateway ([\d.]+)")
        self.mac, self.address, self.gateway = found.groups()

    def run(self, *command, **options):
        return self.namespace.run(*command, **options)

    def start(self, *command):
        return self.namespace.start(*command)

    def ping(self, destination, *options, count=5):
        """Ping and give (replies, whole output)."""
        done = self.run("ping", "-n", "-c", count, "-i", "0.05", "-W", 5, *options, destination, check=False)
        return int(re.search(r"(\d+) received", done.stdout)[1]), done.stdout

    def wait_for_news(self, pattern, **options):
        return self._attached.wait_for(pattern, **options)

    def leave(self):
        self._attached.stop()
        self.namespace.delete()

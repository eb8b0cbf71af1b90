"""A relay and those who operate it: they ask its admin API, by the commands that people type."""

from __future__ import annotations

import json
import sys

from processes import PATIENCE, Relay, run
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from guest.relay_socket import RelaySocket

GATEWAY, GATEWAY_MAC = "10.0.2.2", "52:54:00:12:34:56"
GUEST_MAC = "52:54:00:00:77:01"


def pings(guest, count=1):
    """Have a guest (a RelayPeer) ping the gateway, and wait for the answers: what came before is handled."""
    with RelaySocket(guest) as one:
        packet = IP(src=str(guest.assigned.ip), dst=GATEWAY) / ICMP()
        for _ in range(count):
            assert one.sr1(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet, timeout=PATIENCE, verbose=0)


class OperatedRelay(Relay):
    """A relay of this tree whose admin socket is in a folder of the test's."""

    def __init__(self, folder, *options):
        self.admin = folder / "admin.sock"
        super().__init__("--admin", self.admin, *options)

    def vmrelay(self, command, *words, status=0):
        """Run a command on it; give what it printed, or what it complained of where it fails as expected."""
        done = run(*(sys.executable, "-m", "relay.main", command, "--admin", self.admin), *words, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def asked(self, command, *words):
        """Run a command on it; give what it answers."""
        return json.loads(self.vmrelay(command, *words, "--json"))

    def explained(self, *words):
        """Ask ``vmrelay why``; give the steps, whose verdict its exit status tells too."""
        command = (sys.executable, "-m", "relay.main", "why", "--admin", self.admin, "--json", *words)
        done = run(*command, check=False)
        steps = json.loads(done.stdout)
        assert done.returncode == (0 if all(step["ok"] for step in steps) else 1)
        return steps

    def stop(self):
        super().stop()
        assert "Traceback" not in self.output

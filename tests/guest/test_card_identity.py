"""Guests with the MAC that QEMU gives by itself, which is the gateway's, by whatever client they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import sys

import pytest
from namespaces import Namespace
from processes import PATIENCE, Program
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from guest import card_identity
from guest.nic_changes import Readdressed
from guest.relay_socket import RelayPeer, RelaySocket
from guest.vm_client import vm_client
from netstack.mac_rewriter import QEMU_DEFAULT

DEFAULT = QEMU_DEFAULT.hex(":")
SECOND = "52:54:00:12:34:57"
BROADCAST = "ff:ff:ff:ff:ff:ff"
GATEWAY = "10.0.2.2"
DEVICE = "t-default0"
ATTACHED = r": attached to \S+ as (\S+), address ([\d.]+)/24"
READDRESSED = r": (\S+) is QEMU's default MAC, which others have too: on the LAN this guest is (\S+)$"


def attach(relay, *options):
    return Program(
        *(sys.executable, "-m", "relay.main", "attach", "--cert-hash", relay.hash, *options, relay.url)
    )


def question(mac=DEFAULT, address="10.0.2.99"):
    return bytes(Ether(src=mac, dst=BROADCAST) / ARP(hwsrc=mac, psrc=address, pdst=GATEWAY))


class Machine:
    """A QEMU machine as far as its socket tells, behind an ``attach`` of its own."""

    def __init__(self, relay, path, mode, *options):
        self.mode = mode
        kind = socket.SOCK_DGRAM if mode == "dgram" else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.settimeout(PATIENCE)
        if mode == "connect":
            self._socket.bind(str(path))
            self._socket.listen()
        self.program = attach(relay, "--qemu", path, "--qemu-mode", mode, *options)
        try:
            if mode == "connect":
                listener, (self._socket, _) = self._socket, self._socket.accept()
                listener.close()
                self._socket.settimeout(PATIENCE)
            else:
                self.program.wait_for("waiting for QEMU")
                if mode == "dgram":
                    self._socket.bind(f"{path}.vm")
                self._socket.connect(str(path))
        except BaseException:
            self.close()
            raise
        self._stream = self._socket.makefile("rb") if mode != "dgram" else None

    def send(self, frame):
        self._socket.send(frame if self._stream is None else len(frame).to_bytes(4, "big") + frame)

    def receive(self):
        if self._stream is None:
            return self._socket.recv(1 << 16)
        return self._stream.read(int.from_bytes(self._stream.read(4), "big"))

    def answer(self, wanted):
        """The first frame that comes for which ``wanted(packet)``."""
        while not wanted(packet := Ether(self.receive())):
            pass
        return packet

    def close(self):
        self._socket.close()
        self.program.stop()


@pytest.mark.parametrize("mode", ["listen", "connect", "dgram"])
@pytest.mark.parametrize("mac", [DEFAULT, SECOND])
def test_two_machines_with_the_default_get_on_and_do_not_collide(live_relay, tmp_path, mode, mac):
    with contextlib.ExitStack() as stack:
        seen = []
        for number in range(2):
            machine = Machine(live_relay, tmp_path / f"nic{number}", mode)
            stack.callback(machine.close)
            machine.send(question(mac))
            guest, lan = machine.program.wait_for(READDRESSED).groups()
            attached, address = machine.program.wait_for(ATTACHED).groups()
            assert (guest, lan) == (mac, attached)
            machine.send(question(mac, address))
            found = machine.answer(lambda p, address=address: ARP in p and p[ARP].pdst == address)
            # Each sees itself under its own MAC and the gateway under another one.
            assert (found.dst, found[ARP].hwdst) == (mac, mac)
            assert found.src == found[ARP].hwsrc != mac
            ping = Ether(src=mac, dst=found.src) / IP(src=address, dst=GATEWAY) / ICMP(id=number)
            machine.send(bytes(ping))
            assert machine.answer(lambda p: ICMP in p)[ICMP].type == 0
            seen.append((lan, address))
            said = machine.program.output
            assert said.count("QEMU's default") == said.count("attached to") == 1
        assert len({lan for lan, _ in seen} | {mac}) == 3
        assert len({address for _, address in seen}) == 2


def test_a_machine_that_comes_again_has_the_same_mac_and_address(live_relay, tmp_path):
    seen = []
    for _ in range(2):
        machine = Machine(live_relay, tmp_path / "nic", "listen")
        try:
            machine.send(question())
            seen.append(machine.program.wait_for(ATTACHED).groups())
        finally:
            machine.close()
    assert seen[0] == seen[1]


def test_a_mac_that_the_user_chose_is_taken(live_relay, tmp_path):
    chosen = "52:54:00:00:60:01"
    machine = Machine(live_relay, tmp_path / "nic", "listen", "--mac", chosen)
    try:
        assert machine.program.wait_for(ATTACHED)[1] == chosen
        machine.send(question())
        assert machine.program.wait_for(READDRESSED).groups() == (DEFAULT, chosen)
        assert machine.answer(lambda p: ARP in p)[ARP].hwdst == DEFAULT
    finally:
        machine.close()


def test_a_chosen_successor_of_the_default_stays_and_the_gateways_does_not(live_relay, tmp_path):
    for chosen in (SECOND, DEFAULT):
        machine = Machine(live_relay, tmp_path / "nic", "listen", "--mac", chosen)
        try:
            registered = machine.program.wait_for(ATTACHED)[1]
            machine.send(question(chosen))
            assert machine.answer(lambda p: ARP in p)[ARP].hwdst == chosen
        finally:
            machine.close()
        assert (registered == chosen) is (chosen == SECOND)


# -- kernels ------------------------------------------------------------------------------------------

SETTLED = (
    "until ip -6 route show default | grep -q ra && ! ip -6 address show tentative | grep -q .; do :; done"
)


class Kernel:
    """A namespace whose device has the default MAC."""

    def __init__(self, relay, role, *options):
        self.namespace = Namespace(role)
        self.program = attach(
            relay, "--tap", DEVICE, "--netns", self.namespace.name, "--mac", DEFAULT, *options
        )

    def settle(self):
        self.mac, self.address = self.program.wait_for(ATTACHED).groups()
        self.namespace.run("sh", "-c", SETTLED)
        return self

    def reaches(self, *where):
        done = self.namespace.run("ping", "-n", "-c", 2, "-i", "0.05", "-W", 5, *where, check=False)
        assert " 2 received" in done.stdout, done.stdout

    def inet6(self):
        done = self.namespace.run("ip", "-j", "-6", "address", "show", "dev", DEVICE)
        (found,) = json.loads(done.stdout)
        for one in found["addr_info"]:
            assert not one.get("dadfailed"), one
        return {one["scope"]: one["local"] for one in found["addr_info"]}

    def close(self):
        self.program.stop()
        self.namespace.delete()


def test_two_kernels_with_the_default_use_both_versions_of_ip(live_relay):
    with contextlib.ExitStack() as stack:
        pair = []
        for role in ("one", "two"):
            kernel = Kernel(live_relay, role, "--configure")
            stack.callback(kernel.close)
            pair.append(kernel.settle())
        one, two = pair
        assert len({one.mac, two.mac, DEFAULT}) == 3
        for kernel in pair:
            (link,) = json.loads(kernel.namespace.run("ip", "-j", "link", "show", "dev", DEVICE).stdout)
            assert link["address"] == DEFAULT
            addresses = kernel.inet6()
            assert addresses["link"] == "fe80::5054:ff:fe12:3456"
            assert addresses["global"].endswith(":5054:ff:fe12:3456")
            (route,) = json.loads(kernel.namespace.run("ip", "-j", "-6", "route", "show", "default").stdout)
            kernel.reaches(GATEWAY)
            kernel.reaches("-s", "2000", f"{route['gateway']}%{DEVICE}")
            prefix = addresses["global"].partition(":5054:")[0]
            kernel.reaches(f"{prefix}::2")
        # The LAN's view of an address: with the identifier of the MAC that the guest has there.
        a, b, c, d, e, f = bytes.fromhex(two.mac.replace(":", ""))
        identifier = f"{a ^ 2:02x}{b:02x}:{c:02x}ff:fe{d:02x}:{e:02x}{f:02x}"
        one.reaches(two.address)
        one.reaches(f"{prefix}:{identifier}")
        one.reaches(f"fe80::{identifier}%{DEVICE}")


def test_a_machine_with_the_default_behind_a_bridge_gets_on(live_relay):
    """A TAP device and a cable to another namespace on one bridge, as QEMU's own TAP devices are."""
    host, inner = Namespace("bridge"), Namespace("inner")
    program = attach(live_relay, "--tap", DEVICE, "--netns", host.name)
    try:
        program.wait_for(ATTACHED)
        host.run("ip", "link", "add", "br0", "type", "bridge")
        host.run("ip", "link", "add", "cable", "type", "veth", "peer", "eth0", "netns", inner.name)
        inner.run("ip", "link", "set", "eth0", "address", DEFAULT)
        for device in (DEVICE, "cable"):
            host.run("ip", "link", "set", device, "master", "br0")
        for namespace, device in ((host, "br0"), (host, "cable"), (inner, "eth0")):
            namespace.run("ip", "link", "set", device, "up")
        script = "examples/v86/address"
        inner.run("busybox", "udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "20", "-T", "1")
        (link,) = json.loads(inner.run("ip", "-j", "address", "show", "dev", "eth0").stdout)
        assert any(one["family"] == "inet" for one in link["addr_info"])
        done = inner.run("ping", "-n", "-c", 2, "-i", "0.05", "-W", 5, GATEWAY)
        assert " 2 received" in done.stdout
        assert program.wait_for(READDRESSED)[1] == DEFAULT
    finally:
        program.stop()
        host.delete()
        inner.delete()


# -- Python -------------------------------------------------------------------------------------------


def test_a_nic_with_the_default_registers_another_one(live_relay):
    async def scenario():
        told = []
        async with vm_client(
            live_relay.url, cert_hash=live_relay.hash, mac=DEFAULT, on_change=told.append
        ) as nic:
            assert nic.mac != QEMU_DEFAULT
            assert told[0] == Readdressed(QEMU_DEFAULT, nic.mac)
            assert nic.assigned is not None
            nic.send([question(address=str(nic.assigned.ip))])
            async with asyncio.timeout(PATIENCE):
                while True:
                    for packet in map(Ether, await nic.recv_batch()):
                        if ARP in packet and packet[ARP].hwdst == DEFAULT:
                            assert packet[ARP].hwsrc == nic.mac.hex(":")
                            return

    asyncio.run(scenario())


@pytest.mark.parametrize("encap", ["framed", "raw"])
def test_frames_of_others_with_the_default_are_rewritten(live_relay, encap):
    async def scenario():
        told = []
        async with vm_client(live_relay.url, insecure=True, encap=encap, on_change=told.append) as nic:
            async with asyncio.timeout(PATIENCE):
                while True:
                    nic.send([question()])
                    with contextlib.suppress(TimeoutError):
                        frames = await asyncio.wait_for(nic.recv_batch(), 0.5)
                        if any(ARP in p and p[ARP].hwdst == DEFAULT for p in map(Ether, frames)):
                            break
        assert [type(change) for change in told].count(Readdressed) == 1

    asyncio.run(scenario())


def test_scapy_with_the_default_gets_an_address_and_reaches_the_gateway(live_relay):
    with RelaySocket(live_relay.url, insecure=True, mac=DEFAULT) as one:
        own = {"hwsrc": one.peer.mac, "psrc": str(one.peer.assigned.ip)}
        asked = Ether(src=one.peer.mac, dst=BROADCAST) / ARP(pdst=GATEWAY, **own)
        assert one.sr1(asked, timeout=PATIENCE, verbose=0)[ARP].hwsrc == DEFAULT


def test_forged_frames_leave_as_they_are_for_who_wants_that(fresh_relay):
    peer = RelayPeer(fresh_relay.url, insecure=True, rewriter=False)
    try:
        peer.send(question())
        fresh_relay.wait_for(f"{DEFAULT} is the gateway's MAC")
    finally:
        peer.close()
    assert fresh_relay.counters()["switch.drop.gateway_source"] == 1


# -- clients that know nothing of this ----------------------------------------------------------------


def test_a_raw_websocket_whose_guest_has_the_gateways_mac_is_told_why_it_ends(live_relay):
    async def scenario():
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        url = f"wss://127.0.0.1:{live_relay.port}/raw"
        async with websocket(url, ssl=trust, open_timeout=PATIENCE) as client:
            await client.send(question())
            with pytest.raises(ConnectionClosed) as ended:
                await asyncio.wait_for(client.recv(), PATIENCE)
        assert ended.value.rcvd.code == 4008
        assert re.match(f"{DEFAULT} is the gateway's MAC: give the guest another", ended.value.rcvd.reason)

    asyncio.run(scenario())


def test_a_card_is_told_from_others_and_known_again(tmp_path, monkeypatch):
    ids = tmp_path / "machine-id"
    monkeypatch.setattr(card_identity, "MACHINE_IDS", (tmp_path / "absent", ids))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    names = []
    for machine in ("1\n", "2\n"):
        ids.write_text(machine)
        names += [card_identity.of_socket(str(folder / name)) for folder in folders for name in ("x", "y")]
        names += [card_identity.of_device(name, folder) for folder in folders for name in ("x", "y")]
    assert len(set(names)) == 16
    assert card_identity.of_socket(str(folders[1] / "y")) == names[11]
    # Another folder of the same name, as in another container.
    folders[1].rename(tmp_path / "c")
    folders[1].mkdir()
    assert card_identity.of_socket(str(folders[1] / "y")) != names[11]

"""``vmrelay attach``: a TAP device or a QEMU machine's network card on a relay's LAN.

Either is one NIC of the LAN: its MAC is registered, frames go both ways, and a lost session is replaced for
as long as the command runs. A TAP device makes this machine's kernel a guest like any other: in a network
namespace of its own it makes that namespace the guest; put on a bridge it brings in what else is there. A
QEMU machine comes over a unix socket, which takes no privileges. Guests with QEMU's default MACs, behind
either, get MACs of their own on the LAN.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any, Protocol

from guest import card_identity, client_arguments
from guest.client import ConnectError
from guest.nic_changes import Attached, Change, Detached, Draining, Readdressed, Resized
from guest.qemu import MODES, QemuError, open_socket
from guest.resolver import Resolver
from guest.tap import Tap, TapError, namespace_path
from guest.vm_client import VirtualNic, choose_kind, vm_client
from netstack.counters import Counters
from netstack.encapsulation import Kind
from netstack.ethernet import LAN_MTU, format_mac, is_station, parse_mac
from netstack.ipv4 import MIN_IPV4_MTU
from netstack.mac_rewriter import MacRewriter, is_qemu_default
from netstack.room_names import DEFAULT_ROOM
from transport.host import early_signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from ipaddress import IPv4Address

    from guest.qemu import QemuSocket

TAP_OPTIONS = ("netns", "mtu", "configure")
"""Options that say something about the device, and nothing about a card of QEMU's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay attach``."""
    client_arguments.add_arguments(parser, several=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tap", metavar="NAME", help="name of the TAP device; made unless it is there")
    what.add_argument("--qemu", metavar="PATH", help="unix socket of a QEMU machine's -netdev; needs no root")
    parser.add_argument(
        "--qemu-mode",
        choices=MODES,
        help="listen (the default) for QEMU's stream with server=off, connect for server=on, or dgram, "
        "for the datagram sockets of vfkit, krunkit and libkrun too",
    )
    parser.add_argument(
        "--netns", metavar="NAME", help="make the device in this network namespace (see ip-netns)"
    )
    parser.add_argument(
        "--mtu",
        type=int,
        metavar="BYTES",
        help="MTU of the device (default: what the relay says, or else what its frames can carry)",
    )
    parser.add_argument(
        "--configure",
        action="store_true",
        help="give the device the address that the relay assigns, a default route, and its name "
        "server to the namespace of --netns or to systemd-resolved",
    )


def run(args: argparse.Namespace) -> int:
    """Attach until a signal ends it; return the exit status."""
    try:
        return asyncio.run(_until_signal(args))
    except (TapError, QemuError, ValueError) as error:
        return _complain(str(error), 2)
    except ConnectError as error:
        return _complain(str(error), 1)


def _complain(message: str, status: int) -> int:
    print(f"vmrelay: error: {message}", file=sys.stderr)  # noqa: T201
    return status


async def _until_signal(args: argparse.Namespace) -> int:
    """Attach until SIGTERM, SIGINT or SIGHUP; the NIC says goodbye on its way out."""
    attached = asyncio.create_task(_attach(args))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            asyncio.get_running_loop().add_signal_handler(number, attached.cancel)
        if early_signals.came(number):
            attached.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attached
    return 0


async def _attach(args: argparse.Namespace) -> None:
    _, kind = choose_kind(args.url[0], args.encap)
    if args.configure and kind is Kind.RAW:
        raise ValueError("--configure needs the framed encapsulation; the raw one assigns no addresses")
    if args.mtu is not None and not MIN_IPV4_MTU <= args.mtu <= LAN_MTU:
        raise ValueError(f"--mtu must be from {MIN_IPV4_MTU} to {LAN_MTU}")
    counters = Counters()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _print_counters, counters)
    if early_signals.came(signal.SIGUSR1):
        _print_counters(counters)
    if args.qemu is None:
        if args.qemu_mode is not None:
            raise ValueError("--qemu-mode goes with --qemu")
        await _attach_tap(args, client_arguments.client_options(args), counters)
    else:
        for option in TAP_OPTIONS:
            if getattr(args, option):
                raise ValueError(f"--{option} goes with --tap; a QEMU guest sets its card up by itself")
        await _attach_qemu(args, client_arguments.client_options(args), counters)


def _print_counters(counters: Counters) -> None:
    print("counters:", json.dumps(counters, sort_keys=True), flush=True)  # noqa: T201


async def _attach_tap(args: argparse.Namespace, options: dict[str, Any], counters: Counters) -> None:
    tap = Tap(args.tap, counters, args.netns)
    teller = _Teller(tap.name)
    resolver = Resolver(tap.name, args.netns, teller.say)
    try:
        if args.mac is not None:
            tap.set_mac(parse_mac(args.mac))
        tap.bring_up()
        device = _Device(tap, resolver, teller, args)
        async with vm_client(
            args.url,
            mac=device.lan_mac,
            reconnect=True,
            patient=True,
            on_change=device.on_change,
            rewriter=device.rewriter,
            counters=counters,
            **options,
        ) as nic:
            await _carry_frames(tap, nic)
    finally:
        resolver.close()
        tap.close()


async def _attach_qemu(args: argparse.Namespace, options: dict[str, Any], counters: Counters) -> None:
    teller = _Teller(args.qemu)
    port = open_socket(args.qemu, args.qemu_mode or "listen", counters, teller.say)
    chosen = None if args.mac is None else parse_mac(args.mac)
    rewriter = MacRewriter(
        card_identity.of_socket(args.qemu), chosen, lambda *macs: teller.say(str(Readdressed(*macs)))
    )
    try:
        guest, frames = (chosen, []) if chosen is not None else await _first_frames(port)
        mac = rewriter.lan_mac(guest)
        async with vm_client(
            args.url,
            mac=mac,
            reconnect=True,
            patient=True,
            on_change=lambda change: teller.tell(change, mac),
            rewriter=rewriter,
            counters=counters,
            **options,
        ) as nic:
            nic.send(frames)
            await _carry_frames(port, nic)
    finally:
        port.close()


async def _first_frames(port: QemuSocket) -> tuple[bytes, list[bytes]]:
    """Wait for the guest to speak; return its MAC and the frames that show it."""
    while True:
        frames = await port.read()
        for frame in frames:
            source = frame[6:12]
            if is_station(source):
                return source, frames


class _Port(Protocol):
    """Where frames of this machine come from and go to."""

    async def read(self) -> list[bytes]: ...

    def write(self, frames: Sequence[bytes]) -> None: ...


async def _carry_frames(port: _Port, nic: VirtualNic) -> None:
    """Carry frames both ways. Raises TapError when the device is gone."""
    ways = [asyncio.create_task(_to_relay(port, nic)), asyncio.create_task(_from_relay(nic, port))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            way.result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _to_relay(port: _Port, nic: VirtualNic) -> None:
    while True:
        nic.send(await port.read())
        # While the relay takes no more, frames wait in the kernel's queue, where the sender's TCP notices.
        await nic.wait_writable()


async def _from_relay(nic: VirtualNic, port: _Port) -> None:
    async for frames in nic:
        port.write(frames)


class _Teller:
    """Tells the user what has changed, one line each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = ""

    def tell(self, change: Change, mac: bytes) -> None:
        """Say what has become of the session; the MTU is the device's affair."""
        if isinstance(change, Resized):
            return
        if isinstance(change, Readdressed):
            self.say(str(change))
            return
        if isinstance(change, Draining):
            when = "" if change.seconds is None else f", and ends this session in {change.seconds:g} s"
            self.say(f"the relay takes no new sessions{when}")
            return
        if isinstance(change, Detached):
            self.say(f"not attached: {change.reason}; trying again")
            return
        text = f"attached to {change.url} as {format_mac(mac)}"
        assigned = change.assigned
        if assigned is not None:
            text += f", address {assigned.interface}, gateway {assigned.gateway}, DNS {assigned.dns}"
            if assigned.room != DEFAULT_ROOM:
                text += f", room {assigned.room}"
        self.say(text)

    def say(self, text: str) -> None:
        """Print ``text`` unless it was the last thing said."""
        if text != self._said:
            self._said = text
            print(f"{self._name}: {text}", flush=True)  # noqa: T201


class _Device:
    """Keeps the device's settings in step with the NIC."""

    def __init__(self, tap: Tap, resolver: Resolver, teller: _Teller, args: argparse.Namespace) -> None:
        self._tap = tap
        self._resolver = resolver
        self._dns: tuple[IPv4Address, str] | None = None
        self._mtu: int | None = args.mtu
        self._configure: bool = args.configure
        self._teller = teller
        # Its own MAC was given to it on purpose; what is behind a bridge may be any QEMU.
        own = tap.mac if is_qemu_default(tap.mac) else None
        seed = card_identity.of_device(tap.name, namespace_path(args.netns))
        self.rewriter = MacRewriter(seed, own, lambda *macs: self._teller.say(str(Readdressed(*macs))))
        self.lan_mac = self.rewriter.lan_mac(tap.mac)

    def on_change(self, change: Change) -> None:
        """Set the device up for what has changed, and say so. Raises TapError."""
        if isinstance(change, Attached | Resized):
            self._tap.set_mtu(self._mtu or change.mtu)
        if isinstance(change, Attached) and self._configure and change.assigned is not None:
            self._tap.set_address(change.assigned.interface, change.assigned.gateway)
            self._set_dns(change.assigned.dns, change.assigned.domain)
        self._teller.tell(change, self.lan_mac)

    def _set_dns(self, server: IPv4Address, domain: str) -> None:
        if (server, domain) != self._dns:
            self._dns = (server, domain)
            self._resolver.set(server, domain)

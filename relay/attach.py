"""``vmrelay attach``: a TAP device on a relay's LAN, so that this machine's kernel is a guest like any other.

The device is one NIC of the LAN: its MAC is registered, frames go both ways, and a lost session is replaced
for as long as the command runs. In a network namespace of its own it makes that namespace the guest; put on
a bridge it brings in what else is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from netstack.counters import Counters
from netstack.encapsulation import Kind
from netstack.ethernet import LAN_MTU, format_mac, parse_mac
from relay import client_arguments
from relay.tap import Tap, TapError
from relay.vm_client import MIN_MTU, Change, Detached, VirtualNic, choose_kind, vm_client
from transport.client import ConnectError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay attach``."""
    client_arguments.add_arguments(parser)
    parser.add_argument(
        "--tap", metavar="NAME", required=True, help="name of the TAP device; made unless it is there"
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
        help="give the device the address that the relay assigns, and a default route",
    )


def run(args: argparse.Namespace) -> int:
    """Attach until a signal ends it; return the exit status."""
    try:
        return asyncio.run(_until_signal(args))
    except (TapError, ValueError) as error:
        return _complain(str(error), 2)
    except ConnectError as error:
        return _complain(str(error), 1)


def _complain(message: str, status: int) -> int:
    print(f"vmrelay: error: {message}", file=sys.stderr)  # noqa: T201
    return status


async def _until_signal(args: argparse.Namespace) -> int:
    """Attach until SIGTERM or SIGINT; the NIC says goodbye on its way out."""
    attached = asyncio.create_task(_attach(args))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, attached.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await attached
    return 0


async def _attach(args: argparse.Namespace) -> None:
    _, kind = choose_kind(args.url, args.encap)
    if args.configure and kind is Kind.RAW:
        raise ValueError("--configure needs the framed encapsulation; the raw one assigns no addresses")
    if args.mtu is not None and not MIN_MTU <= args.mtu <= LAN_MTU:
        raise ValueError(f"--mtu must be from {MIN_MTU} to {LAN_MTU}")
    counters = Counters()
    tap = Tap(args.tap, counters, args.netns)
    try:
        if args.mac is not None:
            tap.set_mac(parse_mac(args.mac))
        tap.bring_up()
        async with vm_client(
            args.url,
            mac=tap.mac,
            reconnect=True,
            patient=True,
            on_change=_Device(tap, args).on_change,
            counters=counters,
            **client_arguments.client_options(args),
        ) as nic:
            await _carry_frames(tap, nic)
    finally:
        tap.close()


async def _carry_frames(tap: Tap, nic: VirtualNic) -> None:
    """Carry frames both ways. Raises TapError when the device is gone."""
    ways = [asyncio.create_task(_from_kernel(tap, nic)), asyncio.create_task(_to_kernel(nic, tap))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            way.result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _from_kernel(tap: Tap, nic: VirtualNic) -> None:
    while True:
        nic.send(await tap.read())
        # While the relay takes no more, frames wait in the device's queue, where the kernel's TCP notices.
        await nic.wait_writable()


async def _to_kernel(nic: VirtualNic, tap: Tap) -> None:
    async for frames in nic:
        tap.write(frames)


class _Device:
    """Keeps the device's settings in step with the NIC and tells the user, one line per change."""

    def __init__(self, tap: Tap, args: argparse.Namespace) -> None:
        self._tap = tap
        self._mtu: int | None = args.mtu
        self._configure: bool = args.configure
        self._url: str = args.url
        self._said = ""

    def on_change(self, change: Change) -> None:
        """Set the device up for what has changed, and say so. Raises TapError."""
        if isinstance(change, Detached):
            self._say(f"not attached: {change.reason}; trying again")
            return
        self._tap.set_mtu(self._mtu or change.mtu)
        text = f"attached to {self._url} as {format_mac(self._tap.mac)}"
        assigned = change.assigned
        if assigned is not None:
            if self._configure:
                self._tap.set_address(assigned.interface, assigned.gateway)
            text += f", address {assigned.interface}, gateway {assigned.gateway}, DNS {assigned.dns}"
        self._say(text)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            print(f"{self._tap.name}: {text}", flush=True)  # noqa: T201

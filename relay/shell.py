"""``vmrelay shell``: interactive Python with scapy, on a running relay or as a guest of its LAN.

With a URL, scapy is a guest there; without, the shell attaches to the admin API of a relay of this user,
whose sessions, flows and frames are objects at the prompt. It runs on a terminal, or takes its program from a
file, from ``-c`` or standard input; it never listens anywhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from guest import client_arguments
from guest.client import ConnectError
from guest.nic_changes import Attached, Change
from netstack.counters import Counters
from netstack.room_names import DEFAULT_ROOM
from relay.admin import client as admin
from relay.admin.running import BANNER as RUNNING_BANNER
from relay.admin.running import RunningRelay
from relay.complaint import complain
from relay.console import interact, run_program
from transport.host import early_signals

if TYPE_CHECKING:
    import argparse

    from guest.relay_socket import RelayPeer

LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
SIGNAL_AGAIN = 0.1
"""Seconds that a signal may take until its handler runs."""

BANNER = """\
scapy on the LAN of {url} as {mac}{address}.
  srp1(Ether()/ARP(pdst=gateway), timeout=2)              who is the gateway?
  sr1(IP(dst=gateway)/ICMP(), timeout=2)                  ping it
  sniff(count=10, prn=lambda packet: packet.summary())    watch what comes
sock is a RelaySocket; address, gateway, mac, room and peer are there too. Ctrl-D leaves."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay shell``."""
    client_arguments.add_arguments(parser, url_is_optional=True)
    parser.add_argument("script", nargs="?", type=Path, help="Python file to run instead of asking")
    parser.add_argument("-c", dest="code", metavar="CODE", help="run this instead of asking, and exit")
    admin.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Open the shell or run the program; return the exit status."""
    try:
        program, source = _program(args)
    except OSError as error:
        return complain(f"{args.script}: {error.strerror or error}", 2)
    # Its remarks on the machine's own interfaces and libraries are of no interest here.
    logging.getLogger("scapy").setLevel(logging.ERROR)
    leaving = _Leaving()
    for number in LEAVE_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, leaving.leave)
    counters = Counters()
    signal.signal(signal.SIGUSR1, lambda *_: _print_counters(counters))
    if early_signals.came(signal.SIGUSR1):
        _print_counters(counters)
    shell: _Shell | None = None
    try:
        if args.url is None:
            return _run_on_relay(args, program, source)
        shell = _Shell(args, counters)
        return shell.run(program, source)
    except ValueError as error:
        return complain(error, 2)
    except (ConnectError, admin.AskError) as error:
        return complain(error, 2 if isinstance(error, admin.UsageError) else 1)
    finally:
        leaving.close()
        if shell is not None:
            shell.close()


def _program(args: argparse.Namespace) -> tuple[str | bytes | None, str]:
    """Find the program to run, and what it is called in tracebacks. Raises OSError.

    A file is left as it is: Python knows by its first lines how it is encoded (PEP 263).
    """
    if args.code is not None:
        return args.code, "<string>"
    if args.script is not None:
        return args.script.read_bytes(), str(args.script)
    return None, "<stdin>"


def _run_on_relay(args: argparse.Namespace, program: str | bytes | None, source: str) -> int:
    """Attach to a running relay; return the exit status. Raises AskError."""
    relay = RunningRelay(admin.connect(args))
    said = repr(relay)  # it answers
    names: dict[str, Any] = {"__name__": "__console__", "__doc__": None}
    exec("from scapy.all import *", names)  # noqa: S102 - the way to get what a star import gives
    names["conf"].verb = 0
    names["relay"] = relay
    if program is None and sys.stdin.isatty():
        interact(names, RUNNING_BANNER.format(relay=said))
        return 0
    return run_program(names, program, source)


def _print_counters(counters: Counters) -> None:
    # Standard output is the program's; and print is not reentrant, in the middle of which a handler may run.
    with contextlib.suppress(OSError):
        os.write(2, f"counters: {json.dumps(counters, sort_keys=True)}\n".encode())


class _Leaving:
    """Unwinds on a signal, so that the relay is told, also while the prompt waits for a key.

    CPython's readline looks for signals when its wait is interrupted, and not just before it: a signal that
    comes in between would wait for a key as well. So it is sent again until it has been seen.
    """

    def __init__(self) -> None:
        self._seen = threading.Event()
        receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        # Written to at once, by the signal itself, while its handler waits for the main thread.
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._insist, args=(receiver,), name="signals", daemon=True).start()

    def leave(self, number: int, _frame: object) -> NoReturn:
        """Handle the signal."""
        self._seen.set()
        sys.exit(128 + number)

    def close(self) -> None:
        """Leave signals alone again."""
        self._seen.set()
        signal.set_wakeup_fd(-1)
        self._sender.close()

    def _insist(self, receiver: socket.socket) -> None:
        main = threading.main_thread().ident
        with receiver:
            while numbers := receiver.recv(64):
                for number in LEAVE_SIGNALS:
                    while main is not None and number in numbers and not self._seen.wait(SIGNAL_AGAIN):
                        signal.pthread_kill(main, number)


class _Shell:
    """The names that code sees, kept in step with the session. Raises ValueError and ConnectError."""

    def __init__(self, args: argparse.Namespace, counters: Counters) -> None:
        from guest.relay_socket import RelayPeer, RelaySocket

        self.names: dict[str, Any] = {"__name__": "__console__", "__doc__": None}
        self._peer: RelayPeer | None = None
        self._peer = RelayPeer(
            args.url,
            mac=args.mac,
            on_change=self._changed,
            counters=counters,
            **client_arguments.client_options(args),
        )
        # After the peer, which may fail quickly: this takes most of a second.
        exec("from scapy.all import *", self.names)  # noqa: S102 - the way to get what a star import gives
        self.names["conf"].verb = 0
        self._sock = RelaySocket(self._peer)
        self.names |= {"RelaySocket": RelaySocket, "RelayPeer": RelayPeer, "peer": self._peer}
        self.names["sock"] = self._sock
        self._update(self._peer)

    def close(self) -> None:
        """Leave the LAN."""
        if self._peer is not None:
            self._sock.close()
            self._peer.close()

    def run(self, program: str | bytes | None, source: str) -> int:
        """Run ``program``, else standard input, or ask if that is a terminal; return the exit status."""
        if program is None and sys.stdin.isatty():
            address = self.names["address"]
            room = self.names["room"]
            at = (
                f", address {address}, gateway {self.names['gateway']}" if address else ", without an address"
            )
            at += f", room {room}" if room not in (None, DEFAULT_ROOM) else ""
            banner = BANNER.format(url=self.names["peer"].shown, mac=self.names["mac"], address=at)
            interact(self.names, banner)
            return 0
        return run_program(self.names, program, source)

    def _changed(self, change: Change) -> None:
        """Follow the session (from the peer's thread)."""
        if self._peer is not None and isinstance(change, Attached):
            self._update(self._peer)

    def _update(self, peer: RelayPeer) -> None:
        from guest.relay_socket import use_relay

        use_relay(peer)
        assigned = peer.assigned
        self.names |= {
            "mac": peer.mac,
            "address": str(assigned.ip) if assigned is not None else None,
            "gateway": str(assigned.gateway) if assigned is not None else None,
            "room": assigned.room if assigned is not None else None,
        }

"""``vmrelay capture``, ``trace`` and ``extcap``: what passes a running relay, for eyes and for Wireshark."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.admin import client
from relay.admin.recording import BlockError, Limits, Recorder, blocks
from relay.admin_place import find
from relay.printable import printable
from relay.setting_kinds import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_SIZE = 2**40
"""Bytes."""


def duration_of(text: str) -> float:
    """Read an argument that is a time."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    try:
        return parse_size(text, 1, MAX_FILE_SIZE)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def capture_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay capture``."""
    parser.add_argument(
        *("-w", "--write"),
        metavar="FILE",
        help="write pcapng there, - for standard output; without it packets are told in lines",
    )
    parser.add_argument("--room", metavar="NAME", help="of this room only")
    parser.add_argument("--peer", metavar="VM", help="of this session only: its port, name or address")
    parser.add_argument("--filter", metavar="EXPRESSION", help="in tcpdump's syntax, such as 'udp port 53'")
    parser.add_argument("--snaplen", type=int, metavar="BYTES", help="of each frame; all of them without it")
    parser.add_argument("--time", type=duration_of, default=0.0, metavar="TIME", help="end after this long")
    parser.add_argument(
        "--file-size",
        type=_size,
        default=0,
        metavar="SIZE",
        help="begin a file after so many bytes, such as 10M",
    )
    parser.add_argument(
        "--file-time", type=duration_of, default=0.0, metavar="TIME", help="or after this long"
    )
    parser.add_argument("--files", type=int, default=0, metavar="N", help="keep the latest of these")


def capture(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Record until interrupted, or for a time."""
    query = {
        "room": args.room,
        "filter": args.filter,
        "peer": None if args.peer is None else str(port_of(relay, args.peer)),
        "snaplen": None if args.snaplen is None else str(args.snaplen),
    }
    deadline = time.monotonic() + args.time if args.time else None
    with relay.stream("/v1/capture", query, deadline) as source:
        if args.write is None:
            _tell_packets(source)
        else:
            limits = Limits(args.file_size, args.files, args.time, args.file_time)
            _record(source, None if args.write == "-" else Path(args.write), limits)
    return ""


def port_of(relay: client.AdminClient, who: str) -> int:
    """Find a session by its port, name, address or MAC. Raises AskError."""
    if who.isdecimal():
        return int(who)
    found = [
        peer["port"]
        for peer in relay.ask("/v1/peers")
        if who.lower() in {peer["name"], peer["address"], peer["mac"]}
    ]
    if len(found) != 1:
        raise client.AskError(f"{'several sessions are' if found else 'no session is'} called {who[:80]}")
    return int(found[0])


def _record(source: Any, path: Path | None, limits: Limits) -> None:
    recorder = Recorder(path, limits)
    try:
        for kind, block in blocks(source):
            recorder.write(kind, block)
    except BrokenPipeError:
        pass  # whoever read it has enough
    except OSError as error:
        raise client.AskError(f"{path}: {error.strerror or error}") from None
    except BlockError as error:
        raise client.AskError(str(error)) from None
    finally:
        recorder.close()


def _tell_packets(source: client.Stream) -> None:
    from scapy.layers import dhcp, dns, inet6  # noqa: F401 - what packets are taken apart into
    from scapy.layers.l2 import Ether
    from scapy.utils import RawPcapNgReader

    for data, told in RawPcapNgReader(source):
        clock = time.strftime("%H:%M:%S", time.localtime((told.tshigh << 32 | told.tslow) / told.tsresol))
        said = b", ".join(told.comments or ()).decode(errors="replace")
        name = (told.ifname or b"").decode(errors="replace")
        arrow = {1: ">", 2: "<"}.get(told.direction, " ")
        comment = f"  # {said}" if said else ""
        print(printable(f"{clock} {name} {arrow} {Ether(data).summary()}{comment}"), flush=True)  # noqa: T201


def trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay trace``."""
    parser.add_argument("vm", help="the guest: its session's port, name, address or MAC")
    parser.add_argument("destination", help="address or name that it talks to")
    parser.add_argument("--time", type=duration_of, default=0.0, metavar="TIME", help="end after this long")


def trace(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Follow packets, a line for each decision."""
    query = {"peer": str(port_of(relay, args.vm)), "destination": args.destination}
    deadline = time.monotonic() + args.time if args.time else None
    with relay.stream("/v1/trace", query, deadline) as source:
        while line := source.readline():
            if args.json:
                print(line.decode().rstrip(), flush=True)  # noqa: T201
            else:
                print(printable(_told(json.loads(line))), flush=True)  # noqa: T201
    return ""


def _told(step: Mapping[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(step["time"]))
    decided = ", ".join(name if count == 1 else f"{count} {name}" for name, count in step["decided"].items())
    return f"{clock} {step['where']:<26} {step['frame']}{f'  => {decided}' if decided else ''}"


# -- Wireshark ----------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay extcap``, as Wireshark's extcap(4) has them."""
    parser.add_argument("--install", action="store_true", help="let Wireshark find this command")
    for flag in ("interfaces", "config", "dlts"):
        parser.add_argument(f"--extcap-{flag}", action="store_true", help=argparse.SUPPRESS)
    for flag in ("version", "interface", "capture-filter"):
        parser.add_argument(f"--extcap-{flag}", metavar="X", help=argparse.SUPPRESS)
    parser.add_argument("--capture", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fifo", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--room", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--peer", metavar="VM", help=argparse.SUPPRESS)


EPILOG = """\
  "vmrelay extcap --install" writes a small script to ~/.local/lib/wireshark/extcap; then Wireshark lists the
  relays of this user among its interfaces, and captures from them."""


def run(args: argparse.Namespace) -> int:
    """Do what Wireshark asks for; return the exit status."""
    try:
        for line in _extcap(args):
            print(line)  # noqa: T201
    except (client.AskError, OSError) as error:
        print(f"vmrelay extcap: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _extcap(args: argparse.Namespace) -> list[str]:
    if args.install:
        return [_install()]
    if args.extcap_interfaces:
        found = find(os.environ)
        lines = ["extcap {version=0.1.0}{help=https://www.wireshark.org/docs/man-pages/extcap.html}"]
        return lines + [
            f"interface {{value=vmrelay-{path.stem}}}{{display=vmrelay at UDP {path.stem}}}" for path in found
        ]
    if args.extcap_dlts:
        return ["dlt {number=1}{name=EN10MB}{display=Ethernet}"]
    if args.extcap_config:
        return [
            "arg {number=0}{call=--room}{display=Room}{type=string}{tooltip=All rooms if empty}",
            "arg {number=1}{call=--peer}{display=Session}{type=string}{tooltip=Port, name or address}",
        ]
    name = (args.extcap_interface or "").removeprefix("vmrelay-")
    paths = [path for path in find(os.environ) if path.stem == name]
    if not paths:
        raise client.AskError(f"no relay of this user has the socket {name or '?'}")
    if args.capture and args.fifo:
        relay = client.AdminClient(paths[0])
        peer = str(port_of(relay, args.peer)) if args.peer else None
        query = {"room": args.room or None, "peer": peer, "filter": args.extcap_capture_filter or None}
        with relay.stream("/v1/capture", query, None) as source:
            _record(source, Path(args.fifo), Limits())
    elif args.extcap_capture_filter is not None:
        from relay.bpf import Filter, FilterError

        try:
            Filter(args.extcap_capture_filter)
        except FilterError as error:
            return [str(error)]
    return []


def _install() -> str:
    folder = Path.home() / ".local/lib/wireshark/extcap"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "vmrelay"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m relay.main extcap "$@"\n')
    script.chmod(0o755)
    return str(script)

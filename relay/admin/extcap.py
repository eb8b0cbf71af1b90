"""``vmrelay extcap``: lets Wireshark list the relays of this user as interfaces, and capture from them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from relay.admin.capture_command import record
from relay.admin.client import AdminClient, AskError, captured
from relay.admin.recording import Limits
from relay.admin_place import find
from relay.complaint import complain


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
    except (AskError, OSError) as error:
        return complain(error)
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
            "arg {number=1}{call=--peer}{display=Guest}{type=string}{tooltip=Name, address, MAC or port}",
        ]
    name = (args.extcap_interface or "").removeprefix("vmrelay-")
    paths = [path for path in find(os.environ) if path.stem == name]
    if not paths:
        raise AskError(f"no relay of this user has the socket {name or '?'}")
    if args.capture and args.fifo:
        relay = AdminClient(paths[0])
        query = captured(relay, args.peer or None, args.room or None)
        query["filter"] = args.extcap_capture_filter or None
        with relay.stream("/v1/capture", query, None) as source:
            record(source, Path(args.fifo), Limits())
            source.expect_no_end()
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

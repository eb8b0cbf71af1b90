"""``vmrelay capture`` and ``vmrelay trace``: what passes a running relay, written down or told in lines."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netstack.pcapng import MAX_SNAP
from relay.admin import client
from relay.admin.arguments import duration_of, number_of, room_argument, size_of
from relay.admin.client import captured, port_of
from relay.admin.recording import BlockError, Limits, Recorder, blocks
from relay.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from relay.admin.recording import Readable

MAX_FILES = 100_000
"""Of a ring."""

_DIRECTIONS = {1: "in", 2: "out"}
"""Of epb_flags: from a guest, and to it."""


def capture_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay capture``."""
    parser.add_argument(
        *("-w", "--write"),
        metavar="FILE",
        help="write pcapng there, - for standard output; without it packets are told in lines",
    )
    room_argument(parser)
    parser.add_argument(
        "--peer",
        metavar="VM",
        help="of a guest only: its name, address or MAC; or the port of one session",
    )
    parser.add_argument("--filter", metavar="EXPRESSION", help="in tcpdump's syntax, such as 'udp port 53'")
    parser.add_argument(
        "--snaplen", type=number_of(0, MAX_SNAP), metavar="BYTES", help="of each frame; all without it"
    )
    parser.add_argument("--time", type=duration_of, default=0.0, metavar="TIME", help="end after this long")
    parser.add_argument(
        "--file-size",
        type=size_of,
        default=0,
        metavar="SIZE",
        help="begin a file after so many bytes, such as 10M",
    )
    parser.add_argument(
        "--file-time", type=duration_of, default=0.0, metavar="TIME", help="or after this long"
    )
    parser.add_argument(
        "--files", type=number_of(0, MAX_FILES), default=0, metavar="N", help="keep the latest of these"
    )


def capture(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Record until interrupted, or for a time."""
    limits = _limits(args)
    query = {
        **captured(relay, args.peer, args.room),
        "filter": args.filter,
        "snaplen": None if args.snaplen is None else str(args.snaplen),
    }
    deadline = time.monotonic() + args.time if args.time else None
    with relay.stream("/v1/capture", query, deadline) as source:
        if args.write is None:
            _tell_packets(source, as_json=args.json)
        else:
            record(source, None if args.write == "-" else Path(args.write), limits)
        source.expect_no_end()
    return ""


def _limits(args: argparse.Namespace) -> Limits:
    """Tell how much is kept. Raises UsageError, where what was asked for is kept nowhere."""
    limits = Limits(args.file_size, args.files, args.time, args.file_time)
    if args.write in {None, "-"} and (limits.file_size or limits.file_seconds or limits.files):
        raise client.UsageError("--file-size, --file-time and --files need -w FILE")
    if limits.files and not (limits.file_size or limits.file_seconds):
        raise client.UsageError("--files keeps the latest of what --file-size or --file-time begins")
    return limits


def record(source: Any, path: Path | None, limits: Limits) -> None:
    """Write a capture to ``path``, or to standard output where that is None. Raises AskError."""
    recorder = Recorder(path, limits)
    try:
        for kind, block in blocks(source):
            recorder.write(kind, block)
        recorder.close()
    except BrokenPipeError:
        pass  # whoever read it has enough
    except OSError as error:
        raise client.AskError(f"{path or 'standard output'}: {error.strerror or error}") from None
    except BlockError as error:
        raise client.AskError(str(error)) from None
    finally:
        with contextlib.suppress(OSError):  # once more of what was refused, which is told already
            recorder.close()


def _tell_packets(source: client.Stream, *, as_json: bool) -> None:
    from scapy.layers import dhcp, dns, inet6  # noqa: F401 - what packets are taken apart into

    for data, told in packets(source):
        packet = {
            "time": round((told.tshigh << 32 | told.tslow) / told.tsresol, 6),
            "interface": (told.ifname or b"").decode(errors="replace"),
            "direction": _DIRECTIONS.get(told.direction),
            "bytes": told.wirelen,
            "packet": _summary(data),
            "comment": b", ".join(told.comments or ()).decode(errors="replace") or None,
        }
        print(json.dumps(packet) if as_json else printable(_packet_line(packet)), flush=True)  # noqa: T201


def _packet_line(packet: Mapping[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(packet["time"]))
    arrow = {"in": ">", "out": "<"}.get(packet["direction"], " ")
    comment = f"  # {packet['comment']}" if packet["comment"] else ""
    return f"{clock} {packet['interface']} {arrow} {packet['packet']}{comment}"


def packets(source: Readable) -> Iterator[tuple[bytes, Any]]:
    """Read frames, each with what scapy tells of it; what has not come whole when it ends is none."""
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader

    logging.getLogger("scapy").setLevel(logging.ERROR)  # it remarks on where a capture ends
    with contextlib.suppress(Scapy_Exception):  # it ended before there was anything
        for packet in RawPcapNgReader(source):  # noqa: UP028 - "yield from" would close the source, too
            yield packet


def _summary(frame: bytes) -> str:
    from scapy.layers.l2 import Ether

    try:
        return str(Ether(frame).summary())
    except Exception:  # noqa: BLE001 - scapy's, of what was cut off (--snaplen), or what a guest makes up
        return f"{len(frame)} bytes: {frame[:32].hex()}"


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
        source.expect_no_end()
    return ""


def _told(step: Mapping[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(step["time"]))
    decided = ", ".join(name if count == 1 else f"{count} {name}" for name, count in step["decided"].items())
    return f"{clock} {step['where']:<26} {step['frame']}{f'  => {decided}' if decided else ''}"

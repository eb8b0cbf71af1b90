"""``vmrelay healthcheck``: ask the relay of this machine, or container, whether it answers.

The probe is an Initial packet of a QUIC version that does not exist. A QUIC server must answer it with a
Version Negotiation packet that echoes both connection IDs (RFC 9000, sections 6.1 and 17.2.1) and keeps no
state for it: the check costs the relay one packet, leaves no session and no log line behind, and still
fails when its event loop hangs.

Where to ask is what the running relay was told, by the flags, the environment and the configuration file of
its process: process 1 in a container, unless that is an init. A relay that took a free port is found by the
sockets that it has open.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from relay import settings
from relay.complaint import complain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT = 3.0
"""Seconds to wait for an answer; Docker and Kubernetes wait for the check itself as long as they are told."""

UNKNOWN_VERSION = b"\x1a\x2a\x3a\x4a"
"""Of the form that is reserved to force version negotiation (RFC 9000, section 15)."""

SMALLEST_INITIAL = 1200
"""Bytes; a server ignores a smaller first packet (RFC 9000, section 14.1)."""

MAX_GUESSES = 8
"""Ports that are asked where the relay chose its own: the listening one is among the first it opened."""

_PROC = Path("/proc")
_INTERPRETERS = ("python", "pypy")
_OPTIONS_WITH_VALUE = ("-X", "-W")
_MODULES = (["vmrelay"], ["relay.main"])
"""What "python -m" starts a relay by."""
_LISTENING = "0A"
"""State of a TCP socket in /proc/net/tcp."""


class Process(NamedTuple):
    """A relay that runs."""

    pid: int
    flags: Sequence[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay healthcheck``."""
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="the relay's process (default: found by its name)"
    )
    parser.add_argument("--bind", metavar="ADDRESS", help="ask there, whatever the relay was told")
    parser.add_argument(
        "--port", type=int, metavar="N", help="ask at this UDP port, whatever the relay was told"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


class Health(NamedTuple):
    """Whether a relay answers."""

    ok: bool
    told: str
    """What was found, in one line."""
    asked: list[dict[str, str | int]]
    """``host`` and ``port`` of each place that was asked; the last one is that which answered, if one did."""


def run(args: argparse.Namespace) -> int:
    """Ask; return the exit status: 0 if it answers, 1 if not."""
    found = _health(args)
    if args.json:
        print(json.dumps(found._asdict(), indent=1))  # noqa: T201
    elif found.ok:
        print(found.told)  # noqa: T201
    else:
        complain(found.told)
    return 0 if found.ok else 1


def _health(args: argparse.Namespace) -> Health:
    found = next((process for process in processes() if args.pid in (None, process.pid)), None)
    if args.pid is not None and found is None:
        return Health(ok=False, told=f"process {args.pid} is no relay", asked=[])
    told = _settings_of(found)
    bind, port = args.bind or told.bind, told.port if args.port is None else args.port
    ports = [port] if port or found is None else _open_ports(found.pid)[:MAX_GUESSES]
    places = [(host, number) for number in ports for host in addresses_of(bind)]
    asked: list[dict[str, str | int]] = []
    for host, number in places:
        asked.append({"host": host, "port": number})
        if speaks_quic(host, number, TIMEOUT / len(places)):
            return Health(ok=True, told=f"{host} port {number} speaks QUIC", asked=asked)
    if not asked:
        return Health(ok=False, told="the relay has no open port", asked=[])
    where = ", ".join(f"{host} port {number}" for host, number in places)
    nobody = "" if found or args.port is not None else "; no relay runs here"
    return Health(ok=False, told=f"nobody speaks QUIC at {where}{nobody}", asked=asked)


def speaks_quic(host: str, port: int, timeout: float = TIMEOUT) -> bool:
    """Send one probe to ``host``:``port`` and tell whether the answer is a Version Negotiation for it."""
    destination, source = os.urandom(8), os.urandom(8)
    header = b"\xc0" + UNKNOWN_VERSION + b"\x08" + destination + b"\x08" + source
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.settimeout(timeout)
            probe.connect(address)
            probe.send(header.ljust(SMALLEST_INITIAL, b"\x00"))
            answer = probe.recv(2048)
    except (OSError, UnicodeError, OverflowError):
        return False
    # Long header, version 0, then the ids of the probe with the roles swapped.
    return answer[:1] >= b"\x80" and answer[1:].startswith(
        b"\x00\x00\x00\x00" + b"\x08" + source + b"\x08" + destination
    )


def processes(proc: Path = _PROC) -> Iterator[Process]:
    """Yield the relays that run, process 1 first; those of which nothing can be read are left out.

    None where the system tells of processes in another way, as macOS does.
    """
    folders = proc.iterdir() if proc.is_dir() else ()
    for pid in sorted(int(folder.name) for folder in folders if folder.name.isdecimal()):
        if pid == os.getpid() and proc == _PROC:
            continue
        with contextlib.suppress(OSError):
            words = os.fsdecode((proc / str(pid) / "cmdline").read_bytes()).split("\0")[:-1]
            flags = _flags_of_relay(words)
            if flags is not None:
                yield Process(pid, flags)


def _flags_of_relay(words: Sequence[str]) -> Sequence[str] | None:
    """Return what a process was told, or None if it is no relay that serves."""
    rest = list(words)
    if rest and Path(rest[0]).name.startswith(_INTERPRETERS):
        del rest[0]
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            del rest[: 2 if rest[0] in _OPTIONS_WITH_VALUE else 1]
    if rest[:1] == ["-m"] and rest[1:2] in _MODULES:
        del rest[0]
    elif not rest or Path(rest[0]).name != "vmrelay":
        return None
    flags = rest[2:] if rest[1:2] == ["serve"] else rest[1:]
    return None if flags and not flags[0].startswith("-") else flags


def _settings_of(process: Process | None) -> settings.Settings:
    """Work out the settings of a process as it did itself; of none, those of this environment."""
    environment = dict(os.environ)
    flags: dict[str, object] = {}
    if process is not None:
        folder = _PROC / str(process.pid)
        with contextlib.suppress(OSError):
            pairs = os.fsdecode((folder / "environ").read_bytes()).split("\0")
            environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        settings.add_arguments(parser)
        flags = vars(parser.parse_known_args(list(process.flags))[0])
    try:
        path = settings.config_path(flags, environment)
        if process is not None and path is not None:
            flags["config"] = _PROC / str(process.pid) / "cwd" / path
        return settings.resolve(flags, environment)
    except settings.SettingsError as error:
        # The file has changed since, or cannot be read from here.
        print(f"vmrelay: {error}; asking where it listens by default", file=sys.stderr)  # noqa: T201
        return settings.Settings()


def addresses_of(bind: str) -> list[str]:
    """Return where a relay that listens on an address is reached from its own machine."""
    bind = bind.removeprefix("[").removesuffix("]")  # as in URLs, and in --bind
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(bind).is_unspecified:
            return ["127.0.0.1", "::1"] if ":" not in bind else ["::1", "127.0.0.1"]
    return [bind]


def _open_ports(pid: int) -> list[int]:
    """Return the UDP ports that a process has open: first those that it has for TCP too, and the oldest."""
    folder = _PROC / str(pid)
    inodes = set()
    with contextlib.suppress(OSError):
        for file in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    tcp = {port for port, state, inode in _sockets(folder, "tcp") if state == _LISTENING and inode in inodes}
    udp = [
        (port not in tcp, int(inode), port) for port, _, inode in _sockets(folder, "udp") if inode in inodes
    ]
    return list(dict.fromkeys(port for _, _, port in sorted(udp)))


def _sockets(folder: Path, protocol: str) -> Iterator[tuple[int, str, str]]:
    """Yield local port, state and inode of the sockets of a process's network, of both IP versions."""
    for name in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in (folder / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                yield int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]

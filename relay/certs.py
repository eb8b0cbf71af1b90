"""``vmrelay certs``: certificates for development, as files that several runs of the relay can share."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import shlex
import socket
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from relay.complaint import complain
from transport.certificates import generate
from transport.host.interfaces import interface_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATE_NAME = "relay-cert.pem"
KEY_NAME = "relay-key.pem"


MAX_HOST_NAME = 253
"""Characters (RFC 1035 section 2.3.4)."""

_HOST_NAME = re.compile(r"(\*\.)?[\w-]{1,63}(\.[\w-]{1,63})*", re.ASCII)

MAX_ADDRESSES = 32
"""Addresses of this machine that a certificate names: it has to fit a client's first answer."""


def local_names() -> Iterator[str]:
    """Yield the names and addresses under which this machine is reached from itself and its network."""
    yield from ("localhost", "127.0.0.1", "::1")
    yield socket.gethostname()
    yield from network_addresses()


def network_addresses() -> list[str]:
    """List this machine's addresses that others reach it at, IPv4 first; at most MAX_ADDRESSES."""
    try:
        found = map(ipaddress.ip_address, interface_addresses())
    except OSError:
        return []
    # Link-local addresses mean nothing without an interface, for which URLs have no place.
    usable = [address for address in found if not (address.is_loopback or address.is_link_local)]
    return [str(address) for address in sorted(usable, key=lambda found: (found.version, int(found)))][
        :MAX_ADDRESSES
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay certs``."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = actions.add_parser(
        "generate",
        help="write a certificate that is valid for 10 days, and its key",
        description=(
            f"Write {CERTIFICATE_NAME} and {KEY_NAME} to DIR and print the certificate's hash, by which "
            "browsers accept it (serverCertificateHashes). It is valid for 10 days: they allow 14."
        ),
        allow_abbrev=False,
    )
    make.add_argument("directory", metavar="DIR", type=Path, help="where to write; made if it is missing")
    make.add_argument("--force", action="store_true", help="replace files that are there already")
    make.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        type=_host,
        help="another host name or address to put into the certificate; may be repeated",
    )


def _host(text: str) -> str:
    """Read a host name, perhaps with a wildcard, or an address. Raises ArgumentTypeError."""
    host = text.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    if not _HOST_NAME.fullmatch(text) or len(text) > MAX_HOST_NAME:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is not a host name or an address, as relay.example.org or 192.0.2.1 (what is not "
            "ASCII is written as xn--...)"
        )
    return text


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; return the exit status."""
    directory: Path = args.directory
    certificate_path, key_path = directory / CERTIFICATE_NAME, directory / KEY_NAME
    existing = [str(path) for path in (certificate_path, key_path) if os.path.lexists(path)]
    if existing and not args.force:
        return complain(f"{existing[0]} is there already; --force replaces it", 2)
    certificate = generate((*local_names(), *args.name), datetime.now(UTC))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The key first: a relay that watches the files waits for the certificate that goes with it.
        _write(key_path, certificate.private_key_pem(), 0o600)
        _write(certificate_path, certificate.chain_pem(), 0o644)
    except OSError as error:
        return complain(f"{error.filename or directory}: {error.strerror or error}", 2)
    print(f"Certificate SHA-256 Hash: {certificate.sha256}")  # noqa: T201
    print(f"Valid until {certificate.not_after:%Y-%m-%d %H:%M} UTC")  # noqa: T201
    words = ("vmrelay", "--cert-pem", str(certificate_path), "--key-pem", str(key_path))
    print(shlex.join(words))  # noqa: T201
    return 0


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step; until it has its ``mode`` nobody else can read it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise

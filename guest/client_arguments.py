"""Arguments that every client command shares: which relay, whom to trust, which MAC and encapsulation."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guest.target import Target, parse_certificate_hashes
from guest.token_file import VARIABLE, find_token
from netstack.encapsulation import Kind
from netstack.ethernet import is_station, parse_mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.token_file import TokenFile


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Make an argument type of ``check``: its ValueError becomes argparse's one line."""

    def parse(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return parse


def _check_mac(text: str) -> None:
    if not is_station(parse_mac(text)):
        raise ValueError(f"{text} is not the address of one NIC (it is a group address, or zero)")


def add_target(
    parser: argparse.ArgumentParser, *, url_is_optional: bool = False, several: bool = False
) -> None:
    """Add the relay's URL, and whom to trust there."""
    parser.add_argument(
        "url",
        nargs="+" if several else "?" if url_is_optional else None,
        metavar="URL",
        type=_checked(Target.parse),
        help="the relay, such as https://HOST:4433/"
        + ("; further ones share its LAN, and are gone to when it is lost" if several else ""),
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--cert-hash",
        metavar="HEX",
        type=_checked(parse_certificate_hashes),
        help="accept the one certificate with this SHA-256 hash, which the relay prints at start; for "
        "several relays theirs, with commas between",
    )
    trust.add_argument(
        "--ca", metavar="FILE", type=Path, help="accept certificates of the CAs in this PEM file"
    )
    trust.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help=f"file with the token that the relay asks for (default: {VARIABLE}); read for each session",
    )


def token_of(args: argparse.Namespace) -> TokenFile | None:
    """Tell what gives the token that a user named in a file, if any. Raises ValueError."""
    urls = args.url if isinstance(args.url, list) else [args.url]
    has_token = any(Target.parse(url).has_token for url in urls)
    return find_token(args.token_file, os.environ, url_has_one=has_token)


def add_arguments(
    parser: argparse.ArgumentParser, *, url_is_optional: bool = False, several: bool = False
) -> None:
    """Add what every client of the LAN is told: where the relay is, and as whom to join."""
    add_target(parser, url_is_optional=url_is_optional, several=several)
    parser.add_argument(
        "--mac",
        type=_checked(_check_mac),
        help="MAC to register (default: the device's or the guest's own, or a random one)",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="host name to register for the LAN's DNS; '' for none (default: this machine's)",
    )
    parser.add_argument(
        "--encap",
        choices=[kind.value for kind in Kind],
        help="encapsulation of the frames (default: framed, or what the URL says with ?encap=)",
    )


def client_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments for ``vm_client`` out of parsed arguments, all but ``url`` and ``mac``.

    Raises ValueError for a file without a token.
    """
    # What goes wrong with a connection is told by an exception; aioquic need not log it as well.
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    token = token_of(args)
    return {
        "encap": args.encap,
        "name": args.name,
        "cert_hash": args.cert_hash,
        "ca": args.ca,
        "insecure": args.insecure,
    } | ({} if token is None else {"token": token})

"""Which file a machine boots over the network, by its architecture (RFC 4578 section 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netstack.dhcp import MessageType
from netstack.dhcp_options import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from netstack.dhcp import DhcpMessage

IPXE = 0x1_0000
"""Beside the 16-bit numbers of architectures: iPXE whatever it runs on, which boots scripts."""

ARCHITECTURES = {
    "bios": (0,),
    "efi32": (6, 15),
    "efi64": (7, 9, 16),
    "arm32": (10, 18),
    "arm64": (11, 19),
    "ipxe": (IPXE,),
}
"""Names for numbers of IANA's registry, booting by TFTP and by HTTP. 9 is what old firmware says for 7."""

_USER_CLASS_OF_IPXE = b"iPXE"


class BootFile(NamedTuple):
    """A file, or a URL, for machines of these architectures; of all others when there are none.

    ``server`` is where the file is to be had by TFTP: 4 bytes, all zero for a URL.
    """

    architectures: tuple[int, ...]
    file: str
    server: bytes


def choose(files: Iterable[BootFile], request: DhcpMessage) -> BootFile | None:
    """Take the file for the first of the client's architectures that has one, else the one for all."""
    by_architecture = {number: file for file in files for number in file.architectures}
    for number in _architectures(request):
        if number in by_architecture:
            return by_architecture[number]
    return next((file for file in files if not file.architectures), None)


def wants_boot_file(request: DhcpMessage) -> bool:
    """Whether a client has use for the header's fields for booting."""
    asked = request.asked_for
    return (
        request.is_boot_loader
        or request.type is MessageType.BOOTP
        or not asked
        or Code.BOOT_FILE in asked
        or Code.TFTP_SERVER in asked
    )


def _architectures(request: DhcpMessage) -> Iterator[int]:
    if _USER_CLASS_OF_IPXE in request.options.get(Code.USER_CLASS, b""):
        yield IPXE
    value = request.options.get(Code.CLIENT_ARCHITECTURE, b"")
    for at in range(0, len(value) - 1, 2):
        yield int.from_bytes(value[at : at + 2], "big")

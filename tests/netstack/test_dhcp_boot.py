from __future__ import annotations

import pytest
from scapy.layers.dhcp import BOOTP, DHCP

from netstack.dhcp import parse_dhcp
from netstack.dhcp_boot import IPXE, BootFile, choose, wants_boot_file

MAC = bytes.fromhex("525400aa0001")
SERVER = bytes((10, 0, 2, 15))
BIOS, EFI, SCRIPT = (
    BootFile((0,), "bios.0", SERVER),
    BootFile((7, 9), "x64.efi", SERVER),
    BootFile((IPXE,), "http://h/s", bytes(4)),
)
OTHERS = BootFile((), "any", SERVER)


def request(*options, kind="discover"):
    told = [("message-type", kind), *options, "end"]
    return parse_dhcp(bytes(BOOTP(chaddr=MAC) / DHCP(options=told)))


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([(93, b"\0\0")], BIOS),
        ([(93, b"\0\7")], EFI),
        ([(93, b"\0\x0b\0\x09")], EFI),
        ([(93, b"\0\x0b")], OTHERS),
        ([(93, b"\0")], OTHERS),
        ([], OTHERS),
        ([(77, b"iPXE"), (93, b"\0\0")], SCRIPT),
        ([(77, b"\4iPXE")], SCRIPT),
        ([(77, b"other"), (93, b"\0\0")], BIOS),
    ],
)
def test_the_file_is_the_architectures(options, chosen):
    assert choose((BIOS, EFI, SCRIPT, OTHERS), request(*options)) == chosen


def test_without_a_file_for_all_others_they_get_none():
    assert choose((BIOS,), request((93, b"\0\7"))) is None
    assert choose((), request()) is None


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ([], True),
        ([(55, b"\1\3")], False),
        ([(55, b"\1\x43")], True),
        ([(55, b"\x42")], True),
        ([(55, b"\1"), (93, b"\0\0")], True),
        ([(55, b"\1"), (60, b"PXEClient:Arch:00000")], True),
    ],
)
def test_who_has_use_for_it(options, wants):
    assert wants_boot_file(request(*options)) == wants

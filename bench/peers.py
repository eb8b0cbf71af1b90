"""Other user-mode networks for virtual machines, for the same guest and server, where they are installed.

They stand between a kernel and a device of the same machine and encrypt nothing, so that they tell what a NAT
in user space costs at least. Each has the MTU that it has by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machines import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machines import Site

GUEST_MAC = "5a:94:ef:e4:0c:ee"


def _found(*names: str) -> str | None:
    """Return the path of a program, which may have any of these names, where it may have been installed."""
    go = Path(os.environ.get("GOPATH", "~/go")).expanduser() / "bin"
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/go/bin", str(go)))
    return next((path for name in names if (path := shutil.which(name, path=folders))), None)


@contextlib.contextmanager
def _gvproxy(site: Site, guest: Machine) -> Iterator[None]:
    # "go install" names the guest's half after its folder, "vm".
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        listening = f"{folder}/network.sock"
        proxy = site.start(_found("gvproxy"), "-listen", f"unix://{listening}", core=0)
        stack.callback(proxy.stop)
        proxy.wait_for(r"listening unix")
        guest.namespace.run("ip", "tuntap", "add", "tap0", "mode", "tap")
        guest.take("tap0", GUEST_MAC, "192.168.127.2", "192.168.127.1", 1500)
        half = guest.namespace.start(
            *(_found("gvforwarder", "vm"), "-preexisting", "-mac", GUEST_MAC, "-stop-if-exist", ""),
            *("-url", f"unix://{listening}"),
        )
        stack.callback(half.stop)
        half.wait_for("waiting for packets")
        yield


@contextlib.contextmanager
def _slirp4netns(site: Site, guest: Machine) -> Iterator[None]:
    peer = site.start(
        *(_found("slirp4netns"), "--configure", "--netns-type=path"),
        *(f"/run/netns/{guest.namespace.name}", "tap0"),
        core=0,
    )
    try:
        peer.wait_for("received tapfd")
        yield
    finally:
        peer.stop()


@contextlib.contextmanager
def _passt(site: Site, guest: Machine) -> Iterator[None]:
    peer = site.start(
        *(_found("pasta"), "--foreground", "--config-net", "--runas", "0", "-I", "tap0"),
        *("-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2", "-4"),
        *("--netns", f"/run/netns/{guest.namespace.name}"),
        core=0,
    )
    try:
        yield
    finally:
        peer.stop()


PEERS: dict[
    str, tuple[Callable[[Site, Machine], contextlib.AbstractContextManager[None]], tuple[str, ...]]
] = {
    "gvproxy": (_gvproxy, ("gvproxy", "gvforwarder vm")),
    "slirp4netns": (_slirp4netns, ("slirp4netns",)),
    "passt": (_passt, ("pasta",)),
}
"""How to start it, and the programs it takes; of several names in one word the first is the usual one."""


def missing(peer: str) -> str:
    """Say what of a peer is not installed; empty when all is."""
    names = [name.split()[0] for name in PEERS[peer][1] if _found(*name.split()) is None]
    return f"{' and '.join(names)} not installed" if names else ""


@contextlib.contextmanager
def guest_of(peer: str, site: Site) -> Iterator[Machine]:
    """Give a kernel whose network comes from ``peer``."""
    guest = Machine("guest")
    try:
        with PEERS[peer][0](site, guest):
            guest.wait_for_route()
            yield guest
    finally:
        guest.delete()

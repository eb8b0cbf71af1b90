"""``vmrelay doctor``: look at this machine as a relay needs it, and say what to do about what is missing.

It looks at what the relay would use with the same flags: the port, the certificate, host sockets, resolvers,
limits. A relay that runs is asked too. From here nobody can see what a firewall elsewhere lets through:
``vmrelay netcheck URL`` tries that from a client's side.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from netstack.name_servers import DNS_PORT, parse_resolv_conf
from relay import nft_rules, settings
from relay.admin_place import find
from relay.healthcheck import addresses_of, speaks_quic
from relay.own_certificate import KEPT
from relay.state import find_place
from relay.version import is_accelerated
from transport.certificates import CertificateError, FileCertificateStore, read_kept
from transport.host.interfaces import interface_addresses, interface_mtus
from transport.host.upstream_dns import RESOLV_CONF, read_resolv_conf
from transport.quic.udp import ENOUGH_BUFFER, enlarge_buffers, receive_buffer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from relay.settings import Settings

Mark = Literal["ok", "warning", "problem"]

ENOUGH_FILES = 4096
"""Descriptors from which on the relay's own limits, and not the system's, bound the flows."""

FIREWALL_TIMEOUT = 5.0
"""Seconds for nft or iptables to list their rules."""

LEAST_MTU = 1280
"""Bytes: IPv6 wants them (RFC 8200, section 5), and QUIC datagrams of 1,200 (RFC 9000, section 14)."""
CLOCK_STARTS = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock that is set shows less."""


class Finding(NamedTuple):
    """What came of looking at one thing."""

    mark: Mark
    what: str
    said: str
    fix: str = ""
    """What to do about it; empty where nothing need be done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay doctor``: all flags of the relay."""
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    settings.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything; return the exit status: 0 unless there is a problem."""
    flags = {name: value for name, value in vars(args).items() if name != "json"}
    findings = list(examine(flags))
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))  # noqa: T201
    else:
        for finding in findings:
            print(f"{finding.mark:<8} {finding.what}: {finding.said}")  # noqa: T201
            if finding.fix:
                print(f"{'':<8}   -> {finding.fix}")  # noqa: T201
    return 1 if any(finding.mark == "problem" for finding in findings) else 0


def examine(flags: dict[str, Any]) -> Iterator[Finding]:
    """Look at one thing after the other."""
    try:
        found = settings.resolve(flags, os.environ)
    except settings.SettingsError as error:
        yield Finding("problem", "settings", str(error), "vmrelay config check tells the same; mend it first")
        found = settings.Settings()
    else:
        yield Finding("ok", "settings", "valid")
    looks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        *(_port, _firewall, _certificate, _clock, _ping, _resolvers, _buffers, _ipv6, _mtu, _files),
        *(_accelerator, _admin),
    )
    for look in looks:
        try:
            yield from look(found)
        except OSError as error:
            yield Finding("warning", look.__name__[1:], f"cannot be told: {error.strerror or error}")


def _port(found: Settings) -> Iterator[Finding]:
    """Whether the port is free, or a relay answers there."""
    if found.port == 0:
        yield Finding("ok", "port", "any free one is taken (--port 0)")
        return
    hosts = addresses_of(found.bind)
    for kind, name in ((socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")):
        if kind == socket.SOCK_STREAM and found.web == "off":
            continue
        error = _cannot_bind(found.bind, found.port, kind)
        if error is None:
            yield Finding("ok", "port", f"{name} {found.port} is free")
        elif error.errno == errno.EADDRINUSE and any(speaks_quic(host, found.port, 1.0) for host in hosts):
            yield Finding("ok", "port", f"{name} {found.port} is in use, and a QUIC server answers there")
        elif error.errno == errno.EADDRINUSE and find(os.environ, found.port):
            fix = "a firewall (below), or it listens elsewhere: --bind, as for the relay itself"
            said = f"{name} {found.port} is in use, by a relay of this user that does not answer by QUIC"
            yield Finding("problem", "port", said, fix)
        else:
            fix = {
                errno.EADDRINUSE: f"ss -lpn 'sport = :{found.port}' names who has it; --port takes another",
                errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, or --port above",
                errno.EADDRNOTAVAIL: "--bind names an address that this machine does not have",
            }.get(error.errno or 0, "--bind and --port say where to listen")
            said = f"{name} {found.port} of {found.bind} cannot be had: {error.strerror or error}"
            yield Finding("problem", "port", said, fix)


def _cannot_bind(bind: str, port: int, kind: int) -> OSError | None:
    """Try to have a port; return why it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=kind, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bind != "::")
            probe.bind(address)
    except OSError as error:
        return error
    except UnicodeError:
        return socket.gaierror(socket.EAI_NONAME, "not a host name")
    return None


def _firewall(found: Settings) -> Iterator[Finding]:
    """Whether this machine's own firewall drops what comes, as far as its rules can be read."""
    nft = shutil.which("nft")
    if nft is None:
        yield Finding("ok", "firewall", "no nft here; what filters elsewhere, vmrelay netcheck URL tries")
        return
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed command
            [nft, "-j", "list", "ruleset"],
            capture_output=True,
            text=True,
            timeout=FIREWALL_TIMEOUT,
            check=False,
        )
        rules = json.loads(listed.stdout)["nftables"] if listed.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        rules = None
    if rules is None:
        yield Finding("warning", "firewall", "its rules cannot be read", "as root: vmrelay doctor")
        return
    seen = nft_rules.look_at(rules, found.port)
    for chain, why in seen.closed:
        fix = f"nft insert rule {chain} udp dport {found.port} accept"
        yield Finding("problem", "firewall", f"{chain} {why}", fix)
    for chain, why in seen.unknown:
        said = f"cannot tell: {chain} {why}, but some of its rules ask for what cannot be told from here"
        opens = f"nft insert rule {chain} udp dport {found.port} accept"
        fix = f"vmrelay netcheck URL tries it from outside; {opens} opens it"
        yield Finding("warning", "firewall", said, fix)
    for chain, where in seen.rewritten:
        fix = f"right for a relay that is there, as in a container; nft -a list chain {chain} shows the rule"
        yield Finding("warning", "firewall", f"{chain} {where}: a relay here does not see it", fix)
    if not any(seen):
        yield Finding("ok", "firewall", "no chain of this machine drops the port, as far as can be seen")


def _certificate(found: Settings) -> Iterator[Finding]:
    """Tell what clients will make of the certificate."""
    if found.cert_pem is None or found.key_pem is None:
        said = "the relay makes its own; pages pin its hash, which changes every few days"
        yield Finding("ok", "certificate", said + _kept_certificate(found))
        return
    try:
        certificate = FileCertificateStore(found.cert_pem, found.key_pem).current
    except CertificateError as error:
        yield Finding(
            "problem", "certificate", str(error), "--cert-pem has the chain, --key-pem its key, both PEM"
        )
        return
    now = datetime.now(UTC)
    days = (certificate.not_after - now).days
    kind = "self-signed" if certificate.is_self_signed else "of an authority"
    pinned = ", can be pinned by its hash" if certificate.can_be_pinned else ""
    names = ", ".join(sorted(certificate.names)) or "no name"
    said = f"{kind}{pinned}, for {names}, {days} days left, SHA-256 {certificate.sha256}"
    yield Finding("ok", "certificate", said)
    for complaint in certificate.complaints(now):
        yield Finding(
            "warning", "certificate", complaint, "vmrelay certs generate makes one that browsers take"
        )


def _kept_certificate(found: Settings) -> str:
    """Tell what a relay that was here before has kept, and the next one goes on with; empty if nothing."""
    place = find_place(found.state, found.port, os.environ)
    if place is None:
        return ""
    try:
        kept = read_kept((place.folder / KEPT).read_bytes())
    except OSError:
        return ""
    if kept is None:
        return ""
    age, until = (datetime.now(UTC) - kept[0].not_before).days, f"{kept[0].not_after:%Y-%m-%d}"
    return f"; the last one is {age} days old, holds until {until}, SHA-256 {kept[0].sha256}"


def _clock(_: Settings) -> Iterator[Finding]:
    """Whether the clock can be right: certificates and tokens go by it."""
    now = datetime.now(UTC)
    if now < CLOCK_STARTS:
        yield Finding(
            "problem", "clock", f"it says {now:%Y-%m-%d %H:%M}", "set it: certificates would not be valid"
        )
    else:
        yield Finding("ok", "clock", f"it says {now:%Y-%m-%d %H:%M} UTC")


def _ping(_: Settings) -> Iterator[Finding]:
    """Whether guests can ping the outside."""
    for kind, name in ((socket.SOCK_DGRAM, "unprivileged ICMP sockets"), (socket.SOCK_RAW, "raw sockets")):
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        except OSError:
            continue
        yield Finding("ok", "ping", f"guests can ping the outside by {name}")
        return
    # Larger numbers are refused in containers that have 65,536 users of their own, as those of podman have.
    fix = "as root: sysctl net.ipv4.ping_group_range='0 65535' (in a container: --sysctl), or CAP_NET_RAW"
    yield Finding("warning", "ping", "guests cannot ping the outside: no ICMP sockets are allowed", fix)


def _resolvers(found: Settings) -> Iterator[Finding]:
    """Whether the name servers that guests' questions go to answer."""
    servers = found.upstream_dns
    if not servers:
        with contextlib.suppress(OSError):  # without the file there are none either
            servers = parse_resolv_conf(read_resolv_conf())
    if not servers:
        fix = "name one: --upstream-dns ADDRESS"
        yield Finding("problem", "resolvers", f"{RESOLV_CONF} names no server", fix)
        return
    for address, port in servers[:3]:
        took = _asks(address, port)
        where = address if port == DNS_PORT else f"{address} port {port}"
        if took is None:
            fix = "is it reachable from here? --upstream-dns names another"
            yield Finding("warning", "resolvers", f"{where} does not answer", fix)
        else:
            yield Finding("ok", "resolvers", f"{where} answers within {took * 1000:.0f} ms")


def _asks(address: str, port: int) -> float | None:
    """Ask a server for the root's name servers; return the seconds that it took, None without an answer."""
    question = os.urandom(2) + b"\x01\x00\x00\x01" + bytes(6) + b"\x00\x00\x02\x00\x01"
    begun = time.monotonic()
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.settimeout(2.0)
            probe.connect((address, port))
            probe.send(question)
            while not probe.recv(4096).startswith(question[:2]):
                pass
    except OSError:
        return None
    return time.monotonic() - begun


def _buffers(_: Settings) -> Iterator[Finding]:
    """Whether the UDP socket may hold what comes while the relay is at work."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        enlarge_buffers(probe)
        size = receive_buffer(probe)
    if size < ENOUGH_BUFFER:
        fix = f"as root: sysctl net.core.rmem_max={4 * ENOUGH_BUFFER}, or give the relay CAP_NET_ADMIN"
        said = (
            f"a UDP socket may hold {size // 1024} KB only: what a flood leaves no room for may be anybody's"
        )
        yield Finding("warning", "buffers", said, fix)
    else:
        yield Finding("ok", "buffers", f"a UDP socket may hold {size // 1024} KB")


def _ipv6(found: Settings) -> Iterator[Finding]:
    """Whether there is a way to the IPv6 internet."""
    if not found.ipv6:
        yield Finding("ok", "IPv6", "off for guests (--no-ipv6)")
        return
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:4860:4860::8888", 53))  # sends nothing: it looks for a route
    except OSError:
        said = "no route to the IPv6 internet: guests have IPv6 among themselves only"
        yield Finding("ok", "IPv6", said)
    else:
        yield Finding("ok", "IPv6", "there is a route to the IPv6 internet")


def _mtu(_: Settings) -> Iterator[Finding]:
    """Whether QUIC's packets fit what the network interfaces take."""
    mtus = interface_mtus()
    for name, mtu in mtus.items():
        if mtu < LEAST_MTU:
            said = f"{name} takes {mtu} bytes: who comes that way has no QUIC, only WebSockets, and no IPv6"
            fix = f"ip link set {name} mtu 1500, or as much as what is below it takes; {LEAST_MTU} at least"
            yield Finding("warning", "MTU", said, fix)
    wide = [f"{name} {mtu}" for name, mtu in mtus.items() if mtu >= LEAST_MTU]
    if wide:
        yield Finding("ok", "MTU", f"QUIC's packets fit: {', '.join(wide)}")


def _files(found: Settings) -> Iterator[Finding]:
    """Whether the system lets the relay have a descriptor for each flow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        fix = "raise it: ulimit -Hn, LimitNOFILE= in systemd, --ulimit nofile=65536 in Docker"
        yield Finding("warning", "files", f"{hard} descriptors at most, and each flow has one", fix)
    else:
        told = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        yield Finding("ok", "files", f"{told} descriptors, for up to {found.max_flows_total} flows")
    yield Finding("ok", "addresses", f"this machine has {', '.join(sorted(interface_addresses())) or 'none'}")


def _accelerator(_: Settings) -> Iterator[Finding]:
    """Whether the datagram path is compiled."""
    if is_accelerated():
        yield Finding("ok", "accelerator", "the datagram path is compiled")
    else:
        fix = "install with a C compiler and Python's headers there, or use a wheel of this platform"
        yield Finding(
            "warning", "accelerator", "the datagram path is pure Python, some three times as slow", fix
        )


def _admin(found: Settings) -> Iterator[Finding]:
    """Whether relays of this user run."""
    running = find(os.environ, found.port or None)
    said = ", ".join(str(path) for path in running) if running else "none of this user runs at this port"
    yield Finding("ok", "relays", said)

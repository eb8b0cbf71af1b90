"""Whether something that a guest wants to reach would be let through, and what decides that.

The same questions that the relay asks for a packet are asked in order: is the guest there, what is the name's
address, what does the egress policy say, is there a route. Nothing is sent to the target.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.messages import DnsQuestion, DnsQuestions
from netstack.dns_lookup import Found, address_query, read_addresses
from netstack.egress import SMTP_PORT
from netstack.ethernet import parse_mac
from relay.called import as_told
from transport.host.upstream_dns import RESOLV_CONF

if TYPE_CHECKING:
    from typing import Literal

    from actors.descriptions import HolderDescription, LeaseDescription
    from relay.lan import Lan
    from relay.snapshots import Snapshots

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RESOLVE_TIMEOUT = 5.0
"""Seconds for the name servers."""

MOST_ADDRESSES = 8
"""Of one name, looked at."""

_REASONS = {
    "not_an_address": "that is no address that a packet can have",
    "denied_by_rule": "a --deny-cidr, or the room's, forbids it",
    "denied_by_default": "private, special and cloud addresses are closed unless --allow-cidr opens them",
    "own_address": "it is the relay's own machine: --allow-cidr with this very address, or --host-access",
}


_CODES = {"NXDOMAIN": "there is no such name", "SERVFAIL": "they failed, or did not answer"}

_OPERATOR = -2
"""The port of the switch as whose guest names are asked for: none, and so with a share of its own."""

_ABSENT = "none has this name, MAC or address (vmrelay events --past tells who left or was refused, and why)"


_ISOLATED = "guests of this room are kept from each other (--isolated)"

_BROADCAST = ipaddress.IPv4Address(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Step:
    """One question, and its answer."""

    question: str
    ok: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know."""

    target: str
    """An address or a name."""
    protocol: str = "tcp"
    port: int | None = None
    guest: str | None = None
    """The guest that would send: its session's port, name, address or MAC."""


async def explain(lan: Lan, snapshots: Snapshots, asked: Question) -> list[Step]:
    """Answer step by step; the last step that is not ok decides."""
    steps: list[Step] = []
    if asked.guest is not None:
        steps.append(await _guest(lan, snapshots, asked.guest))
        if not steps[-1].ok:
            return steps
    addresses, step = await addresses_of(lan, snapshots, asked.target)
    if step is not None:
        steps.append(step)
    found = [
        await _on_lan(lan, snapshots, address) if _is_of_lan(lan, address) else _outside(lan, address, asked)
        for address in addresses[:MOST_ADDRESSES]
    ]
    # Clients try one address after the other (RFC 8305): one that gets through is enough.
    through = [steps for steps in found if all(step.ok for step in steps)]
    return [*steps, *itertools.chain.from_iterable(through or found)]


async def _guest(lan: Lan, snapshots: Snapshots, guest: str) -> Step:
    said = _without_domain(lan, as_told(guest))
    question = f"is {guest} a guest of room {lan.name}?"
    leases = (await snapshots.leases(lan.name)).get(lan.name, ())
    found = next((lease for lease in leases if said in _names(lease)), None)
    if found is not None:
        if found.port is None:
            return Step(question, ok=False, answer=f"it has {found.address}, and is not connected")
        return Step(question, ok=True, answer=f"yes: {found.mac} has {found.address}, session {found.port}")
    # It has no lease here: what it goes by is an IPv6 address, or it is at another worker.
    names = (await snapshots.names(lan.name))[lan.name].names
    for text in names.get(said, (said,)):
        holder = await snapshots.holder(lan.name, _packed(text))
        if holder is not None and (holder.elsewhere or holder.port is not None):
            return Step(question, ok=True, answer=f"yes: {holder.mac}, {_place_of(holder)}")
    return Step(question, ok=False, answer=_ABSENT)


def _names(lease: LeaseDescription) -> set[str | None]:
    """Tell what a guest goes by: its session's number too."""
    session = None if lease.port is None else str(lease.port)
    return {lease.address, lease.mac, lease.name, session}


def _without_domain(lan: Lan, name: str) -> str:
    """Write a name of a LAN as its label alone."""
    return name.rstrip(".").removesuffix(f".{lan.settings.domain}")


def _packed(text: str) -> bytes:
    """Read an address or a MAC; nothing, which nobody has, where it is neither."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text).packed
    with contextlib.suppress(ValueError):
        return parse_mac(text)
    return b""


def _place_of(holder: HolderDescription) -> str:
    return "at another worker or machine" if holder.elsewhere else f"session {holder.port}"


async def addresses_of(lan: Lan, snapshots: Snapshots, target: str) -> tuple[list[Address], Step | None]:
    """Find the addresses of what somebody calls so, and say how they were found, if it was a name."""
    try:
        return [ipaddress.ip_address(target)], None
    except ValueError:
        pass
    label = _without_domain(lan, target.lower())
    names = (await snapshots.names(lan.name))[lan.name].names
    if label in names:
        found = [ipaddress.ip_address(address) for address in names[label]]
        return found, Step(f"who is {target}?", ok=True, answer=f"a guest: {', '.join(names[label])}")
    servers = ", ".join(server.host for server in lan.name_servers) or f"those of {RESOLV_CONF}"
    question = f"who is {target}, say the name servers ({servers})?"
    # Guests take the addresses of one kind where there is no answer to the question for the other.
    answers = await asyncio.gather(*(_ask_as_a_guest(lan, target, kind) for kind in ("A", "AAAA")))
    texts = [text for answer in answers if isinstance(answer, Found) for text in answer.addresses]
    if not texts:
        told = answers[0]
        if isinstance(told, Found):
            told = f"{_CODES.get(told.code, 'no address')} ({told.code})"
        return [], Step(question, ok=False, answer=told)
    return [ipaddress.ip_address(text) for text in texts], Step(question, ok=True, answer=", ".join(texts))


async def _ask_as_a_guest(lan: Lan, name: str, kind: Literal["A", "AAAA"]) -> Found | str:
    """Ask the LAN's own name server; give what it answers, or why there is no answer."""
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(response: bytes) -> None:
        if not answered.done():
            answered.set_result(response)

    try:
        question = DnsQuestion(address_query(name, kind), over_stream=True, reply=reply)
        lan.names.tell(DnsQuestions(_OPERATOR, [question]))
        return read_addresses(await asyncio.wait_for(answered, RESOLVE_TIMEOUT))
    except TimeoutError:
        return f"no answer within {RESOLVE_TIMEOUT:g} s"
    except ValueError as error:
        return str(error)


def _is_for_all(lan: Lan, address: Address) -> bool:
    """Whether it is a group's or all guests': such packets stay on the LAN."""
    everybody = {ipaddress.ip_network(lan.settings.network).broadcast_address, _BROADCAST}
    return address.is_multicast or address in everybody


def _is_of_lan(lan: Lan, address: Address) -> bool:
    if _is_for_all(lan, address):
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network(lan.settings.network)
    prefix = lan.settings.ipv6_prefix
    return prefix is not None and (address.is_link_local or address.packed.startswith(prefix))


async def _on_lan(lan: Lan, snapshots: Snapshots, address: Address) -> list[Step]:
    question = f"does {address} lead to a guest?"
    settings = lan.settings
    if address.packed in {*settings.gateway_ips, settings.gateway_ip6, settings.gateway_link_local}:
        return [Step(question, ok=True, answer="it is the gateway's own")]
    if _is_for_all(lan, address):
        if settings.isolated:
            return [Step(question, ok=False, answer=_ISOLATED)]
        return [Step(question, ok=True, answer="to all of the room that listen to it, and to nobody beyond")]
    holder = await snapshots.holder(lan.name, address.packed)
    if holder is None or (holder.port is None and not holder.elsewhere):
        return [Step(question, ok=False, answer="nobody on the LAN has it at the moment")]
    if settings.isolated:
        return [Step(question, ok=False, answer=_ISOLATED)]
    return [Step(question, ok=True, answer=f"{holder.name or holder.mac}, {_place_of(holder)}")]


def _outside(lan: Lan, address: Address, asked: Question) -> list[Step]:
    question = f"may guests reach {address}?"
    decision = lan.network.judge(str(address))
    if lan.network.has_forward(asked.protocol, str(address), asked.port):
        return [Step(question, ok=True, answer="it is this machine, where the port leads to a guest")]
    if not decision.allowed:
        return [Step(question, ok=False, answer=_REASONS.get(decision.reason, decision.reason))]
    if asked.protocol == "tcp" and asked.port is not None and not lan.network.policy.may_connect(asked.port):
        answer = f"TCP port {SMTP_PORT} is closed against spam (--allow-smtp opens it)"
        return [Step(question, ok=False, answer=answer)]
    if asked.protocol == "icmp" and not lan.network.can_ping:
        answer = "no ICMP sockets here (net.ipv4.ping_group_range, or CAP_NET_RAW)"
        return [Step(question, ok=False, answer=answer)]
    steps = [Step(question, ok=True, answer="the egress policy allows it")]
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((decision.dial, 9))  # sends nothing: it looks for a route
            via = probe.getsockname()[0]
    except OSError as error:
        answer = f"no: {error.strerror or error}"
        return [*steps, Step(f"has this machine a route to {decision.dial}?", ok=False, answer=answer)]
    return [*steps, Step(f"has this machine a route to {decision.dial}?", ok=True, answer=f"yes, from {via}")]

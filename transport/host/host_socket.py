"""A non-blocking IPv4 or IPv6 socket of the relay host: drained in batches, its errors put into words.

ICMP errors: with ``IP_RECVERR`` Linux keeps what routers and hosts said about datagrams of this socket, each
with the destination it was about and the first bytes that were sent there; they are handed on as they come.
Without it (other systems) an unconnected socket never hears of them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from abc import ABC, abstractmethod
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from actors.ports import SendResult
from netstack.icmp import PARAMETER_PROBLEM
from netstack.icmpv6 import PARAMETER_PROBLEM6
from transport.host.errors import result_of
from transport.host.receiving import receive
from transport.quic.udp import UDP_GRO, UDP_SEGMENT, UNSUPPORTED_OFFLOAD, end_of_run, send_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import DatagramFromNet
    from netstack.counters import Counters
    from transport.host.readiness import Readiness

ERRORS_PER_TURN = 64
"""ICMP errors of one socket that are read per turn of the loop."""

RECEIVE_BUFFER = 256 * 1024
"""Bytes asked of the kernel per socket: bounds what a flood can hold, takes a burst of 150 full frames."""

_LINUX = sys.platform == "linux"

_CANNOT_CUT = UNSUPPORTED_OFFLOAD - {errno.EINVAL}
"""What the system says where the way out cannot have runs. EINVAL (of older kernels) and EMSGSIZE are about
the one run: its datagrams are larger than the path's MTU, and have to leave in fragments."""


class SocketFamily(NamedTuple):
    """The socket options of one IP version; what a system has not is None."""

    number: socket.AddressFamily
    icmp: int
    level: int
    any_address: str
    options: tuple[tuple[int | None, int], ...]
    """Set once: tell the TTL of what arrives, keep ICMP errors."""
    ttl: int
    ttl_messages: frozenset[int | None]
    errors: int | None
    discover: int | None
    discover_values: tuple[int, int]
    """``IP_MTU_DISCOVER`` for datagrams that may be fragmented, and for those that must not."""
    from_icmp: int
    """``ee_origin`` of errors that the network sent."""
    parameter_problem: int
    """ICMP type of an error about a packet's header."""
    offender: slice
    """Where, behind the extended error, the address of its sender stands."""


# Most of these are missing in the socket module of Python 3.11.
_RECVTTL = {"linux": 12, "darwin": 24}.get(sys.platform)
_RECVERR = 11 if _LINUX else None
_IPV6_RECVERR = 25 if _LINUX else None

IPV4 = SocketFamily(
    number=socket.AF_INET,
    icmp=socket.IPPROTO_ICMP,
    level=socket.IPPROTO_IP,
    any_address="",
    options=((_RECVTTL, 1), (_RECVERR, 1)),
    ttl=socket.IP_TTL,
    ttl_messages=frozenset({socket.IP_TTL, _RECVTTL}),
    errors=_RECVERR,
    discover=10 if _LINUX else None,
    discover_values=(0, 2),
    from_icmp=2,
    parameter_problem=PARAMETER_PROBLEM,
    offender=slice(4, 8),
)
IPV6 = SocketFamily(
    number=socket.AF_INET6,
    icmp=socket.IPPROTO_ICMPV6,
    level=socket.IPPROTO_IPV6,
    any_address="::",
    options=((socket.IPV6_RECVHOPLIMIT, 1), (_IPV6_RECVERR, 1)),
    ttl=socket.IPV6_UNICAST_HOPS,
    ttl_messages=frozenset({socket.IPV6_HOPLIMIT}),
    errors=_IPV6_RECVERR,
    discover=23 if _LINUX else None,
    discover_values=(1, 2),
    from_icmp=3,
    parameter_problem=PARAMETER_PROBLEM6,
    offender=slice(8, 24),
)

_EXTENDED_ERROR = Struct("=IBBBxII")
"""struct sock_extended_err: errno, origin, ICMP type, ICMP code, info, data; then the offender's address."""
_ERROR_ANCILLARY_SIZE = 256
_FROM_HERE = 1
_QUOTE_SIZE = 64


class Reported(NamedTuple):
    """An ICMP error: where the datagram went that it is about, and how that began (behind the IP header)."""

    host: str
    port: int
    type: int
    code: int
    rest: int
    """Bytes 4 to 7 of the error, where they say anything: an MTU, or a pointer (RFC 792, RFC 4443)."""
    offender: str
    """Who sent the error; empty when unknown."""
    quoted: bytes


@lru_cache(maxsize=1)
def can_cut_runs() -> bool:
    """Tell whether the system knows runs (Linux 4.18). Raises OSError when no socket can be had.

    One that does not would take no notice of where to cut, and send all as one datagram.
    """
    if not _LINUX:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
        except OSError:
            return False
    return True


class HostSocket(ABC):
    """One socket on the running loop; subclasses say what is done with what arrives."""

    path_mtu = 0
    """Bytes of IP packet that the path takes, as the system told with the last TOO_BIG; 0 when it did not."""

    def __init__(
        self, family: SocketFamily, kind: int, protocol: int, ready: Readiness, counters: Counters
    ) -> None:
        """Open and bind to a port (or identifier) of the host's choice. Raises OSError."""
        self._counters = counters
        self._ready = ready
        self.family = family
        self._ttl = 0
        self._dont_fragment = False
        self._cuts_runs = protocol == socket.IPPROTO_UDP and can_cut_runs()
        """Whether the system may be given several datagrams at once; False from its first refusal on."""
        self._socket = socket.socket(family.number, kind, protocol)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if family is IPV6 and protocol == socket.IPPROTO_UDP:  # else it would take IPv4's port as well
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option, value in family.options:
                if option is not None:
                    self._socket.setsockopt(family.level, option, value)
            if _LINUX and protocol == socket.IPPROTO_UDP:
                with contextlib.suppress(OSError):  # before Linux 5.0
                    self._socket.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
            if family.discover is not None:
                self._socket.setsockopt(family.level, family.discover, family.discover_values[0])
            self._socket.bind((family.any_address, 0))
        except OSError:
            self._socket.close()
            raise
        ready.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._socket.fileno() >= 0:
            self._ready.remove_reader(self._socket)
            self._socket.close()

    @abstractmethod
    def deliver(self, received: list[DatagramFromNet]) -> None:
        """Take what one turn brought (at least one datagram)."""

    @abstractmethod
    def report(self, errors: list[Reported]) -> None:
        """Take the ICMP errors of one turn (at least one)."""

    def transmit(self, data: bytes, address: tuple[str, int], ttl: int, dont_fragment: bool) -> SendResult:
        """Send with this TTL. ``dont_fragment`` datagrams stay whole on their way, and may be TOO_BIG."""
        if self._socket.fileno() < 0:
            return SendResult.DROPPED
        if ttl != self._ttl or dont_fragment is not self._dont_fragment:
            self._prepare(ttl, dont_fragment)
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            return SendResult.DROPPED
        except OSError:
            # Perhaps an earlier datagram's ICMP error, about any destination: sort these out, then try again.
            self._read_errors()
            return self._send_again(data, address)
        return SendResult.SENT

    def transmit_run(
        self, datagrams: Sequence[bytes], address: tuple[str, int], ttl: int, dont_fragment: bool
    ) -> int:
        """Send datagrams to one address with few calls, in order; return how many of them were sent.

        The rest is for :meth:`transmit`, which says of each what came of it.
        """
        if not self._cuts_runs or self._socket.fileno() < 0:
            return 0
        if ttl != self._ttl or dont_fragment is not self._dont_fragment:
            self._prepare(ttl, dont_fragment)
        sent = 0
        try:
            while sent < len(datagrams):
                end = end_of_run(datagrams, sent)
                if end == sent + 1:
                    self._socket.sendto(datagrams[sent], address)
                else:
                    send_run(self._socket, datagrams[sent:end], address)
                sent = end
        except OSError as error:
            self._cuts_runs = error.errno not in _CANNOT_CUT
            self._read_errors()
        return sent

    def _prepare(self, ttl: int, dont_fragment: bool) -> None:
        """Set what goes into the next IP headers; that mostly stays the same through a flow's life."""
        family = self.family
        self._ttl, self._dont_fragment = ttl, dont_fragment
        self._socket.setsockopt(family.level, family.ttl, min(max(ttl, 1), 255))
        if family.discover is not None:
            self._socket.setsockopt(family.level, family.discover, family.discover_values[dont_fragment])

    def _send_again(self, data: bytes, address: tuple[str, int]) -> SendResult:
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            self._read_errors()
            return result_of(error.errno)
        return SendResult.SENT

    def _readable(self) -> None:
        received: list[DatagramFromNet] = []
        family = self.family
        error = receive(self._socket, family.level, family.ttl_messages, received)
        # Nothing more to read; or an ICMP error, which was the reason to wake.
        if error is not None and not (received and isinstance(error, BlockingIOError)):
            self._read_errors()
        if received:
            self.deliver(received)

    def _read_errors(self) -> None:
        """Empty the queue of ICMP errors, where the system has one."""
        option = self.family.errors
        if option is None:
            return
        errors: list[Reported] = []
        for _ in range(ERRORS_PER_TURN):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(
                    _QUOTE_SIZE, _ERROR_ANCILLARY_SIZE, socket.MSG_ERRQUEUE
                )
            except OSError:
                break
            for level, kind, data in ancillary:
                if level == self.family.level and kind == option and len(data) >= _EXTENDED_ERROR.size:
                    self._note(data, address, quoted, errors)
        if errors:
            self._counters.add("outside.icmp_errors", len(errors))
            self.report(errors)

    def _note(self, extended: bytes, address: tuple[str, int], quoted: bytes, errors: list[Reported]) -> None:
        number, origin, icmp_type, code, info, _ = _EXTENDED_ERROR.unpack_from(extended)
        if origin == _FROM_HERE and number == errno.EMSGSIZE:
            self.path_mtu = info
        if origin != self.family.from_icmp:
            return
        family, place = self.family.number, self.family.offender
        offender = extended[_EXTENDED_ERROR.size :][place]
        known = len(offender) == place.stop - place.start and any(offender)
        sender = socket.inet_ntop(family, offender) if known else ""
        rest = info if number == errno.EMSGSIZE else 0
        if icmp_type == self.family.parameter_problem:  # of which the system tells the pointer
            rest = info << 24 if self.family is IPV4 else info
        errors.append(Reported(address[0], address[1], icmp_type, code, rest, sender, quoted))

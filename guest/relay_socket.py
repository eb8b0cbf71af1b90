"""scapy as a guest of a relay's LAN.

``RelaySocket(url, cert_hash=...)`` is a scapy socket like any other: ``recv``, ``send``, ``select``, and the
methods ``sr1``, ``sniff`` and so on. :func:`use_relay` makes a relay scapy's own interface, so that ``srp1``,
``sr1``, ``sniff`` and ``sendp`` without further arguments go through it.

The session lives on an event loop in a thread of its own; scapy's calls block, as they always do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time
from collections import deque
from functools import partial
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from scapy.config import conf
from scapy.error import Scapy_Exception
from scapy.interfaces import InterfaceProvider, NetworkInterface
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.route import Route
from scapy.route6 import Route6
from scapy.supersocket import SuperSocket
from scapy.utils6 import in6_mactoifaceid

from guest.vm_client import VirtualNic, vm_client
from netstack.arp import REQUEST
from netstack.counters import Counters
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV6, format_mac
from transport.admission import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guest.nic_changes import Assigned

RECEIVE_QUEUE = 4096
"""Frames that wait for one socket's ``recv``, about 4 MB; over it the oldest are dropped and counted."""
SEND_TIMEOUT = 5.0
"""Seconds that ``send`` waits for room before it fails as a socket would."""
INTERFACE = "vmrelay"
"""Name under which scapy knows the relay's LAN."""

_LARGEST_FRAME = 65_535


class RelayPeer:
    """A NIC on a relay's LAN with an event loop of its own; feeds any number of scapy sockets.

    Takes the arguments of ``vm_client``. Answers questions for its MAC: whoever scapy talks to must be able
    to answer. Raises ValueError and ConnectError as ``vm_client`` does.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.shown = without_secrets(url)
        """The URL as it may be shown."""
        self.counters: Counters = options.setdefault("counters", Counters())
        self._options: dict[str, Any] = {"reconnect": True} | options
        self._sockets: tuple[RelaySocket, ...] = ()
        self._closed = False
        started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, VirtualNic]]
        started = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(started)), name="relay peer", daemon=True
        )
        self._thread.start()
        try:
            self._loop, self.nic = started.result()
        except Exception:
            self._thread.join()
            raise

    async def _live(
        self, started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, VirtualNic]]
    ) -> None:
        """Run the session until ``close`` cancels this."""
        self._task = asyncio.current_task()
        try:
            async with vm_client(self.url, **self._options) as nic:
                started.set_result((asyncio.get_running_loop(), nic))
                async for frames in nic:
                    self._deliver(nic, frames)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._closed = True
            for relay_socket in self._sockets:
                relay_socket.end()

    def _deliver(self, nic: VirtualNic, frames: Sequence[bytes]) -> None:
        for relay_socket in self._sockets:
            relay_socket.put(frames)
        ipv4 = str(nic.assigned.ip) if nic.assigned is not None else None
        for frame in filter(_may_ask, frames):
            try:
                reply = neighbour_reply(frame, format_mac(nic.mac), ipv4)
            except Exception:  # noqa: BLE001 - whatever a guest's frame makes of scapy must not end the session
                self.counters.add("scapy.drop.odd_question")
                continue
            if reply is not None:
                nic.send([reply])

    @property
    def mac(self) -> str:
        """The NIC's MAC as scapy writes it."""
        return format_mac(self.nic.mac)

    @property
    def assigned(self) -> Assigned | None:
        """The present address, or None where the relay assigns none (raw encapsulation)."""
        return self.nic.assigned

    @property
    def closed(self) -> bool:
        """Whether the session is over for good."""
        return self._closed

    def send(self, frame: bytes) -> None:
        """Send one frame, waiting for room in the queue. Raises OSError when it cannot leave."""
        if self._closed:
            raise OSError(f"the session with {self.shown} is over")
        sent = asyncio.run_coroutine_threadsafe(self._send(frame), self._loop)
        try:
            sent.result(SEND_TIMEOUT)
        except TimeoutError:
            sent.cancel()
            raise OSError(f"{self.shown} takes no more frames") from None

    async def _send(self, frame: bytes) -> None:
        await self.nic.wait_writable()
        if not self.nic.attached:
            raise OSError(f"not attached to {self.shown} at present; trying to reconnect")
        self.nic.send([frame])

    def subscribe(self, relay_socket: RelaySocket) -> None:
        """Deliver frames to a socket, from the next batch on."""
        self._sockets = (*self._sockets, relay_socket)
        if self._closed:
            relay_socket.end()

    def unsubscribe(self, relay_socket: RelaySocket) -> None:
        """Deliver no more frames to a socket."""
        self._sockets = tuple(other for other in self._sockets if other is not relay_socket)

    def close(self) -> None:
        """Leave the LAN; sockets end. Returns when the relay has been told."""
        if self._thread.is_alive() and self._task is not None:
            # RuntimeError: the loop has come to its end by itself in this moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


class RelaySocket(SuperSocket):  # type: ignore[misc] # scapy has no types
    """A scapy socket for Ethernet frames of a relay's LAN.

    ``relay`` is a URL, for which it attaches a peer of its own (``options`` as for ``vm_client``), or a
    :class:`RelayPeer` that it shares. It takes the arguments that scapy gives to its own sockets.
    """

    desc = "Ethernet frames of a relay's LAN"
    closed: bool = False

    def __init__(
        self,
        relay: RelayPeer | str,
        *,
        iface: Any = None,
        type: int | None = None,  # noqa: A002, ARG002 - scapy's name; every type is received
        promisc: bool | None = None,  # noqa: ARG002 - a switch decides what comes
        filter: str | None = None,  # noqa: A002, ARG002 - see sniff: answers are matched without it
        nofilter: int = 0,  # noqa: ARG002
        **options: Any,
    ) -> None:
        self.iface = iface
        self._own_peer = isinstance(relay, str)
        self.peer = RelayPeer(relay, **options) if isinstance(relay, str) else relay
        self._frames: deque[tuple[bytes, float]] = deque()
        self._lock = threading.Lock()
        self._ended = False
        # A byte lies in this pair exactly while there is something to receive: what select looks at.
        self.ins, self._bell = socket.socketpair()
        self.outs = None
        self.peer.subscribe(self)

    def put(self, frames: Sequence[bytes]) -> None:
        """Take received frames (from the peer's thread)."""
        now = time.time()
        with self._lock:
            if self.closed:
                return
            if not self._frames and not self._ended:
                self._bell.send(b"\0")
            self._frames.extend((frame, now) for frame in frames)
            while len(self._frames) > RECEIVE_QUEUE:
                self._frames.popleft()
                self.peer.counters.add("scapy.drop.receive_queue")

    def end(self) -> None:
        """Take note that nothing more will come (from the peer's thread)."""
        with self._lock:
            if not self._ended and not self.closed:
                self._ended = True
                self._bell.send(b"\0")

    def recv_raw(self, x: int = _LARGEST_FRAME) -> tuple[type[Any] | None, bytes | None, float | None]:
        """Return (class, at most ``x`` bytes, time received); waits. Raises EOFError at the end."""
        self.ins.recv(1, socket.MSG_PEEK)
        with self._lock:
            if not self._frames:
                if self._ended:
                    raise EOFError(f"the session with {self.peer.shown} is over")
                return None, None, None
            frame, received = self._frames.popleft()
            if not self._frames and not self._ended:
                self.ins.recv(1)
        return Ether, frame[:x], received

    def send(self, x: Any) -> int:
        """Send a packet (or bytes); return its length. Raises OSError when it cannot leave."""
        frame = bytes(x)
        with contextlib.suppress(AttributeError):
            x.sent_time = time.time()
        self.peer.send(frame)
        return len(frame)

    def close(self) -> None:
        """Close the socket, and the peer that it made."""
        if self.closed or not hasattr(self, "_bell"):
            return
        self.peer.unsubscribe(self)
        with self._lock:
            self.closed = True
            self.ins.close()
            self._bell.close()
        if self._own_peer:
            self.peer.close()


class RelayListenSocket(RelaySocket):
    """What ``sniff`` opens: as it shows all that comes, it cannot pass over a filter."""

    desc = "all frames of a relay's LAN"

    def __init__(self, relay: RelayPeer | str, *, filter: str | None = None, **options: Any) -> None:  # noqa: A002
        if filter is not None:
            raise Scapy_Exception("BPF filters need a device of the kernel's; use lfilter=lambda packet: ...")
        super().__init__(relay, **options)


class RelayIPSocket(RelaySocket):
    """IP packets: what ``sr1`` and ``send`` open. The next hop's MAC is found by ARP."""

    desc = "IP packets on a relay's LAN"

    def recv(self, x: int = _LARGEST_FRAME, **options: Any) -> Any:
        """Return the next packet without its Ethernet header."""
        frame = super().recv(x, **options)
        if frame is None:
            return None
        frame.payload.time = frame.time
        return frame.payload

    def send(self, x: Any) -> int:
        """Send an IP packet; return its length."""
        x.sent_time = time.time()
        return super().send(Ether(src=self.peer.mac) / x)


class _RelayProvider(InterfaceProvider):  # type: ignore[misc] # scapy has no types
    """Tells scapy of the one interface, and which sockets to open on it."""

    name = "vmrelay"

    def __init__(self, peer: RelayPeer) -> None:
        self._peer = peer

    def load(self) -> dict[str, Any]:
        assigned = self._peer.assigned
        ipv4 = str(assigned.ip if assigned is not None else "0.0.0.0")
        data = {
            "name": INTERFACE,
            "description": INTERFACE,
            "network_name": INTERFACE,
            "mac": self._peer.mac,
            "ips": [ipv4, _link_local(self._peer.mac)],
        }
        return {INTERFACE: NetworkInterface(self, data)}

    def _l2socket(self, dev: Any) -> Callable[..., RelaySocket]:  # noqa: ARG002
        return partial(RelaySocket, self._peer)

    def _l2listen(self, dev: Any) -> Callable[..., RelaySocket]:  # noqa: ARG002
        return partial(RelayListenSocket, self._peer)

    def _l3socket(self, dev: Any, ipv6: bool) -> Callable[..., RelaySocket]:  # noqa: ARG002
        return partial(RelayIPSocket, self._peer)


def use_relay(peer: RelayPeer) -> None:
    """Make ``peer`` scapy's interface and the way to everywhere, in place of the machine's own.

    To be called again when the address has changed.
    """
    provider = _RelayProvider(peer)
    conf.ifaces.providers[_RelayProvider] = provider
    conf.ifaces.data.update(provider.load())
    conf.iface = conf.ifaces.data[INTERFACE]
    # Automata look here, and not at the interface. They sort out by themselves what their filter asks for.
    conf.L2socket = conf.L2listen = partial(RelaySocket, peer)
    conf.L3socket = conf.L3socket6 = partial(RelayIPSocket, peer)
    routes = Route()
    if peer.assigned is not None:
        own, lan = str(peer.assigned.ip), peer.assigned.interface.network
        routes.routes = [
            (int(lan.network_address), int(lan.netmask), "0.0.0.0", INTERFACE, own, 1),
            (0, 0, str(peer.assigned.gateway), INTERFACE, own, 1),
        ]
    else:
        routes.routes = [(0, 0, "0.0.0.0", INTERFACE, "0.0.0.0", 1)]
    routes.invalidate_cache()
    routes6 = Route6()
    routes6.routes = [
        (prefix, length, "::", INTERFACE, [_link_local(peer.mac)], 1)
        for prefix, length in (("fe80::", 64), ("ff00::", 8))
    ]
    routes6.invalidate_cache()
    conf.route, conf.route6 = routes, routes6
    conf.netcache.flush()


def _may_ask(frame: bytes) -> bool:
    """Whether a frame is ARP or a neighbour solicitation; cheap, for every frame."""
    ethertype = frame[12:14]
    return ethertype == ETHERTYPE_ARP or (
        ethertype == ETHERTYPE_IPV6 and frame[20:21] == b"\x3a" and frame[54:55] == b"\x87"
    )


def neighbour_reply(frame: bytes, mac: str, ipv4: str | None) -> bytes | None:
    """Answer a question for the MAC of ``ipv4`` or of the link-local address (RFC 826, RFC 4861 section 7.2).

    None for all else, duplicate address detection among it: nobody shall take scapy for a host.
    """
    asked = Ether(frame)
    header = Ether(src=mac, dst=asked.src)
    arp, solicitation = asked.getlayer(ARP), asked.getlayer(ICMPv6ND_NS)
    if arp is not None:
        if arp.op != REQUEST or arp.pdst != ipv4 or arp.psrc in (ipv4, "0.0.0.0"):
            return None
        return bytes(header / ARP(op="is-at", hwsrc=mac, psrc=ipv4, hwdst=arp.hwsrc, pdst=arp.psrc))
    own = _link_local(mac)
    if solicitation is None or solicitation.tgt != own or asked[IPv6].src == "::":
        return None
    advertisement = ICMPv6ND_NA(tgt=own, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return bytes(header / IPv6(src=own, dst=asked[IPv6].src, hlim=255) / advertisement)


def _link_local(mac: str) -> str:
    """Return the IPv6 address that every NIC has (RFC 4291, appendix A)."""
    return str(IPv6Address(f"fe80::{in6_mactoifaceid(mac)}"))

"""What actors need of the outside, as small Protocols: tests hand in plain objects instead.

Implemented by ``transport``; handed in by ``relay``. Addresses are text (``"192.0.2.1"``) because that is
what host sockets take.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from actors.descriptions import PathState
    from actors.port_policy import PortPolicy
    from actors.runtime import Mailbox
    from netstack.room_wire import Binding


class SendResult(Enum):
    """What became of a datagram that a flow wanted to send to the network."""

    SENT = "sent"
    DENIED = "denied"
    """The egress policy forbids the destination, or the host does (EACCES): ICMP 3/13 to the guest."""
    TOO_BIG = "too_big"
    """Larger than the path takes (EMSGSIZE): ICMP 3/4 to the guest."""
    NO_ROUTE = "no_route"
    """The host has no route (ENETUNREACH): ICMP 3/0 to the guest (RFC 1812 section 4.3.3.1)."""
    UNREACHABLE = "unreachable"
    """The host's network does not reach the destination (EHOSTUNREACH): ICMP 3/1 to the guest."""
    REFUSED = "refused"
    """An earlier datagram to the same destination was answered with port unreachable: ICMP 3/3; or a
    connection was refused: RST."""
    DROPPED = "dropped"
    """The host's buffer is full, or another passing error: counted, nothing is said."""


class LeaseMemory(Protocol):
    """What is known of a LAN's guests, those that are gone too; no call waits for a disk."""

    def recall(self) -> Iterable[tuple[bytes, bytes, str]]:
        """Tell MAC, address and name (empty if it has none) of each guest, the one seen longest ago first."""

    def name_of(self, mac: bytes) -> str:
        """Tell what a guest was called last; empty where that is not known."""

    def keep(self, mac: bytes, address: bytes, name: str = "") -> None:
        """Keep in mind that a guest has this lease now; an empty name leaves the one that is known."""


class GuestAddresses(NamedTuple):
    """What the gateway knows of a MAC: its IPv4 addresses, the lease first, its IPv6 ones, and its name."""

    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]
    name: str
    flags: int
    """Of ``netstack.room_wire.Flag``: whether the name is a token's."""
    is_pending: bool = False
    """Whether its address is being decided about."""
    fixed: bytes | None = None
    """The IPv4 address that the operator fixed for it: no guest elsewhere has a better right to it."""


class SessionTerms(NamedTuple):
    """On what terms a client was let in; as ``actors.lan.peer.PeerActor`` is told."""

    name: str
    expires: float
    policy: PortPolicy | None
    token: str


class Passage(Protocol):
    """The way of a session to the worker that holds its client's port.

    What comes back goes to the session by itself. The session's PeerActor is told ClosePeer when the other
    end closes the session, and NotCarried when there is none.
    """

    def pass_on(self, datagrams: Sequence[bytes]) -> None:
        """Pass on what the client has sent."""

    def lost(self, datagrams: Sequence[tuple[bytes, float]]) -> None:
        """Pass on what QUIC takes as lost; as in DatagramsLost."""

    def end(self, code: int, reason: str, *, lost: bool) -> None:
        """Say that the session is gone, as SessionClosed does; harmless when the passage has ended."""


class WorkerPlace(Protocol):
    """Which place a worker has among the others of its machine."""

    @property
    def has_siblings(self) -> bool:
        """Whether this machine has, or is to have, other workers."""

    @property
    def is_lowest(self) -> bool:
        """Whether this machine has no live worker with a lower number; soon after the start all are so."""

    @property
    def is_settled(self) -> bool:
        """Whether this worker has been there for long enough to know the others."""


class RoomLink(WorkerPlace, Protocol):
    """What joins a LAN of this process with the parts of the same room at other workers.

    Events are told to the switch: WorkersChanged, GuestElsewhere, GuestNowhereElse, AddressTaken,
    AddressContested, AddressNeededElsewhere, FramesFromTrunk.
    """

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many parts of a pool this worker begins with, where it decides alone."""

    def attach(self, switch: Mailbox) -> None:
        """Tell a switch from now on what happens elsewhere, and what has happened so far."""

    def describe_by(self, describe: Callable[[bytes], GuestAddresses]) -> None:
        """Have the gateway's word for addresses and names."""

    def key_of(self, worker: int | None = None) -> bytes | None:
        """Give the key for secrets of guests at a worker, this one for None; None where it does not live."""

    def elsewhere(self, mac: bytes) -> tuple[int, Binding] | None:
        """Find a MAC behind a port of another worker."""

    def keeps_name(self, mac: bytes, other: bytes) -> bool:
        """Whether of two guests that have one name, by MAC, it is the first one's."""

    def is_here(self, mac: bytes) -> bool:
        """Whether a MAC was announced as behind a port of this worker."""

    def set_ports(self, ports: int) -> None:
        """Announce how many ports there are here; for none this worker is no member of the room."""

    def present(self, mac: bytes, port: int, client: str, flags: int) -> None:
        """Announce a MAC behind a port of this worker, or what has changed of it."""

    def absent(self, mac: bytes) -> None:
        """Announce that a MAC is behind no port of this worker any more."""

    def touch(self, mac: bytes) -> None:
        """Announce, at the end of the turn, what addresses and name a MAC has now."""

    def send(self, worker: int, frames: list[bytes]) -> None:
        """Send frames to the room's part at a worker."""

    def ask(self, mac: bytes, candidates: tuple[bytes, ...], asker: Mailbox) -> None:
        """Have ``asker`` told, by AddressGranted, which of these addresses a MAC may have."""

    def want_address_of(self, worker: int, mac: bytes) -> None:
        """Have a worker let a guest go whose client is away: its address is needed."""

    def contest(self, worker: int, address: bytes, challenger: bytes) -> None:
        """Have a worker ask its guest whether that still has an address that a guest of ours uses."""

    def may_carry(self, worker: int) -> bool:
        """Whether sessions can be passed on to a worker: one of this machine."""

    def carry(self, worker: int, session: Session, terms: SessionTerms, peer: Mailbox) -> Passage:
        """Open a passage for a session, of the PeerActor ``peer``, to the room's part at a worker."""


class Session(Protocol):
    """One client's WebTransport session."""

    @property
    def id(self) -> int:
        """Number of the session, unique in the life of the process; serves as the switch port."""

    @property
    def remote(self) -> str:
        """The client's present address, for logs: ``"192.0.2.1:50000"``."""

    @property
    def path(self) -> str:
        """The request path with its query, such as ``"/?encap=raw"``."""

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry at present; grows when the path MTU is found to be larger."""

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted by :meth:`send` that have not left yet."""

    @property
    def room(self) -> int:
        """Bytes that producers which can wait should have queued at most; follows the rate of the path."""

    @property
    def writable(self) -> bool:
        """False while the queue is so full that a producer should stop reading from its source."""

    @property
    def last_heard(self) -> float:
        """Monotonic time of the client's last packet of any kind."""

    def path_state(self) -> PathState:
        """Tell what carries the session, and how its packets fare."""

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, when producers may go on; it takes the place of an earlier one."""

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams. Over the bound the oldest are dropped and counted; never blocks or raises."""

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close with a WebTransport code (32 bits) and a reason (at most 1024 bytes of UTF-8)."""


class UdpSocket(Protocol):
    """A host UDP socket that belongs to one flow."""

    @property
    def path_mtu(self) -> int:
        """Bytes of IP packet that the path takes, told with the last TOO_BIG; 0 when that is unknown."""

    def send_to(self, payload: bytes, address: tuple[str, int], ttl: int, dont_fragment: bool) -> SendResult:
        """Send one datagram after asking the egress policy about ``address`` as the guest named it.

        ``dont_fragment`` ones stay whole on their way: TOO_BIG when the host knows that they would not.
        """

    def send_run(
        self, payloads: Sequence[bytes], address: tuple[str, int], ttl: int, dont_fragment: bool
    ) -> int:
        """Send datagrams to one address at the price of few; return how many of the first were sent.

        What kept the next one from being sent, :meth:`send_to` tells.
        """

    def close(self) -> None:
        """Close the socket; nothing is told to the flow any more."""


class EchoSocket(Protocol):
    """A host ICMP socket that belongs to one guest's echo identifier."""

    @property
    def path_mtu(self) -> int:
        """As of :class:`UdpSocket`."""

    def send_echo(
        self, sequence: int, payload: bytes, destination: str, ttl: int, dont_fragment: bool
    ) -> SendResult:
        """Send an echo request after asking the egress policy about ``destination``."""

    def close(self) -> None:
        """Close the socket; nothing is told to the flow any more."""


class Upstream(Protocol):
    """The name servers that the operator named, or that the host uses itself."""

    def ask(self, query: bytes, token: int, asker: Mailbox) -> None:
        """Send a query (its id is replaced); tells ``asker`` NameServerAnswered once, within some seconds."""

    def may_show(self, address: bytes) -> bool:
        """Whether a guest may be told this address: whether it could reach it."""

    def close(self) -> None:
        """Stop asking; nobody is told anything any more."""


class TcpSocket(Protocol):
    """A connection outside that belongs to one TCP flow, or a service of the gateway that acts as one.

    The flow is told ConnectionMade or ConnectionFailed first; all else waits for that.
    """

    @property
    def local_port(self) -> int | None:
        """The port of this machine; None where there is no socket."""

    @property
    def far_end(self) -> tuple[str, int] | None:
        """Address and port outside; None where there is no connection."""

    @property
    def room(self) -> int:
        """Bytes that :meth:`write` takes at present, about."""

    @property
    def unsent(self) -> int:
        """Bytes that were written and the other end may yet acknowledge; 0 where that is unknown."""

    def keep_alive(self, seconds: float) -> None:
        """Have the other end probed after ``seconds`` of silence; never for 0."""

    def read(self, limit: int) -> bytes | None:
        """Read up to ``limit`` bytes; none at the end; None when there is nothing now.

        After None the flow is told SocketReadable when there is. Raises OSError when the connection failed.
        """

    def write(self, chunks: Sequence[bytes]) -> int:
        """Write what fits; return the number of bytes taken. Raises OSError when the connection failed."""

    def wait_for_room(self) -> None:
        """Have the flow told SocketWritable once there is room."""

    def shut_down(self) -> None:
        """End the direction outwards, after all that was written. Raises OSError on failure."""

    def close(self, *, abort: bool = False) -> None:
        """Close, with a RST if ``abort``; harmless when closed already."""


class Accepted(Protocol):
    """A client's TCP connection that waits for a guest to answer; attach or refuse is called, once."""

    @property
    def client(self) -> tuple[str, int]:
        """The client's address and port; link-local ones without their scope."""

    @property
    def local(self) -> tuple[str, int]:
        """The address and port of this machine that the client connected to."""

    def attach(self, flow: Mailbox, preface: bytes = b"") -> TcpSocket:
        """Give it to a flow, which is told ConnectionMade and reads ``preface`` first. Raises OSError."""

    def refuse(self) -> None:
        """Close with a RST: nobody is there."""


class WaitingClients(Protocol):
    """The accept queue of a TCP port that leads to a guest."""

    def take(self) -> Accepted | None:
        """Take the client that waits longest; None when there is none, or none can be taken at present."""

    def watch(self) -> None:
        """Have the port's owner told ClientsWaiting, once, when there is a client to take."""


class Listener(Protocol):
    """A port of the relay's machine that leads to a guest."""

    def close(self) -> None:
        """Give the port back; the owner is told nothing any more."""


class UdpListener(Listener, Protocol):
    """One for UDP: its owner is told DatagramsFromNet.

    There ``address`` is the client's port and a text that names it to :meth:`answer`: its host, and what
    else an answer needs, as the address of this machine that the client wrote to.
    """

    def answer(self, payload: bytes, client: tuple[str, int]) -> SendResult:
        """Send to a client that wrote here before; ``client`` is the address that came with what it wrote."""


class Listeners(Protocol):
    """Opens ports of the relay's machine, of a ``host`` IPv4 or IPv6, for forwards. Both raise OSError.

    One that is ``shared`` may be open at other workers too: what is new comes to who has opened it last.
    """

    def listen_udp(self, owner: Mailbox, host: str, port: int, *, shared: bool = False) -> UdpListener:
        """Bind a UDP port."""

    def listen_tcp(self, owner: Mailbox, host: str, port: int, *, shared: bool = False) -> Listener:
        """Listen on a TCP port; ``owner`` is told ClientsWaiting."""

    def lead_to_guests(self, protocol: str, host: str, port: int) -> None:
        """Let guests reach a port that leads to one of them, whichever process listens there."""

    def lead_no_more(self, protocol: str, host: str, port: int) -> None:
        """Take one ``lead_to_guests`` back."""


class Outside(Protocol):
    """The one choke point through which flows reach the network.

    What arrives is told to ``flow`` as ``DatagramsFromNet``, and what went wrong as ``ErrorsFromNet``. For
    echo sockets a datagram's payload is the ICMP message (type, code, checksum, id, sequence, data) and the
    port is 0. Addresses in what is told are as the guest knows them (host access shows 127.0.0.1 as
    10.0.2.4), and never the relay host's own.
    """

    @property
    def can_ping(self) -> bool:
        """Whether this host lets the process open any kind of ICMP socket."""

    @property
    def has_ipv6(self) -> bool:
        """Whether this host has IPv6 at all."""

    @property
    def has_ipv6_route(self) -> bool:
        """Whether what guests send by IPv6 would go anywhere at this moment; sends nothing."""

    @property
    def udp_ports(self) -> int:
        """How many ports this host has for UDP flows."""

    def allows_udp(self, address: tuple[str, int]) -> bool:
        """Whether the egress policy lets a guest write to ``address``, as the guest names it."""

    def allows_tcp(self, address: tuple[str, int]) -> bool:
        """Whether the egress policy lets a guest connect to ``address``, as the guest names it."""

    def allows_echo(self, address: str) -> bool:
        """Whether the egress policy lets a guest ping ``address``."""

    def open_udp(self, flow: Mailbox, version: int = 4) -> UdpSocket:
        """Open a UDP socket (IPv4 or 6) on a port of the host's choice. Raises OSError when it cannot."""

    def open_echo(self, flow: Mailbox, version: int = 4) -> EchoSocket:
        """Open an ICMP or ICMPv6 (``version``) echo socket. Raises OSError when none can be had."""

    def open_tcp(self, flow: Mailbox, address: tuple[str, int], owner: Hashable) -> TcpSocket:
        """Connect to ``address`` as the guest named it, after asking the egress policy.

        ``owner`` names the guest's own address and port: its connections leave by one port of the host.
        Raises OSError when no socket can be had.
        """

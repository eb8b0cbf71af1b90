"""What actors say to each other, and what the transport says to them.

Data messages are ``NamedTuple`` whose last field is a batch: all that one turn of the event loop brought;
a full inbox may drop those that are marked so (``data_message``). Control messages are frozen dataclasses.
Everything here is immutable once sent: a receiver may keep a batch but must not change it. Names carry the
direction: *from* a client, peer, net; *to* a peer, the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from actors.runtime import data_message
from netstack.ethernet import LAN_MTU

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.line import Line
    from actors.port_policy import PortPolicy
    from actors.ports import SendResult, WaitingClients
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.forward import Forward
    from netstack.multicast import Queries
    from netstack.neighbour_proxy import NeighbourProxy
    from netstack.source_guard import SourceGuard
    from netstack.tcp_time_wait import TimeWait


def full_mtu() -> int:
    """Tell the MTU of Ethernet: the ``link_mtu`` of a port that has no narrower one."""
    return LAN_MTU


class FlowKey(NamedTuple):
    """Names a flow. One of UDP or ICMP has no remote end: it is the guest's whole port (RFC 4787 REQ-1)."""

    port: int
    """Of the switch: two guests never share a flow, whatever address they use."""
    protocol: int
    guest_ip: bytes
    """4 or 16 bytes."""
    guest_port: int
    """Or the echo identifier, which stands for it (RFC 5508)."""
    remote_ip: bytes = b""
    remote_port: int = 0


class FlowOpened(NamedTuple):
    """A flow -> whoever keeps a journal: a flow has begun, or writes to an address that is new to it."""

    port: int
    mac: bytes
    """The guest's."""
    protocol: str
    guest: str
    """Address and port, or the echo identifier."""
    remote: str
    """Address and port: as the guest names it, or a client's own."""
    local: int | None
    """Port of this machine that the flow has towards ``remote``, where it has one of its own."""
    direction: str = "out"
    """``in`` where a client outside opened it through a forward."""


# -- data: batches of frames and datagrams ------------------------------------------------------------


@data_message
class DatagramsFromClient(NamedTuple):
    """Session -> PeerActor: WebTransport datagrams as they came, in order."""

    datagrams: list[bytes]


@data_message
class FramesFromPeer(NamedTuple):
    """PeerActor -> SwitchActor: whole Ethernet frames that a guest sent through ``port``."""

    port: int
    frames: list[bytes]


@data_message
class FramesToPeer(NamedTuple):
    """SwitchActor -> PeerActor: Ethernet frames for the guest."""

    frames: list[bytes]


@data_message
class FramesToGateway(NamedTuple):
    """SwitchActor -> GatewayActor: frames from ``port`` that are addressed to the gateway or flooded."""

    port: int
    frames: list[bytes]


@data_message
class FramesFromGateway(NamedTuple):
    """GatewayActor or a flow -> SwitchActor: frames for the LAN, sent by the gateway's MAC."""

    frames: list[bytes]


@data_message
class FramesToPort(NamedTuple):
    """GatewayActor -> SwitchActor: frames for whoever is behind ``port``, wherever they say that they go."""

    port: int
    frames: list[bytes]


@data_message
class FramesToFlow(NamedTuple):
    """GatewayActor -> flow actor: the guest's frames of one mapping, checked (lengths, checksums)."""

    frames: list[bytes]


@data_message
class FramesReturned(NamedTuple):
    """Flow -> GatewayActor: frames that came from ``port`` for a flow that has ended."""

    port: int
    frames: list[bytes]


class DatagramFromNet(NamedTuple):
    """One datagram that a host socket received: ``address`` is (dotted IPv4 or IPv6, port).

    Of a forward's client it is the name by which that is answered: see ``actors.ports.UdpListener``.
    """

    payload: bytes
    address: tuple[str, int]
    ttl: int


@data_message
class DatagramsFromNet(NamedTuple):
    """Host socket -> flow actor: what one turn of the event loop brought."""

    datagrams: list[DatagramFromNet]


class DnsQuestion(NamedTuple):
    """A query of a guest as it came; ``reply`` sends the response back the same way.

    Over a stream it is called for every query, with nothing where there is no response.
    ``limit`` is how many bytes of a response fit into one packet to the guest.
    """

    query: bytes
    over_stream: bool
    reply: Callable[[bytes], None]
    limit: int = 65_535


@data_message
class DnsQuestions(NamedTuple):
    """GatewayActor or a stream -> DnsActor: what guests of ``port`` want to know."""

    port: int
    questions: list[DnsQuestion]


class ErrorFromNet(NamedTuple):
    """An ICMP error about a datagram that a flow sent to ``address`` (as in DatagramFromNet)."""

    address: tuple[str, int]
    type: int
    code: int
    rest: int
    """Bytes 4 to 7 of the error: what the path takes, or where in the packet the problem is; else 0."""
    router: str
    """Who sent the error, where guests may know that; else empty."""
    quoted: bytes
    """The first bytes of what was sent: a UDP payload, or an ICMP message."""


@data_message
class ErrorsFromNet(NamedTuple):
    """Host socket -> flow actor: ICMP errors of one turn of the event loop."""

    errors: list[ErrorFromNet]


# -- control: sessions, ports and addresses -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """Session -> PeerActor: the client is gone; nothing sent from now on arrives.

    ``lost``: neither side ended the session; the client may come back.
    """

    code: int
    reason: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ClosePeer:
    """Anyone -> PeerActor: close the session with ``code`` and ``reason``, then stop."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """Anyone -> PeerActor, SwitchActor, GatewayActor, PortForwardActor: go by these settings from now on.

    They differ in ``actors.settings.CHANGEABLE`` only. The gateway's egress policy may have changed too.
    """

    settings: LanSettings


@dataclass(frozen=True, slots=True)
class AnswersOutdated:
    """Anyone -> DnsActor: forget what was answered: other name servers may say something else."""


@dataclass(frozen=True, slots=True)
class RelayDrains:
    """Anyone -> PeerActor: the relay takes no new sessions; this one has ``seconds``, None for no limit."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class PortOpened:
    """PeerActor -> SwitchActor: attach ``port``; frames for it go to ``peer``.

    ``last_heard`` returns the monotonic time of the client's last packet: a session that has fallen silent
    gives way to a new one with the same MAC. ``link_mtu`` returns the largest IP packet that its guests
    should be sent at present, ``line`` tells how much the session takes; None where that does not matter.
    """

    port: int
    peer: Mailbox
    last_heard: Callable[[], float]
    link_mtu: Callable[[], int] = full_mtu
    line: Line | None = None
    client: Callable[[], str] = str
    """Returns the host from which the client's packets come at present; empty when that is not known."""
    policy: PortPolicy | None = None
    """What the port may; None for what the LAN's settings say."""


@dataclass(frozen=True, slots=True)
class PortLimited:
    """SwitchActor -> GatewayActor: ``port``, of which no frame came yet, may what ``policy`` says."""

    port: int
    policy: PortPolicy


@dataclass(frozen=True, slots=True)
class GatewayAttached:
    """GatewayActor -> SwitchActor: frames for the gateway's MAC, and flooded ones, go to ``gateway``.

    ``sources`` tells whose address is whose, by the gateway's tables; None lets guests use any. With
    ``queries`` the gateway asks, through the switch, who listens to which multicast groups.
    """

    gateway: Mailbox
    sources: SourceGuard | None = None
    queries: Queries | None = None
    neighbours: NeighbourProxy | None = None
    """Answers for guests of other workers who asks where these are; None in a room of one process."""


@dataclass(frozen=True, slots=True)
class PortClosed:
    """PeerActor -> SwitchActor -> GatewayActor: forget the port, its MACs, addresses and flows.

    ``peer`` says who ends it: the port may be another session's by then.
    """

    port: int
    peer: Mailbox | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PortAbsent:
    """PeerActor -> SwitchActor: the client of ``port`` was lost; ``peer`` keeps the port for a while."""

    port: int
    peer: Mailbox


@dataclass(frozen=True, slots=True)
class AddressWanted:
    """GatewayActor -> SwitchActor: there is no address for a guest; ask again, once somebody gave one up.

    There is none at all, or its client has its ``share`` of them.
    """

    registration: AssignAddress
    share: bool


@dataclass(frozen=True, slots=True)
class PortResumed:
    """SwitchActor -> PeerActor: ``port`` is yours, with all that is on it: your client had it before.

    ``line`` is the one that its flows use.
    """

    port: int
    line: Line | None


@dataclass(frozen=True, slots=True)
class PortTaken:
    """SwitchActor -> PeerActor: your client is back, and ``successor`` has your port; end."""

    successor: Mailbox


@dataclass(frozen=True, slots=True)
class AddressUsed:
    """SwitchActor -> GatewayActor: ``mac`` behind ``port`` uses ``address``, its own or ``contested``."""

    port: int
    mac: bytes
    address: bytes
    contested: bool


@dataclass(frozen=True, slots=True)
class MacAgedOut:
    """SwitchActor -> GatewayActor: nothing came from ``mac`` for long; ``port`` has another now."""

    port: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class RegisterMac:
    """PeerActor -> SwitchActor: bind ``mac`` (6 bytes) to ``port``.

    ``explicit`` is true for a client's Register, which may take the MAC over from an older session of the
    same client's, and false where a data frame of an unregistered session stands for it.
    """

    port: int
    mac: bytes
    explicit: bool
    name: str = ""
    """Host name that the client gave, for the LAN's DNS."""
    resume: str = ""
    """Secret by which the client says that the MAC is its own, or empty."""
    name_is_fixed: bool = False
    """Whether ``name`` is not for the client to choose, by DHCP neither."""
    wanted: bytes | None = None
    """The address that the client says it had, 4 bytes."""
    stays: bool = False
    """Whether the session is not to be carried to another worker, whoever has a port of its client."""


@dataclass(frozen=True, slots=True)
class RegistrationRefused:
    """SwitchActor or GatewayActor -> PeerActor: no registration of ``mac``, and why (shown to the client)."""

    reason: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class SourceRefused:
    """SwitchActor -> PeerActor: frames from ``mac`` are dropped, and why. Not told of each of them."""

    reason: str
    mac: bytes


ADDRESS_ATTEMPTS = 8
"""An address that one gave up may be another worker's guest's by the time it is asked for."""


@dataclass(frozen=True, slots=True)
class AssignAddress:
    """SwitchActor -> GatewayActor: ``mac`` now belongs to ``port``; give it an address, tell ``peer``.

    ``name`` is the host name that the client gave, ``link_mtu`` and ``line`` as in PortOpened.
    """

    port: int
    mac: bytes
    peer: Mailbox
    name: str = ""
    link_mtu: Callable[[], int] = full_mtu
    line: Line | None = None
    resume: str = ""
    """Secret for the client to come back with."""
    client: str = ""
    """The network (``netstack.shares``) that the client's packets come from; empty when that is not known."""
    name_is_fixed: bool = False
    """As in RegisterMac."""
    wanted: bytes | None = None
    """As in RegisterMac."""
    attempts_left: int = ADDRESS_ATTEMPTS
    """How often clients that are away may still be asked for theirs, where there is none."""


@dataclass(frozen=True, slots=True)
class AddressAssigned:
    """GatewayActor -> PeerActor: the address of ``mac``. All addresses are 4 bytes, network order."""

    mac: bytes
    ip: bytes
    gateway: bytes
    netmask: bytes
    dns: bytes
    mtu: int = LAN_MTU
    resume: str = ""


@dataclass(frozen=True, slots=True)
class LeasesChanged:
    """GatewayActor -> itself: guests have other addresses now than they were told."""


@dataclass(frozen=True, slots=True)
class PeerListRequest:
    """PeerActor -> GatewayActor (through the switch): who is on the LAN? Answered with PeerList."""

    peer: Mailbox


@dataclass(frozen=True, slots=True)
class PeerList:
    """GatewayActor -> PeerActor: (ip, mac) of every registered guest, 4 and 6 bytes."""

    peers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class NameBound:
    """GatewayActor -> DnsActor: the guest ``mac`` has ``address`` and calls itself ``name``, if anything.

    ``granted`` names are those of tokens.
    """

    mac: bytes
    address: bytes
    name: str
    granted: bool = False


@dataclass(frozen=True, slots=True)
class Ipv6AddressesKnown:
    """GatewayActor -> DnsActor: where in the prefix the guest ``mac`` is reached by now, the best first."""

    mac: bytes
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NameForgotten:
    """GatewayActor -> DnsActor: the guest ``mac`` is gone."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class DnsStreamOpened:
    """DnsStream -> DnsActor: ``flow`` is to be told ConnectionMade, by when it has its guest's SYN."""

    flow: Mailbox


@dataclass(frozen=True, slots=True)
class NameServerAnswered:
    """Upstream -> DnsActor: the response to the query asked with ``token``; None when none could be had."""

    token: int
    response: bytes | None


@dataclass(frozen=True, slots=True)
class FlowClosed:
    """Flow actor -> GatewayActor: the mapping ended (idle, failed or stopped); forget it."""

    key: FlowKey


@dataclass(frozen=True, slots=True)
class GuestRefused:
    """GatewayActor -> flow of a forward: the guest says by ICMP that it does not take the connection.

    ``sequence`` is that of the segment which it got, 32 bits.
    """

    sequence: int


@dataclass(frozen=True, slots=True)
class SegmentTooBig:
    """GatewayActor -> TCP flow: the guest says by ICMP that no larger packet than ``mtu`` passes.

    ``sequence`` is that of the segment which did not, 32 bits.
    """

    sequence: int
    mtu: int


@dataclass(frozen=True, slots=True)
class FlowRests:
    """TCP flow -> GatewayActor, before FlowClosed: the connection is in TIME-WAIT."""

    key: FlowKey
    entry: TimeWait


@dataclass(frozen=True, slots=True)
class FlowEstablished:
    """TCP flow -> GatewayActor: the guest completed the handshake; the flow is half-open no longer."""

    key: FlowKey


@dataclass(frozen=True, slots=True)
class FlowAnswered:
    """UDP or ICMP flow -> GatewayActor, once: somebody answered the guest."""

    key: FlowKey


class DatagramsLost(NamedTuple):
    """Session -> PeerActor: datagrams that QUIC takes as lost, each with the time at which it left.

    Or those that waited too long for that, and since when.
    """

    datagrams: list[tuple[bytes, float]]


@dataclass(frozen=True, slots=True)
class ConnectionMade:
    """Host socket -> TCP flow: the connection outside stands."""


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """Host socket -> TCP flow: there is no connection outside; DROPPED means that nobody answered."""

    result: SendResult


@dataclass(frozen=True, slots=True)
class ConnectionForbidden:
    """GatewayActor -> TCP flow: the egress policy forbids its destination by now."""


@dataclass(frozen=True, slots=True)
class SocketReadable:
    """Host socket -> TCP flow: there is something to read, after there was nothing."""


@dataclass(frozen=True, slots=True)
class SocketWritable:
    """Host socket -> TCP flow: there is room again."""


@dataclass(frozen=True, slots=True)
class ClientsWaiting:
    """TCP listener -> PortForwardActor: clients outside have connected, and wait until they are taken.

    Told once, until the listener is told to watch again.
    """

    clients: WaitingClients


@dataclass(frozen=True, slots=True)
class ForwardOpened:
    """PortForwardActor -> GatewayActor: what guests send to the clients of forward ``index`` goes here."""

    index: int
    forward: Mailbox


@dataclass(frozen=True, slots=True)
class GuestWanted:
    """PortForwardActor -> GatewayActor: tell me of the guest of this MAC (6 bytes), address (4) or name."""

    vm: bytes | str
    forward: Mailbox


@dataclass(frozen=True, slots=True)
class GuestFound:
    """GatewayActor -> PortForwardActor: the guest's MAC and addresses at present, None while it is absent.

    ``elsewhere``: another worker has it.
    """

    mac: bytes | None
    ip: bytes | None
    ip6: bytes | None = None
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class ClientShown:
    """PortForwardActor -> GatewayActor: what a guest sends from here to this client goes to ``forward``.

    ``ends`` are the guest's address and port, and the client's, one behind the other.
    """

    ends: bytes
    forward: Mailbox


@dataclass(frozen=True, slots=True)
class ClientGone:
    """PortForwardActor -> GatewayActor: take back a ClientShown."""

    ends: bytes
    forward: Mailbox


@dataclass(frozen=True, slots=True)
class TcpForGuest:
    """PortForwardActor -> GatewayActor: connect these clients of forward ``index`` to its guest."""

    index: int
    forward: Forward
    clients: WaitingClients


@dataclass(frozen=True, slots=True)
class PeerAt:
    """Operator -> SwitchActor: who has this port now? Answered with the peer's mailbox, None for nobody."""

    port: int


@dataclass(frozen=True, slots=True)
class BlockMacs:
    """Operator -> SwitchActor: nobody may have these MACs from now on, and no others are blocked."""

    macs: frozenset[bytes]

"""A TAP device: the kernel's end of an Ethernet cable whose other end is this process (Linux only).

Where the kernel can, it leaves segmentation and checksums to this process (``netstack.offload``), which costs
it and us less: one read is up to 64 KB of TCP, and so is one write. To the LAN that is no different.

Sources: linux/if_tun.h, linux/sockios.h, linux/route.h, netdevice(7), setns(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from guest import tun_devices
from netstack.ethernet import LAN_MTU
from netstack.offload import OFFLOAD_HEADER, merge, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Interface

    from netstack.counters import Counters

CLONE_DEVICE = Path("/dev/net/tun")
NAMESPACES = Path("/run/netns")
"""Where ``ip netns add NAME`` puts its names."""

MAX_NAME = 15
"""IFNAMSIZ less the terminating zero."""
MAX_FRAME = OFFLOAD_HEADER + 65_535 + 18
"""Bytes read at once: more than any device can be told to send (an IP packet and a VLAN tag)."""
READS_PER_TURN = 64
"""Reads per readiness event, so that the event loop gets to everything else in between."""
BYTES_PER_TURN = 64 * 1024
"""Bytes after which no further read is made: a session's queue must have room for all that a turn brings."""
ROUTE_METRIC = 2000
"""Priority of the default route: behind those that a machine has by other means."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNGETFEATURES = 0x800454CF
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETVNETLE = 0x400454DC
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN."""
# linux/sockios.h, linux/if.h, linux/route.h
_SIOCADDRT = 0x890B
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_SIOCSIFMTU = 0x8922
_SIOCSIFHWADDR = 0x8924
_SIOCGIFHWADDR = 0x8927
_IFF_UP = 0x1
_RTF_UP = 0x1
_RTF_GATEWAY = 0x2
_ARPHRD_ETHER = 1
# linux/sched.h
_CLONE_NEWNET = 0x40000000

_REQUEST = struct.Struct("16s24s")
"""struct ifreq: the name and a union of 24 bytes (on 64-bit machines; 16 suffice on others)."""
_SOCKADDR_IN = struct.Struct("=HH4s8x")
_RTENTRY = struct.Struct("@L16s16s16sHhLPhPLLH0L")

_OPEN_ERRORS = {
    errno.ENOENT: f"{CLONE_DEVICE} does not exist: the kernel has no TUN/TAP driver (modprobe tun), or "
    "this container was not given the device",
    errno.EACCES: f"no permission to open {CLONE_DEVICE}; it takes root or CAP_NET_ADMIN",
    errno.ENODEV: "the kernel has no TUN/TAP driver (modprobe tun)",
}
_IN_USE = "the device is in use by another process"
_ATTACH_ERRORS = {
    errno.EPERM: "no permission to make the device; it takes root or CAP_NET_ADMIN",
    errno.EBUSY: _IN_USE,
    errno.EINVAL: "there is a device of this name that is not a TAP device, or the name is not allowed",
    errno.EEXIST: "there is a device of this name that is not a TAP device",
}

_NOT_ETHERNET = (
    "there is a TUN device of this name, which carries IP packets and no Ethernet frames; delete it, or make "
    "one by 'ip tuntap add mode tap'"
)

OWN_NAMESPACE = Path("/proc/self/ns/net")

T = TypeVar("T")


class TapError(Exception):
    """The device cannot be had, and why, in one line."""


def namespace_path(name: str | None) -> Path:
    """Return the file of a network namespace, which is a name of ``ip netns``, a path, or None for ours."""
    if name is None:
        return OWN_NAMESPACE
    return Path(name) if "/" in name else NAMESPACES / name


def in_namespace(name: str, action: Callable[[], T]) -> T:
    """Call ``action`` inside a network namespace (a name of ``ip netns``, or a path) and return its result.

    What it opens stays there: sockets and devices belong to the namespace they were made in. A thread of its
    own enters the namespace and ends there, so that this one never leaves its own. Raises TapError.
    """
    path = namespace_path(name)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            _set_namespace(path)
            outcome.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            failure.append(error)

    thread = threading.Thread(target=enter, name="namespace")
    thread.start()
    thread.join()
    if not failure:
        return outcome[0]
    if isinstance(failure[0], OSError):
        reason = failure[0].strerror or failure[0]
        raise TapError(f"network namespace {name}: {reason}") from None
    raise failure[0]


def _set_namespace(path: Path) -> None:
    """Move the calling thread to a network namespace (os.setns came with Python 3.12)."""
    with path.open("rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class Tap:
    """An open TAP device, for use on the event loop. It disappears when closed, unless it was persistent."""

    def __init__(self, name: str, counters: Counters, namespace: str | None = None) -> None:
        """Make the device ``name``, or take over a persistent one. Raises TapError."""
        if not name or len(name.encode()) > MAX_NAME or "/" in name or any(map(str.isspace, name)):
            raise TapError(
                f"{name[:80]!r} is not a device name: 1 to {MAX_NAME} bytes without spaces or slashes"
            )
        self.name = name
        self._counters = counters
        self._mtu = LAN_MTU
        self.offload = False
        """Whether the kernel leaves segmentation and checksums to this process."""
        self._has_address = False
        if namespace is None:
            self._fd, self._control = self._open()
        else:
            self._fd, self._control = in_namespace(namespace, self._open)

    def _open(self) -> tuple[int, socket.socket]:
        """Return the device and a socket of its namespace, through which it is set up."""
        try:
            fd = os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._error(error, _OPEN_ERRORS) from None
        try:
            self._take(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _take(self, fd: int) -> None:
        """Make ``fd`` the device, or the one queue in use of a device made for several."""
        flags = _IFF_TAP | _IFF_NO_PI
        try:
            self.offload = bool(_features(fd) & _IFF_VNET_HDR)
            if self.offload:
                flags |= _IFF_VNET_HDR
            try:
                self._set_interface(fd, flags)
            except OSError as error:
                kind = tun_devices.kind_of(self.name) if error.errno == errno.EINVAL else ""
                if kind == "tun":
                    raise TapError(f"{self.name}: {_NOT_ETHERNET}") from None
                if kind != "tap":
                    raise
                self._set_interface(fd, flags | _IFF_MULTI_QUEUE)
                # Another process's queue would get its share of the frames, and says what they look like.
                if tun_devices.queues_of(self.name) > 1:
                    raise TapError(f"{self.name}: {_IN_USE}") from None
            # A process before this one may have left anything.
            if self.offload:
                fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", OFFLOAD_HEADER))
                fcntl.ioctl(fd, _TUNSETVNETLE, struct.pack("=i", 1))
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOADS if self.offload else 0)
        except OSError as error:
            raise self._error(error, _ATTACH_ERRORS) from None

    def _set_interface(self, fd: int, flags: int) -> None:
        """Take the device of this name; of a pattern such as ``tap%d`` the kernel makes one that is free."""
        made = fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
        self.name = made[:16].partition(b"\0")[0].decode()

    def close(self) -> None:
        """Close the device; one that stays is left to whoever takes it next as if nobody had had it."""
        if self.offload:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, _TUNSETOFFLOAD, 0)
        if self._has_address:
            # Its routes go with it.
            with contextlib.suppress(TapError):
                self._ioctl(_SIOCSIFADDR, _socket_address(IPv4Address(0)) + bytes(8))
        self._control.close()
        os.close(self._fd)

    # -- frames -----------------------------------------------------------------------------------

    async def read(self) -> list[bytes]:
        """Return the frames that the kernel has sent, at least one; TapError when the device is gone."""
        while not (frames := self._drain()):
            await self._readable()
        return frames

    def _drain(self) -> list[bytes]:
        frames: list[bytes] = []
        left = BYTES_PER_TURN
        try:
            for _ in range(READS_PER_TURN):
                data = os.read(self._fd, MAX_FRAME)
                if self.offload:
                    self._split(data, frames)
                else:
                    frames.append(data)
                left -= len(data)
                if left <= 0:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if not frames:
                raise self._error(error, {errno.EBADFD: "the device was deleted"}) from None
        return frames

    def _split(self, data: bytes, frames: list[bytes]) -> None:
        try:
            frames += split(data, self._mtu)
        except ValueError:
            self._counters.add("tap.drop.malformed_offload")

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._fd)

    def write(self, frames: Sequence[bytes]) -> None:
        """Hand frames to the kernel; what it does not take (the device is down) is counted and dropped."""
        writes = merge(frames) if self.offload else [(frame, 1) for frame in frames]
        for data, count in writes:
            try:
                os.write(self._fd, data)
            except OSError:
                self._counters.add("tap.drop.write_failed", count)

    # -- setting up -------------------------------------------------------------------------------

    @property
    def mac(self) -> bytes:
        """The device's own address, which the kernel puts into its frames."""
        return self._ioctl(_SIOCGIFHWADDR, bytes(24))[18:24]

    def set_mac(self, mac: bytes) -> None:
        """Give the device another address; possible while it is down."""
        self._ioctl(_SIOCSIFHWADDR, struct.pack("=H6s16x", _ARPHRD_ETHER, mac))

    def set_mtu(self, mtu: int) -> None:
        """Set the largest IP packet that the kernel sends, or that its TCP is cut to."""
        self._mtu = mtu
        self._ioctl(_SIOCSIFMTU, struct.pack("=i20x", mtu))

    def bring_up(self) -> None:
        """Switch the device on."""
        (flags,) = struct.unpack_from("=H", self._ioctl(_SIOCGIFFLAGS, bytes(24)), 16)
        self._ioctl(_SIOCSIFFLAGS, struct.pack("=H22x", flags | _IFF_UP))

    def set_address(self, interface: IPv4Interface, gateway: IPv4Address) -> None:
        """Give the kernel an address on the device, and a default route behind any that it has.

        They are gone once the device is closed.
        """
        self._has_address = True
        self._ioctl(_SIOCSIFADDR, _socket_address(interface.ip) + bytes(8))
        self._ioctl(_SIOCSIFNETMASK, _socket_address(interface.netmask) + bytes(8))
        device = ctypes.create_string_buffer(self.name.encode())
        anywhere = _SOCKADDR_IN.pack(socket.AF_INET, 0, bytes(4))
        route = _RTENTRY.pack(
            0,
            anywhere,
            _socket_address(gateway),
            anywhere,
            _RTF_UP | _RTF_GATEWAY,
            0,
            0,
            0,
            ROUTE_METRIC + 1,
            ctypes.addressof(device),
            0,
            0,
            0,
        )
        try:
            fcntl.ioctl(self._control, _SIOCADDRT, route)
        except FileExistsError:
            pass
        except OSError as error:
            raise self._error(error, {}) from None

    def _ioctl(self, request: int, value: bytes) -> bytes:
        try:
            return fcntl.ioctl(self._control, request, _REQUEST.pack(self.name.encode(), value))
        except OSError as error:
            raise self._error(error, {errno.EPERM: _ATTACH_ERRORS[errno.EPERM]}) from None

    def _error(self, error: OSError, reasons: dict[int, str]) -> TapError:
        return TapError(f"{self.name}: {reasons.get(error.errno or 0, error.strerror or error)}")


def _features(fd: int) -> int:
    """Return the flags that this kernel knows for such devices."""
    (features,) = struct.unpack("=I", fcntl.ioctl(fd, _TUNGETFEATURES, bytes(4)))
    return int(features)


def _socket_address(address: IPv4Address) -> bytes:
    return _SOCKADDR_IN.pack(socket.AF_INET, 0, address.packed)

"""Filters in tcpdump's syntax, compiled and run by libpcap (pcap-filter(7)) where the system has it.

Compiling asks the system's resolver for the names in a filter, which may take as long as the name servers
are silent: where others wait, it is :class:`Filters` that has it done.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
from functools import partial

from netstack.pcapng import LINKTYPE_ETHERNET
from transport.daemon_threads import in_daemon_thread

MAX_EXPRESSION = 4096
"""Characters."""

COMPILE_TIMEOUT = 5.0
"""Seconds for a filter, with what comes before it; less than a worker is given to begin an answer."""

_NAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.dylib")
_LONGEST_FRAME = 65535


class FilterError(Exception):
    """There is no such filter, or no libpcap; the message is one line."""


_LOAD_MODE, _LOAD_AT = 0xE7, 0x20
"""What instructions have in common that load from a place of the frame (BPF_LD | BPF_ABS, of any size)."""

_OF_KERNEL = 0xFFFFF000
"""Places from here on are the kernel's, which knows more of a packet than is in it (SKF_AD_OFF)."""


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("true", ctypes.c_uint8),
        ("false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction))]

    @property
    def asks_kernel(self) -> bool:
        """Whether it asks for what a frame alone does not tell: it would fit none."""
        return any(
            (each.code & _LOAD_MODE) == _LOAD_AT and each.operand >= _OF_KERNEL
            for each in self.instructions[: self.length]
        )


class _Header(ctypes.Structure):
    _fields_ = [
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("kept", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    ]


def _library() -> ctypes.CDLL:
    for name in (*_NAMES, ctypes.util.find_library("pcap")):
        if name is not None:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    raise FilterError("filters need libpcap, which is not installed (on Debian: apt install libpcap0.8)")


class Filter:
    """Decides which frames are wanted. For one thread at a time."""

    def __init__(self, expression: str) -> None:
        """Compile a filter. Raises FilterError."""
        if len(expression) > MAX_EXPRESSION or "\0" in expression:
            raise FilterError("the filter is too long, or has a zero byte")
        self._pcap = pcap = _library()
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_offline_filter.argtypes = [
            ctypes.POINTER(_Program),
            ctypes.POINTER(_Header),
            ctypes.c_char_p,
        ]
        handle = ctypes.c_void_p(pcap.pcap_open_dead(LINKTYPE_ETHERNET, _LONGEST_FRAME))
        self._program = _Program()
        try:
            text = expression.encode()
            if pcap.pcap_compile(handle, ctypes.byref(self._program), text, 1, 0xFFFFFFFF):
                said = pcap.pcap_geterr(handle).decode(errors="replace")
                raise FilterError(f"no filter: {' '.join(said.split())}")
            if self._program.asks_kernel:
                raise FilterError(
                    "no filter: only a network interface tells inbound from outbound, and the like"
                )
        finally:
            pcap.pcap_close(handle)
        self._header = _Header()

    def __call__(self, frame: bytes) -> bool:
        """Whether a frame is wanted."""
        self._header.kept = self._header.length = len(frame)
        return bool(
            self._pcap.pcap_offline_filter(ctypes.byref(self._program), ctypes.byref(self._header), frame)
        )

    def __del__(self) -> None:
        """Free what libpcap has compiled."""
        if getattr(self, "_program", None) is not None and self._program.instructions:
            self._pcap.pcap_freecode(ctypes.byref(self._program))


class Filters:
    """Compiles filters beside the event loop, one at a time. For the event loop's thread.

    Nothing ends a thread that waits for a name server. So there is one at most, of its own: it takes no place
    of the pool that reads files, and the process ends without it.
    """

    def __init__(self) -> None:
        self._is_compiling = asyncio.Lock()
        """Held until a thread has ended, whether somebody waits for it still or not."""

    async def compile(self, expression: str) -> Filter:
        """Compile a filter within COMPILE_TIMEOUT. Raises FilterError."""
        try:
            async with asyncio.timeout(COMPILE_TIMEOUT):
                await self._is_compiling.acquire()
                return await asyncio.shield(self._begin(expression))
        except TimeoutError:
            raise FilterError("the names in filters are not answered in time; give addresses") from None

    def _begin(self, expression: str) -> asyncio.Future[Filter]:
        try:
            compiled = in_daemon_thread(partial(Filter, expression), "filter")
        except RuntimeError as error:  # the system has no more threads
            self._is_compiling.release()
            raise FilterError(str(error)) from None
        compiled.add_done_callback(self._end)
        return compiled

    def _end(self, compiled: asyncio.Future[Filter]) -> None:
        self._is_compiling.release()
        compiled.exception()  # perhaps nobody waits for it any more

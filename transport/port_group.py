"""Sockets of several processes at one port, and a program by which the kernel chooses among them.

Sockets that were bound with ``SO_REUSEPORT`` to one address and port, by one user, are a group. Which of them
a datagram or a new connection is for says a program of classic BPF (Linux 4.6, ``SO_ATTACH_REUSEPORT_CBPF``;
bpf(4) has the instructions): it returns a number in the group, and where there is none such the kernel takes
any. Sockets are numbered from 0 on in the order in which they were bound (UDP) or listened (TCP); when one is
closed the last takes its number.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SO_ATTACH_REUSEPORT_CBPF = 51
"""Linux, level SOL_SOCKET (asm-generic/socket.h)."""

INSTRUCTION = struct.Struct("HBBI")
"""struct sock_filter: code, offset if true, offset if false, operand."""
_PROGRAM = struct.Struct("HP")
"""struct sock_fprog: number of instructions, their address."""

RETURN = 0x06
"""BPF's RET|K."""


def pack_program(instructions: Sequence[tuple[int, int, int, int]]) -> bytes:
    """Pack a program for :func:`attach`."""
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions)


def attach(group: socket.socket, program: bytes) -> None:
    """Have the kernel choose by a program from now on; ``group`` is any socket of it. Raises OSError."""
    kept = ctypes.create_string_buffer(program, len(program))
    told = _PROGRAM.pack(len(program) // INSTRUCTION.size, ctypes.addressof(kept))
    group.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, told)


def prefer_second(group: socket.socket) -> None:
    """Have all that is new go to the second of two, and to the one that is left. Raises OSError."""
    attach(group, pack_program([(RETURN, 0, 0, 1)]))

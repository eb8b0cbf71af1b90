"""Which worker a packet is for, and the program that has the kernel know it.

Theory of operation. Workers share a UDP port: each has a socket of its own, bound with ``SO_REUSEPORT``, and
the kernel asks a program which of them a packet is for (``transport.port_group``). The program looks at the
first byte of the destination connection ID: byte 1 of a short header, byte 6 of a long one (RFC 9000, 17).
Modulo the number of workers that is the worker's number, for workers issue only IDs that begin so; a client's
first ID is random, and so is the worker that accepts it. What is for a worker that is away goes to one of the
others, which are chosen by the rest of that byte.

When one of the group is closed the last takes its number: whoever bound them keeps them open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from transport.port_group import RETURN, attach, pack_program

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

LONG_HEADER: Final = 0x80
SHORT_PLACE, LONG_PLACE = 1, 6
"""Where a packet has the first byte of its destination connection ID."""

_LOAD, _IF_BITS, _IF_EQUAL, _JUMP = 0x30, 0x45, 0x15, 0x05
_MODULO, _DIVIDE, _KEEP, _RECALL, _RETURN_IT = 0x94, 0x34, 0x07, 0x87, 0x16
"""BPF's LD|B|ABS, JMP|JSET, JMP|JEQ, JMP|JA, ALU|MOD, ALU|DIV, MISC|TAX, MISC|TXA and RET|A."""


def first_byte(packet: bytes) -> int:
    """Return the first byte of a packet's destination connection ID; 0 where it has none."""
    place = LONG_PLACE if packet and packet[0] >= LONG_HEADER else SHORT_PLACE
    return packet[place] if len(packet) > place else 0


def owner(first: int, count: int, live: Sequence[int]) -> int:
    """Return the number of the worker that gets what begins with this byte; ``live`` are those that run."""
    number = first % count
    return number if number in live or not live else live[first // count % len(live)]


def program(count: int, live: Sequence[int]) -> bytes:
    """Write :func:`owner` as a program of classic BPF, over the payload of UDP datagrams."""
    away = [number for number in range(count) if number not in live] if live else []
    instructions = [
        (_LOAD, 0, 0, 0),
        (_IF_BITS, 2, 0, LONG_HEADER),
        (_LOAD, 0, 0, SHORT_PLACE),
        (_JUMP, 0, 0, 1),
        (_LOAD, 0, 0, LONG_PLACE),
        (_KEEP, 0, 0, 0),
        (_MODULO, 0, 0, count),
        *((_IF_EQUAL, len(away) - place, 0, number) for place, number in enumerate(away)),
        (_RETURN_IT, 0, 0, 0),
    ]
    if away:
        instructions += [(_RECALL, 0, 0, 0), (_DIVIDE, 0, 0, count), (_MODULO, 0, 0, len(live))]
        for place, number in enumerate(live):
            instructions += [(_IF_EQUAL, 0, 1, place), (RETURN, 0, 0, number)]
        instructions.append((RETURN, 0, 0, live[0]))
    return pack_program(instructions)


def steer(group: socket.socket, count: int, live: Sequence[int]) -> None:
    """Have the kernel steer by :func:`owner` from now on; ``group`` is any socket of it. Raises OSError."""
    attach(group, program(count, live))

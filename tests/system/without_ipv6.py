"""Run a command on a kernel without IPv6, as far as it can tell: sockets of that family cannot be made.

    python without_ipv6.py COMMAND ...

A seccomp filter (seccomp(2)) answers socket(AF_INET6, ...) as such a kernel does. Others are not touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
"""Number of socket(2), by machine."""
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16
"""Places in struct seccomp_data; of the argument its low half, on little-endian machines."""
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
"""Instructions of classic BPF (linux/bpf_common.h): 32 bits at a place; compare with a constant."""
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
"""Of prctl(2)."""


def instruction(code, constant, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, constant)


def forbid_ipv6():
    program = b"".join(
        [
            instruction(LOAD, NUMBER_AT),
            instruction(JUMP_IF_EQUAL, SOCKET_CALL[os.uname().machine], 0, 3),
            instruction(LOAD, FIRST_ARGUMENT_AT),
            instruction(JUMP_IF_EQUAL, int(socket.AF_INET6), 0, 1),
            instruction(RETURN, FAIL_WITH | errno.EAFNOSUPPORT),
            instruction(RETURN, ALLOW),
        ]
    )
    code = ctypes.create_string_buffer(program)
    filtered = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SECCOMP, FILTER, ctypes.c_char_p(filtered), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid_ipv6()
    os.execvp(sys.argv[1], sys.argv[1:])

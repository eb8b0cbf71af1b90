"""Ask the relay's UDP port whether it speaks QUIC; exit 0 when it does.

The probe is an Initial packet of a version that does not exist. A QUIC server must answer it with a
Version Negotiation packet that echoes both connection ids (RFC 9000, sections 6.1 and 17.2.1) and keeps no
state for it: the check costs the relay one packet, leaves no session and no log line behind, and still
fails when its event loop hangs.

    python healthcheck.py [HOST [PORT]]        default: 127.0.0.1 and VMRELAY_PORT or 4433
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT = 3.0
"""Seconds to wait for the answer."""

UNKNOWN_VERSION = b"\x1a\x2a\x3a\x4a"
"""Of the form that is reserved to force version negotiation (RFC 9000, section 15)."""

SMALLEST_INITIAL = 1200
"""Bytes; a server ignores a smaller first packet (RFC 9000, section 14.1)."""


def speaks_quic(host: str, port: int) -> bool:
    """Send one probe to ``host``:``port`` and tell whether the answer is a Version Negotiation for it."""
    destination, source = os.urandom(8), os.urandom(8)
    header = b"\xc0" + UNKNOWN_VERSION + b"\x08" + destination + b"\x08" + source
    family = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.settimeout(TIMEOUT)
        probe.connect((host, port))
        try:
            probe.send(header.ljust(SMALLEST_INITIAL, b"\x00"))
            answer = probe.recv(2048)
        except OSError:
            return False
    # Long header, version 0, then the ids of the probe with the roles swapped.
    return answer[:1] >= b"\x80" and answer[1:].startswith(
        b"\x00\x00\x00\x00" + b"\x08" + source + b"\x08" + destination
    )


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    address = arguments.get(1, "127.0.0.1")
    number = int(arguments.get(2) or os.environ.get("VMRELAY_PORT") or 4433)
    sys.exit(not speaks_quic(address, number))

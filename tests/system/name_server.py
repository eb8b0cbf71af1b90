"""A DNS server for the tests: one question in, one fixed address out. Runs as a program of its own so that it
can be put into a network namespace.

    python name_server.py ADDRESS [PORT]
"""

from __future__ import annotations

import socket
import sys

ANSWER = "192.0.2.53"
"""The address of every name."""

_HEADER = 12
_QUESTION_TAIL = 4  # type and class


def answer(query):
    """Build the response to ``query`` (RFC 1035, section 4): its first question and one A record."""
    end = query.index(b"\0", _HEADER) + 1 + _QUESTION_TAIL
    header = query[:2] + b"\x84\x00" + b"\0\1\0\1\0\0\0\0"
    record = b"\xc0\x0c" + b"\0\1\0\1" + (60).to_bytes(4, "big") + b"\0\4" + socket.inet_aton(ANSWER)
    return header + query[_HEADER:end] + record


def main():
    address, port = (*sys.argv[1:], "0")[:2]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, int(port)))
        print("answering on port", server.getsockname()[1], flush=True)
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(answer(query), client)


if __name__ == "__main__":
    main()

"""A DNS server for the tests whose answers hold records that nobody knows, and malformed ones. Runs as a
program of its own so that it can be put into a network namespace.

    python odd_name_server.py ADDRESS

``odd.example`` has RECORDS; ``private.example`` has these and a private address in front; ``many.example``
has MANY records; ``service.example`` has service bindings. All come by UDP, whatever their size; their TTL is
60 s. ``bits.example`` tells by a TXT record which of the bits DO, CD and AD the query had, and has AD in its
header. ``cut.example`` has an A record and TC; nothing listens on TCP.
"""

from __future__ import annotations

import socket
import sys

A, MX, TXT, DS, HTTPS, UNKNOWN = 1, 15, 16, 43, 65, 65400
PUBLIC, PRIVATE = socket.inet_aton("8.8.4.4"), socket.inet_aton("192.168.1.1")
RECORDS = (
    (A, PUBLIC),
    (UNKNOWN, b"\xc0\x0c\xff\0odd"),
    (TXT, b"\5plain"),
    (A, socket.inet_aton("8.8.8.8")),
    (MX, b"\x01"),  # a preference of one byte
    (DS, b""),
)
MANY = 1000


def hint(*addresses):
    """Build the parameter ``ipv4hint`` of a service binding (RFC 9460 section 7.3)."""
    return b"\0\4" + (4 * len(addresses)).to_bytes(2, "big") + b"".join(addresses)


ANSWERS = {
    b"odd": RECORDS,
    b"private": ((A, PRIVATE), *RECORDS),
    b"service": tuple((HTTPS, b"\0\1\0" + hint(*addresses)) for addresses in ((PUBLIC,), (PUBLIC, PRIVATE))),
    b"cut": ((A, PUBLIC),),
    b"many": tuple((A, bytes((8, 9, n >> 8, n & 255))) for n in range(MANY)),
}

_HEADER = 12
_QUESTION_TAIL = 4  # type and class


def bits(query):
    """Name the bits of a query with an OPT record at its end, as the data of a TXT record."""
    found = (("DO", query[-4] & 0x80), ("CD", query[3] & 0x10), ("AD", query[3] & 0x20))
    text = " ".join(name for name, bit in found if bit).encode()
    return bytes((len(text),)) + text


def answer(query):
    """Build the response to ``query`` (RFC 1035 section 4), with an OPT record."""
    end = query.index(b"\0", _HEADER) + 1 + _QUESTION_TAIL
    name = query[_HEADER + 1 : _HEADER + 1 + query[_HEADER]].lower()
    records = ((TXT, bits(query)),) if name == b"bits" else ANSWERS.get(name, ())
    counts = b"\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\1"
    flags = bytes((0x86 if name == b"cut" else 0x84, 0x20 if name == b"bits" else 0))
    out = query[:2] + flags + counts + query[_HEADER:end]
    for kind, data in records:
        out += b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + (60).to_bytes(4, "big")
        out += len(data).to_bytes(2, "big") + data
    return out + b"\0\0\x29\x04\xd0" + bytes(6)


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((sys.argv[1], 53))
        print("answering", flush=True)
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(answer(query), client)


if __name__ == "__main__":
    main()

"""TLS connections of asyncio, taken a few records at a time.

asyncio reads what came in to its end before it serves anybody else: of the smallest records 1,400 fit its
buffer here, which take 2 ms, and each of a hundred connections may send such. So after RECORDS_PER_TURN the
others have their turn; what is left waits encrypted, and nothing more is read meanwhile.
"""

from __future__ import annotations

from asyncio import constants, sslproto
from typing import Any

TLS_BUFFER = 32 * 1024
"""Bytes for what comes in on a TLS connection, held from its first byte on; two records of the longest. What
asyncio has by itself is 256 KB each, half a gigabyte for all connections."""
RECORDS_PER_TURN = 64
"""Records that are read before others are served: no more than 0.1 ms of the smallest, and all of a buffer's
that hold 500 bytes."""


def bound_tls() -> None:
    """Have TLS connections that are accepted from now on keep to these bounds.

    asyncio names no setting for either; the tests of this module fail where it ceases to work like this.
    """
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    sslproto.SSLProtocol._do_read__copied = _read_some  # type: ignore[attr-defined] # noqa: SLF001
    constants.FLOW_CONTROL_HIGH_WATER_SSL_READ = TLS_BUFFER // 1024  # type: ignore[misc]


def _read_some(protocol: Any) -> None:
    """Do what ``SSLProtocol._do_read__copied`` does, for some records."""
    records: list[bytes] = []
    has_ended = False
    try:
        while len(records) < RECORDS_PER_TURN:
            record = protocol._sslobj.read(TLS_BUFFER)  # noqa: SLF001
            if not record:
                has_ended = True
                break
            records.append(record)
        else:
            protocol._loop.call_soon(protocol._do_read)  # noqa: SLF001
    except sslproto.SSLAgainErrors:
        pass
    if records:
        protocol._app_protocol.data_received(b"".join(records))  # noqa: SLF001
    if has_ended:
        protocol._call_eof_received()  # noqa: SLF001
        protocol._start_shutdown()  # noqa: SLF001

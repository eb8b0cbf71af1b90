"""What an error of the host's system means for a guest, whichever protocol it uses."""

from __future__ import annotations

import errno

from actors.ports import SendResult

_RESULTS = {
    errno.EMSGSIZE: SendResult.TOO_BIG,
    errno.ENETUNREACH: SendResult.NO_ROUTE,
    errno.ENETDOWN: SendResult.NO_ROUTE,
    errno.EHOSTUNREACH: SendResult.UNREACHABLE,
    errno.EHOSTDOWN: SendResult.UNREACHABLE,
    errno.EADDRNOTAVAIL: SendResult.UNREACHABLE,
    # ICMP errors that say so in other words: no such protocol, source route or host; a header not understood.
    errno.ENOPROTOOPT: SendResult.UNREACHABLE,
    errno.EOPNOTSUPP: SendResult.UNREACHABLE,
    getattr(errno, "ENONET", errno.EHOSTUNREACH): SendResult.UNREACHABLE,
    errno.EPROTO: SendResult.UNREACHABLE,
    errno.ECONNREFUSED: SendResult.REFUSED,
    errno.EPERM: SendResult.DENIED,
    errno.EACCES: SendResult.DENIED,
}


def result_of(number: int | None) -> SendResult:
    """Tell what an errno of sending or connecting means.

    Any other, chiefly ENOBUFS of a full buffer and ETIMEDOUT of a connection, is DROPPED: the guest gets no
    reply.
    """
    return _RESULTS.get(number or 0, SendResult.DROPPED)

from __future__ import annotations

import errno

import pytest

from actors.ports import SendResult
from transport.host.errors import result_of


@pytest.mark.parametrize(
    ("number", "result"),
    [
        (errno.EMSGSIZE, SendResult.TOO_BIG),
        (errno.ENETUNREACH, SendResult.NO_ROUTE),
        (errno.EHOSTUNREACH, SendResult.UNREACHABLE),
        (errno.ENOPROTOOPT, SendResult.UNREACHABLE),
        (errno.EPROTO, SendResult.UNREACHABLE),
        (errno.ECONNREFUSED, SendResult.REFUSED),
        (errno.EACCES, SendResult.DENIED),
        (errno.ENOBUFS, SendResult.DROPPED),
        (errno.ETIMEDOUT, SendResult.DROPPED),
        (None, SendResult.DROPPED),
    ],
)
def test_an_error_means_the_same_for_every_protocol(number, result):
    assert result_of(number) is result

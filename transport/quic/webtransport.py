"""WebTransport over HTTP/3, without I/O: requests, responses, settings and capsules.

Sources: RFC 9114 (HTTP/3), RFC 9220 (extended CONNECT), RFC 9297 (datagrams and capsules),
draft-ietf-webtrans-http3 (drafts 02 to 15, which differ in the setting that announces support).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var

from transport.admission import ClientRequest

if TYPE_CHECKING:
    from transport.admission import Refusal

SETTING_MAX_FIELD_SECTION_SIZE = 0x06
SETTING_ENABLE_WEBTRANSPORT_DRAFT_02 = 0x2B603742
SETTING_MAX_SESSIONS_DRAFT_07 = 0xC671706A
SETTING_MAX_SESSIONS_DRAFT_13 = 0x14E9CD29
SETTING_ENABLED_DRAFT_15 = 0x2C7CF000

MAX_FIELD_SECTION_SIZE = 16 * 1024
"""Announced bound of a request's headers; browsers send well under 2 KB."""

WEBTRANSPORT_SETTINGS: dict[int, int] = {
    SETTING_MAX_FIELD_SECTION_SIZE: MAX_FIELD_SECTION_SIZE,
    # One session per connection: more than one implies session flow control, whose limits some
    # clients then demand.
    SETTING_ENABLE_WEBTRANSPORT_DRAFT_02: 1,
    SETTING_MAX_SESSIONS_DRAFT_07: 1,
    SETTING_MAX_SESSIONS_DRAFT_13: 1,
    SETTING_ENABLED_DRAFT_15: 1,
}
"""Every dialect's way to say that WebTransport is spoken here."""

CAPSULE_CLOSE_SESSION = 0x2843
CLOSE_CODE_BYTES = 4
MAX_CLOSE_REASON = 1024
"""Bytes of UTF-8 in a closing reason (draft-ietf-webtrans-http3, section 6)."""
WEBTRANSPORT_PROTOCOLS = frozenset({b"webtransport", b"webtransport-h3"})
"""``:protocol`` of drafts 02 to 13 and from draft 14 on."""

Headers = list[tuple[bytes, bytes]]

USAGE = b"This is a WebTransport relay for virtual machines: connect with new WebTransport(url).\n"


class Response(NamedTuple):
    """Answer to a request: ``session`` tells whether it opens a WebTransport session."""

    status: int
    headers: Headers
    body: bytes
    session: bool


class Request(NamedTuple):
    """What matters of a request's headers."""

    method: bytes
    protocol: bytes
    path: str


def read_request(headers: Headers) -> Request:
    """Pick the pseudo headers; aioquic has already refused malformed ones."""
    fields = dict(headers)
    return Request(
        method=fields.get(b":method", b""),
        protocol=fields.get(b":protocol", b""),
        path=fields.get(b":path", b"/").decode("utf-8", "replace"),
    )


def answer(
    request: Request, headers: Headers, *, has_session: bool, takes_datagrams: bool = True
) -> Response:
    """Decide on a request; ``has_session`` is whether the connection already carries a session.

    ``takes_datagrams``: whether the client does (RFC 9221, 3), without which a session would carry nothing.
    """
    if sum(len(name) + len(value) + 32 for name, value in headers) > MAX_FIELD_SECTION_SIZE:
        return FIELDS_TOO_LARGE
    if request.method != b"CONNECT":
        # 405 must name what is allowed (RFC 9110, 15.5.6).
        return _refusal(405, USAGE, [(b"allow", b"CONNECT")], head=request.method == b"HEAD")
    if request.protocol not in WEBTRANSPORT_PROTOCOLS:
        # RFC 9220, section 3: an unknown :protocol is answered 501.
        return _refusal(501, b"Only the protocol webtransport is spoken here.\n")
    if not takes_datagrams:
        return _refusal(400, b"This client takes no datagrams (max_datagram_frame_size).\n")
    if has_session:
        return _refusal(429, b"This connection already carries a session.\n")
    return Response(
        200, [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")], b"", session=True
    )


def client_request(headers: Headers, remote: str) -> ClientRequest:
    """Put together what admission decides by."""
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    said = dict(fields)
    path, _, query = said.get(":path", "/").partition("?")
    return ClientRequest(
        carrier="webtransport",
        path=path,
        query=query,
        headers=fields,
        authority=said.get(":authority", ""),
        secure=True,
        remote=remote,
    )


def refuse(refusal: Refusal) -> Response:
    """Answer a request for a session that is not granted."""
    extra = [(name.lower().encode(), value.encode()) for name, value in refusal.fields.items()]
    return _refusal(refusal.status.value, f"{refusal.reason}\n".encode("utf-8", "replace"), extra)


def _refusal(status: int, text: bytes, extra: Headers | None = None, *, head: bool = False) -> Response:
    headers = [
        (b":status", str(status).encode()),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        *(extra or []),
    ]
    return Response(status, headers, b"" if head else text, session=False)


FIELDS_TOO_LARGE = _refusal(431, b"Request headers are too large.\n")
"""RFC 6585, section 5."""


def encode_close_capsule(code: int, reason: str) -> bytes:
    """CLOSE_WEBTRANSPORT_SESSION: ``code`` in 32 bits, ``reason`` cut to 1024 bytes of whole characters."""
    text = reason.encode("utf-8", "replace")[:MAX_CLOSE_REASON].decode("utf-8", "ignore").encode()
    body = (code & 0xFFFFFFFF).to_bytes(CLOSE_CODE_BYTES, "big") + text
    return encode_uint_var(CAPSULE_CLOSE_SESSION) + encode_uint_var(len(body)) + body


class SessionClosure(NamedTuple):
    """What a CLOSE_WEBTRANSPORT_SESSION capsule said."""

    code: int
    reason: str


class CapsuleReader:
    """Reads the capsules of a session's CONNECT stream (RFC 9297, section 3.2).

    Those of unknown kinds are passed over as they come, however long they are: at most a capsule's head and
    a closing reason are kept.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._to_skip = 0

    def feed(self, data: bytes) -> SessionClosure | None:
        """Take stream data; return the closure once it has arrived.

        Raises ValueError for a closing capsule whose length cannot be.
        """
        data = self._pending + data
        self._pending = b""
        buffer, end = Buffer(data=data), len(data)
        at = 0
        while True:
            at += self._to_skip
            self._to_skip = max(0, at - end)
            if at >= end:
                return None
            buffer.seek(at)
            try:
                kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            except BufferReadError:
                break
            start = buffer.tell()
            if kind != CAPSULE_CLOSE_SESSION:
                at, self._to_skip = start, length
                continue
            if not CLOSE_CODE_BYTES <= length <= CLOSE_CODE_BYTES + MAX_CLOSE_REASON:
                raise ValueError(f"closing capsule of {length} bytes")
            if end - start < length:
                break
            code, reason = (
                data[start : start + CLOSE_CODE_BYTES],
                data[start + CLOSE_CODE_BYTES : start + length],
            )
            return SessionClosure(int.from_bytes(code, "big"), reason.decode("utf-8", "replace"))
        self._pending = data[at:]
        return None

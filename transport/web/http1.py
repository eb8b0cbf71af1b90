"""HTTP/1.1 as a server reads and answers it, without I/O (RFC 9110, RFC 9112).

Bytes in, whole requests out: :class:`RequestReader` takes what a client sends however it is cut, one request
behind the other (pipelining), with a body of a stated length or in chunks. Nothing here needs a body; it is
read to know where the next request begins, within a bound. Lines may end in LF alone (RFC 9112, section 2.2).
What cannot be understood is a :class:`BadRequestError` with the status that says why, and ends the reading:
where the next request would begin is not known any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transport.admission import Refusal

MAX_REQUEST_LINE = 8 * 1024
"""Bytes; RFC 9112, section 3, asks for 8,000 at least."""
MAX_HEAD = 32 * 1024
"""Bytes of all fields: other servers on this host may have filled the browser's cookies for localhost."""
MAX_FIELDS = 100
"""Fields of a request, those behind its body (trailers) included; browsers send about 20."""
MAX_BODY = 64 * 1024
"""Bytes of a body that are read and thrown away; a longer one is refused and ends the connection."""
MAX_CHUNK_LINE = 1024
"""Bytes of a chunk's size with its extensions."""

MAX_CHUNKS = 64
"""Chunks of a body: each costs work, however small it is, and nothing here needs a body."""
MAX_EMPTY_LINES = 16
"""Lines without content before a request."""

TEXT = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
"""Headers of an answer that is a sentence."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%s):(.*)" % _TOKEN)
"""White space around the value is taken off later: a pattern would look at each blank of a run once for each
one before it, which took seconds for the largest field."""
_BLANKS = " \t"
"""White space around values (RFC 9110, section 5.6.3); ``str.strip`` would take NEL and the no-break space
for some too, and a length or a coding for what it is to nobody else."""
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no line may contain; CR is looked for apart, for it may stand at the end."""
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*)(.*)")
_AUTHORITY = re.compile(
    r"(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::([0-9]{0,5}))?"
)
"""Clients should leave out the interface behind a link-local address (RFC 6874, section 3); some do not."""
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")


class BadRequestError(Exception):
    """A request that cannot be understood or is too large: the status, and a sentence for the client."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request as far as a server without resources to change needs it."""

    method: str
    target: str
    """Path and query, or ``*``; of a CONNECT, the authority."""
    authority: str | None
    """Whom it is for: of an absolute target (RFC 9112, section 3.2.2), else the Host field, or neither."""
    fields: tuple[tuple[str, str], ...]
    """Names in lower case, in the order in which they came."""
    minor_version: int
    keep_alive: bool
    """Whether the client may send another one on the same connection."""
    unread_body: bool = False
    """Whether the client waits for a word (100 Continue) before it sends the body."""

    def field(self, name: str) -> str | None:
        """Return the value of a field (in lower case), several joined by commas; None if there is none."""
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None

    def tokens(self, name: str) -> tuple[str, ...]:
        """Return the members of a field that is a list, in lower case."""
        members = (self.field(name) or "").split(",")
        return tuple(filter(None, (member.strip(_BLANKS).lower() for member in members)))


class Answer(NamedTuple):
    """A response."""

    status: HTTPStatus
    headers: Mapping[str, str]
    body: bytes = b""
    refusal: Refusal | None = None
    """What it says, where that is why a session is not granted."""

    def encode(self, *, close: bool, head_only: bool = False) -> bytes:
        """Return the bytes to send; ``close`` says that no other answer follows on this connection."""
        headers = {"Date": formatdate(usegmt=True), **self.headers}
        if self.status is not HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(self.body))
        # An Upgrade field is for this connection only, and has to say so (RFC 9110, section 7.8).
        options = ["Upgrade"] * ("Upgrade" in headers) + ["close"] * close
        if options:
            headers["Connection"] = ", ".join(options)
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if head_only else head + self.body


def host_and_port(authority: str) -> tuple[str, str]:
    """Take an authority apart; the port is empty where none is named. Raises BadRequestError."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _bad("The host's name is none.")
    return found[1], found[2] or ""


class RequestReader:
    """Finds the requests in what a client sends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        """Bytes of the buffer in which there is no end of line."""
        self._step: Callable[[RequestReader], bool] = RequestReader._start_line
        self._ready: Request | None = None
        self._begin()

    def _begin(self) -> None:
        self._method = self._target = ""
        self._minor = 1
        self._fields: list[tuple[str, str]] = []
        self._left_of_head = MAX_HEAD
        self._left_of_fields = MAX_FIELDS
        self._left_of_body = self._left_of_chunk = 0
        self._left_of_chunks = MAX_CHUNKS
        self._left_of_empty_lines = MAX_EMPTY_LINES
        self._head: Request | None = None
        self._step = RequestReader._start_line

    @property
    def idle(self) -> bool:
        """Whether nothing of another request has come."""
        return self._step == RequestReader._start_line and not self._buffer.strip(b"\r\n")

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next whole request, or None until more has come. Raises BadRequestError."""
        while self._step(self):
            if self._ready is not None:
                request, self._ready = self._ready, None
                return request
        return None

    def take_rest(self) -> bytes:
        """Give away what has come behind the last request: another protocol takes over."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    # -- steps: each returns whether it could be taken ------------------------------------------------

    def _start_line(self) -> bool:
        line = self._line(MAX_REQUEST_LINE, HTTPStatus.REQUEST_URI_TOO_LONG, "The request line is too long.")
        if line is None:
            return False
        if not line:
            # Some clients end the body before with a line that does not count (RFC 9112, section 2.2).
            self._left_of_empty_lines -= 1
            if self._left_of_empty_lines < 0:
                raise _bad("There is no request.")
            return True
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            raise _bad("The request line is not METHOD TARGET HTTP/1.1.")
        if found[3] != b"1":
            raise BadRequestError(
                HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
                "Only HTTP/1.1 is spoken on this port, and HTTP/3 on UDP.",
            )
        self._method, self._target = found[1].decode(), found[2].decode()
        self._minor = int(found[4])
        self._step = RequestReader._field_line
        return True

    def _field_line(self) -> bool:
        line = self._line(
            self._left_of_head, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The header fields are too large."
        )
        if line is None:
            return False
        self._spend(line)
        if not line:
            self._end_of_head()
            return True
        found = _FIELD.fullmatch(line)
        if found is None:
            # Folded lines among them, which a server may refuse (RFC 9112, section 5.2).
            raise _bad("A header field is not NAME: VALUE.")
        self._fields.append((found[1].decode().lower(), found[2].decode("latin-1").strip(_BLANKS)))
        return True

    def _sized_body(self) -> bool:
        taken = min(self._left_of_body, len(self._buffer))
        del self._buffer[:taken]
        self._left_of_body -= taken
        if self._left_of_body:
            return False
        return self._end_of_request()

    def _chunk_size(self) -> bool:
        line = self._line(MAX_CHUNK_LINE, HTTPStatus.BAD_REQUEST, "A chunk's size is too long.")
        if line is None:
            return False
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise _bad("A chunk has no size.")
        size = int(found[1], 16)
        self._left_of_body -= size
        self._left_of_chunks -= 1
        if self._left_of_body < 0 or self._left_of_chunks < 0:
            raise _too_large()
        self._left_of_chunk = size
        self._step = RequestReader._chunk_data if size else RequestReader._trailer_line
        return True

    def _chunk_data(self) -> bool:
        taken = min(self._left_of_chunk, len(self._buffer))
        del self._buffer[:taken]
        self._left_of_chunk -= taken
        if self._left_of_chunk:
            return False
        line = self._line(0, HTTPStatus.BAD_REQUEST, "A chunk is longer than its size.")
        if line is None:
            return False
        self._step = RequestReader._chunk_size
        return True

    def _trailer_line(self) -> bool:
        line = self._line(
            self._left_of_head,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The trailer fields are too large.",
        )
        if line is None:
            return False
        self._spend(line)
        return self._end_of_request() if not line else True

    def _over(self) -> bool:
        """Read nothing more: the body of the last request may come, or not."""
        self._buffer.clear()
        return False

    # -- between the steps --------------------------------------------------------------------------

    def _line(self, limit: int, status: HTTPStatus, text: str) -> bytes | None:
        """Take a line of at most ``limit`` bytes off the buffer, without its end; None until it is whole."""
        end = self._buffer.find(b"\n", self._scanned)
        size = len(self._buffer) if end < 0 else end
        if size - (self._buffer[size - 1 : size] == b"\r") > limit:
            raise BadRequestError(status, text)
        if _CONTROL.search(self._buffer, self._scanned, size):
            raise _bad("A line has a control character in it.")
        if end < 0:
            self._scanned = size
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._scanned = 0
        if b"\r" in line:
            raise _bad("A line has a carriage return in it.")
        return line

    def _spend(self, line: bytes) -> None:
        """Count a line of the fields, or of the trailers."""
        self._left_of_head = max(0, self._left_of_head - len(line) - 2)
        self._left_of_fields -= bool(line)
        if self._left_of_fields < 0:
            raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "There are too many fields.")

    def _end_of_head(self) -> None:
        self._head = request = _request(self._method, self._target, self._minor, self._fields)
        self._scanned = 0
        length = _body_length(request)
        if length is None:
            self._left_of_body = MAX_BODY
            self._step = RequestReader._chunk_size
        else:
            if length > MAX_BODY:
                raise _too_large()
            self._left_of_body = length
            self._step = RequestReader._sized_body
        if request.unread_body:
            self._ready = request
            self._step = RequestReader._over

    def _end_of_request(self) -> bool:
        self._ready = self._head
        self._begin()
        return True


def _request(method: str, target: str, minor: int, fields: list[tuple[str, str]]) -> Request:
    """Put a request together. Raises BadRequestError for what contradicts itself."""
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) > 1 or (not hosts and minor > 0):
        raise _bad("There must be one Host field (RFC 9112, section 3.2).")
    authority = hosts[0] if hosts else None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, path = absolute[1], absolute[2]
        target = path if path.startswith("/") else f"/{path}"
        if not authority:
            raise _bad("The target names no host.")
    elif method == "CONNECT":
        authority = target
    elif not target.startswith("/") and (target, method) != ("*", "OPTIONS"):
        raise _bad("The target is no path.")
    for named in (*hosts, authority or ""):
        host_and_port(named)
    request = Request(method, target, authority, tuple(fields), minor, keep_alive=False)
    expected = request.tokens("expect") if minor > 0 else ()
    if set(expected) - {"100-continue"}:
        raise BadRequestError(HTTPStatus.EXPECTATION_FAILED, "Only 100-continue can be expected.")
    has_body = "transfer-encoding" in dict(fields) or request.field("content-length") not in (None, "0")
    unread = bool(expected) and has_body
    keep_alive = minor > 0 and "close" not in request.tokens("connection") and not unread
    return replace(request, keep_alive=keep_alive, unread_body=unread)


def _body_length(request: Request) -> int | None:
    """Return the length of a request's body, None for one in chunks (RFC 9112, section 6.3)."""
    codings, lengths = request.tokens("transfer-encoding"), request.field("content-length")
    if request.field("transfer-encoding") is not None:
        if lengths is not None or request.minor_version == 0:
            # Whoever stands between might count otherwise: request smuggling (section 6.1).
            raise _bad("The body has two lengths, or chunks in HTTP/1.0.")
        if not codings or codings[-1] != "chunked" or "chunked" in codings[:-1]:
            raise _bad("The body does not end in chunks.")
        if len(codings) > 1:
            raise BadRequestError(HTTPStatus.NOT_IMPLEMENTED, "Only chunked is understood of a transfer.")
        return None
    if lengths is None:
        return 0
    values = {value.strip(_BLANKS) for value in lengths.split(",")}
    length = values.pop()
    if values or not _LENGTH.fullmatch(length):
        raise _bad("The length of the body is no number.")
    return int(length)


def _bad(text: str) -> BadRequestError:
    return BadRequestError(HTTPStatus.BAD_REQUEST, text)


def _too_large() -> BadRequestError:
    return BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large; none is needed.")

"""DNS over one TCP connection of a guest (RFC 7766): to its TCP flow it looks like a host socket.

Each message has its length in front, two bytes. A guest may send several questions at once; the answers come
in whatever order they are had. Nothing is taken while MAX_UNREAD bytes of answers wait for the guest, or
MAX_UNANSWERED of its questions for their answers.

Liveness: a flow that waits to read is told of the next answer, or of the end once the last question has been
answered or given up. One that waits to write is told when the answers were read, or half of the questions
answered. The name server speaks up for each question, also for those that it does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.messages import DnsQuestion, DnsQuestions, DnsStreamOpened, SocketReadable, SocketWritable
from actors.runtime import current_scheduler, tell_alive
from netstack.dns_messages import MAX_QUERY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.runtime import Mailbox
    from netstack.buffer_budget import BufferBudget

MAX_UNREAD = 64 * 1024
"""Bytes of answers that wait for a guest before it is heard again: the largest answer."""

ROOM_AGAIN = MAX_UNREAD // 2
"""Bytes of room at which a guest that had to wait is heard again."""

MAX_UNANSWERED = 100
"""Questions of one connection that wait for their answers: as many as the name server lets a session have."""

AT_ONCE = 1
"""Questions of a connection that are asked in one turn of the event loop: others have theirs between."""

MAX_ANSWERS = 4 * MAX_UNREAD
"""Bytes of answers at which a connection is given up whose guest asks and asks and does not read; fewer where
the session's memory for TCP is scarce."""


class DnsStream:
    """The gateway's side of one connection; implements ``actors.ports.TcpSocket``."""

    local_port = far_end = None

    def __init__(self, dns: Mailbox, port: int, buffers: BufferBudget, flow: Mailbox) -> None:
        """Serve the guest behind ``port`` whose connection is ``flow``'s.

        ``buffers`` is the memory that the session's TCP connections have.
        """
        self._dns = dns
        self._buffers = buffers
        self._held = 0
        """Bytes of it that this has taken."""
        self._port = port
        self._flow = flow
        self._partial = bytearray()
        self._answers = bytearray()
        self._unanswered = 0
        self._asked_all = False
        self._failed = False
        self._closed = False
        self._asks_soon = False
        """Whether the rest is asked in the next turn."""
        self._wants_to_read = False
        self._wants_to_write = False
        # By way of the name server: the flow is just being started, and gets the guest's SYN first.
        tell_alive(dns, DnsStreamOpened(flow))

    @property
    def room(self) -> int:
        """Bytes that :meth:`write` takes at present, about."""
        if self._unanswered >= MAX_UNANSWERED:
            return 0
        return max(0, MAX_UNREAD - len(self._answers) - len(self._partial))

    unsent = 0
    """There is no network that could lose anything."""

    def keep_alive(self, seconds: float) -> None:
        """Nobody needs to be probed."""

    def write(self, chunks: Sequence[bytes]) -> int:
        """Take questions, or parts of them. Raises OSError for what cannot be one."""
        if self._failed:
            raise OSError("the connection was given up")
        if not self.room:
            return 0
        taken = b"".join(chunks)
        self._partial += taken
        if not self._asks_soon:
            self._ask()
        self._note_memory()
        if self._failed:
            raise OSError("a length that no question has")
        return len(taken)

    def _ask_soon(self) -> None:
        """Ask in the next turn: answers that are had at once must not lead to all questions in one turn."""
        if not self._asks_soon and not self._closed:
            self._asks_soon = True
            current_scheduler().after_sockets(self._ask)

    def _ask(self) -> None:
        """Ask some of what has come whole, as far as it may be asked now."""
        self._asks_soon = False
        if self._closed:
            return  # the name server may have forgotten the session, and would begin with it anew
        questions: list[DnsQuestion] = []
        while len(self._partial) >= 2 and self._unanswered < MAX_UNANSWERED:  # noqa: PLR2004 - of a length
            if len(questions) >= AT_ONCE:
                self._ask_soon()
                break
            length = int.from_bytes(self._partial[:2], "big")
            # 64 KB of empty questions would be 32,000 to work off at once.
            if not 0 < length <= MAX_QUERY:
                self._failed = True
                break
            if len(self._partial) < 2 + length:
                break
            questions.append(DnsQuestion(bytes(self._partial[2 : 2 + length]), True, self._answer))
            del self._partial[: 2 + length]
            self._unanswered += 1
        self._note_memory()
        if questions:
            tell_alive(self._dns, DnsQuestions(self._port, questions))
        if self._failed or self._is_over:
            self._tell_readable()
        self._tell_writable()

    @property
    def _is_over(self) -> bool:
        """Whether all has been asked that ever will be, and answered or given up."""
        return self._asked_all and self._unanswered <= 0 and not self._asks_soon

    def _answer(self, response: bytes) -> None:
        """Take the answer to one question; an empty one says that there will be none."""
        self._unanswered -= 1
        if self._closed:
            return
        if response and len(self._answers) + len(response) > self._buffers.limit(MAX_ANSWERS):
            self._failed = True
            self._answers.clear()
        elif response:
            self._answers += len(response).to_bytes(2, "big") + response
        self._note_memory()
        if self._partial:
            self._ask_soon()
        self._tell_readable()
        self._tell_writable()

    def _tell_readable(self) -> None:
        if self._wants_to_read:
            self._wants_to_read = False
            tell_alive(self._flow, SocketReadable())

    def read(self, limit: int) -> bytes | None:
        """Read up to ``limit`` bytes of answers; none at the end; None when there is nothing now.

        Raises OSError when the connection was given up.
        """
        if self._failed:
            raise OSError("the connection was given up")
        if not self._answers:
            if self._is_over:
                return b""
            self._wants_to_read = True
            return None
        data = bytes(self._answers[:limit])
        del self._answers[:limit]
        self._note_memory()
        self._tell_writable()
        return data

    def wait_for_room(self) -> None:
        """Have the flow told SocketWritable once there is much room."""
        self._wants_to_write = True
        self._tell_writable()

    def _tell_writable(self) -> None:
        if self._wants_to_write and self.room >= ROOM_AGAIN and self._unanswered <= MAX_UNANSWERED // 2:
            self._wants_to_write = False
            tell_alive(self._flow, SocketWritable())

    def shut_down(self) -> None:
        """Take note that the guest asks nothing more: the end comes after the last answer."""
        self._asked_all = True
        self._tell_readable()

    def close(self, *, abort: bool = False) -> None:  # noqa: ARG002 - there is nothing to reset
        """Forget the connection; answers that still come go nowhere."""
        self._closed = True
        self._answers.clear()
        self._partial.clear()
        self._note_memory()

    def _note_memory(self) -> None:
        held = len(self._answers) + len(self._partial)
        self._buffers.add(held - self._held)
        self._held = held

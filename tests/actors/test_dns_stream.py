from __future__ import annotations

import itertools

import pytest
from fake_loop import FakeLoop
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import Box

from actors.gateway.dns_stream import AT_ONCE, MAX_ANSWERS, MAX_QUERY, MAX_UNANSWERED, MAX_UNREAD, DnsStream
from actors.messages import DnsQuestions, DnsStreamOpened, SocketReadable, SocketWritable
from actors.scheduler import Scheduler
from netstack.buffer_budget import LEAST, BufferBudget
from netstack.counters import Counters

MEMORY = 1024 * 1024
"""Bytes of the session's TCP connections."""


class Connection:
    def __init__(self, loop):
        self.loop = loop
        self.dns, self.flow = Box(), Box()
        self.buffers = BufferBudget(MEMORY)
        self.stream = DnsStream(self.dns, 7, self.buffers, self.flow)
        assert self.dns.take() == [DnsStreamOpened(self.flow)]

    def questions(self):
        """What is asked now, or in turns of the loop to come."""
        self.loop.run()
        return [question for message in self.dns.take(DnsQuestions) for question in message.questions]


@pytest.fixture
def connection(loop):
    return Connection(loop)


def framed(message):
    return len(message).to_bytes(2, "big") + message


def test_questions_in_and_answers_out(connection):
    stream = connection.stream
    assert stream.write([framed(b"one") + framed(b"two")]) == 10
    assert connection.dns[0].port == 7
    one, two = connection.questions()
    assert [(q.query, q.over_stream) for q in (one, two)] == [(b"one", True), (b"two", True)]
    assert stream.read(100) is None
    two.reply(b"answer two")
    assert connection.flow.take() == [SocketReadable()]
    one.reply(b"answer one")
    assert connection.flow.take() == []
    assert stream.read(100) == framed(b"answer two") + framed(b"answer one")
    assert stream.read(100) is None


def test_nothing_is_asked_for_a_connection_that_was_closed(connection):
    connection.stream.write([framed(b"one") + framed(b"two")])
    connection.stream.close()
    assert [question.query for question in connection.questions()] == [b"one"]


def test_the_end_comes_after_the_last_answer(connection):
    stream = connection.stream
    stream.write([framed(b"one")])
    stream.shut_down()
    assert stream.read(100) is None
    connection.questions()[0].reply(b"answer")
    assert connection.flow.take() == [SocketReadable()]
    assert stream.read(4) + stream.read(100) == framed(b"answer")
    assert stream.read(100) == b""


@pytest.mark.parametrize(
    "rest", [b"", b"\0", b"\0\x09half"], ids=["whole", "half a length", "half a question"]
)
@pytest.mark.parametrize("answer", [b"answer", b""], ids=["answered", "given up"])
def test_all_that_came_with_the_guests_end_is_asked_and_answered_before_the_end(connection, rest, answer):
    stream = connection.stream
    wanted = [b"one", b"two", b"three"]
    stream.write([b"".join(map(framed, wanted)) + rest])
    stream.shut_down()
    asked, got, ended = [], b"", False
    for _ in range(20):
        # As the flow does: it reads when it is told to, until there is nothing.
        while (data := stream.read(100)) is not None and not ended:
            ended = not data
            got += data
        if ended:
            break
        for message in connection.dns.take(DnsQuestions):
            for question in message.questions:
                asked.append(question.query)
                question.reply(answer)
        if connection.flow.take() != [SocketReadable()]:
            connection.loop.run()
            assert connection.dns or connection.flow, "nobody wakes the flow"
    assert asked == wanted
    assert got == (framed(answer) * 3 if answer else b"")
    assert ended


def test_a_guest_that_asks_nothing_gets_the_end_at_once(connection):
    assert connection.stream.read(100) is None
    connection.stream.shut_down()
    assert connection.flow.take() == [SocketReadable()]
    assert connection.stream.read(100) == b""


def test_a_question_that_is_too_long_ends_the_connection(connection):
    connection.stream.write([framed(bytes(MAX_QUERY))])
    assert len(connection.questions()) == 1
    with pytest.raises(OSError, match="length that no question has"):
        connection.stream.write([(MAX_QUERY + 1).to_bytes(2, "big")])
    for attempt in (lambda: connection.stream.write([b"x"]), lambda: connection.stream.read(1)):
        with pytest.raises(OSError, match="given up"):
            attempt()


def test_an_empty_question_ends_the_connection(connection):
    with pytest.raises(OSError, match="length that no question has"):
        connection.stream.write([bytes(2000)])
    assert not connection.questions()


def test_a_guest_that_does_not_read_is_not_heard(connection):
    stream = connection.stream
    stream.write([framed(b"q") * 2])
    one, other = connection.questions()
    assert stream.room == MAX_UNREAD
    stream.wait_for_room()
    assert connection.flow.take() == [SocketWritable()]
    one.reply(bytes(MAX_UNREAD - 2))
    assert (stream.room, stream.write([framed(b"q")])) == (0, 0)
    stream.wait_for_room()
    stream.read(1)
    assert connection.flow.take() == [], "not for a byte"
    stream.read(MAX_UNREAD)
    assert connection.flow.take() == [SocketWritable()]
    other.reply(b"answer")
    assert stream.read(100) == framed(b"answer")


def test_too_many_answers_for_a_guest_that_does_not_read_end_the_connection(connection):
    connection.stream.write([framed(b"q") * 5])
    for question in connection.questions():
        question.reply(bytes(MAX_ANSWERS // 4 - 2))
    with pytest.raises(OSError, match="given up"):
        connection.stream.read(1)


def test_what_waits_is_of_the_sessions_memory(connection):
    stream, buffers = connection.stream, connection.buffers
    stream.write([framed(b"q") * 3 + b"\0\x09half"])
    questions = connection.questions()
    assert buffers.used == len(b"\0\x09half")
    for question in questions:
        question.reply(bytes(98))
    assert buffers.used == len(b"\0\x09half") + 3 * 100
    stream.read(250)
    assert buffers.used == len(b"\0\x09half") + 50
    stream.close()
    assert buffers.used == 0


def test_where_that_is_scarce_fewer_answers_wait_for_a_guest_that_does_not_read(connection):
    connection.buffers.add(MEMORY)
    connection.stream.write([framed(b"q") * 2])
    one, other = connection.questions()
    one.reply(bytes(LEAST - 2))
    assert connection.stream.read(2) == (LEAST - 2).to_bytes(2, "big")
    other.reply(bytes(100))
    with pytest.raises(OSError, match="given up"):
        connection.stream.read(1)
    assert connection.buffers.used == MEMORY


def test_a_question_that_is_given_up_keeps_neither_the_end_nor_the_next_question_waiting(connection):
    stream = connection.stream
    stream.write([framed(b"nonsense")])
    stream.shut_down()
    assert stream.read(100) is None
    connection.questions()[0].reply(b"")
    assert connection.flow.take() == [SocketReadable()]
    assert stream.read(100) == b""


def test_so_many_questions_at_a_time_and_the_others_when_these_are_answered(connection):
    stream = connection.stream
    wanted = [b"%d" % number for number in range(3 * MAX_UNANSWERED)]
    text = b"".join(map(framed, wanted))
    assert stream.write([text]) == len(text)
    asked = connection.questions()
    assert len(asked) == MAX_UNANSWERED
    assert (stream.room, stream.write([framed(b"more")])) == (0, 0)
    stream.wait_for_room()
    done = []
    while asked:
        assert connection.flow.take(SocketWritable) == []
        assert len(asked) <= MAX_UNANSWERED
        question, *asked = asked
        done.append(question.query)
        question.reply(b"answer")
        stream.read(100)
        asked += connection.questions()
        if len(asked) <= MAX_UNANSWERED // 2:
            break
    # All that had been taken is asked before the guest is heard again.
    assert connection.flow.take(SocketWritable) == [SocketWritable()]
    assert done + [question.query for question in asked] == wanted
    assert stream.room > 0


def test_a_question_that_is_too_long_is_found_also_when_it_had_to_wait(connection):
    stream = connection.stream
    text = framed(b"q") * MAX_UNANSWERED + (MAX_QUERY + 1).to_bytes(2, "big")
    assert stream.write([text]) == len(text)
    assert stream.read(100) is None
    connection.questions()[0].reply(b"")
    connection.questions()
    assert connection.flow.take() == [SocketReadable()]
    with pytest.raises(OSError, match="given up"):
        stream.read(1)


def test_a_backlog_that_is_answered_at_once_leaves_turns_to_others(connection):
    stream, asked = connection.stream, 0
    stream.write([framed(b"q") * 200])
    most = 0
    while waiting := connection.dns.take(DnsQuestions):
        for message in waiting:
            most = max(most, len(message.questions))
            asked += len(message.questions)
            for question in message.questions:
                question.reply(b"answer")
        stream.read(MAX_UNREAD)
        assert connection.dns == [], "more is asked in another turn of the loop"
        connection.loop.run()
    assert (most, asked) == (AT_ONCE, 200)


def test_after_the_end_answers_go_nowhere(connection):
    connection.stream.write([framed(b"q")])
    connection.stream.close(abort=True)
    connection.questions()[0].reply(b"answer")
    assert connection.flow.take() == []


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.lists(st.integers(0, 100)))
def test_however_questions_are_cut_they_arrive_whole(messages, cuts):
    loop = FakeLoop()
    text = b"".join(map(framed, messages))
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    with Scheduler(loop, Counters()).activate():
        connection = Connection(loop)
        for start, end in itertools.pairwise(edges):
            assert connection.stream.write([text[start:end]]) == end - start
        assert [question.query for question in connection.questions()] == messages

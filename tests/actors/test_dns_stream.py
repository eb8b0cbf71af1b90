from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import Box

from actors.dns_stream import MAX_ANSWERS, MAX_QUERY, MAX_UNREAD, DnsStream
from actors.messages import DnsQuestions, DnsStreamOpened, SocketReadable, SocketWritable


class Connection:
    def __init__(self):
        self.dns, self.flow = Box(), Box()
        self.stream = DnsStream(self.dns, 7, self.flow)
        assert self.dns.take() == [DnsStreamOpened(self.flow)]

    def questions(self):
        return [question for message in self.dns.take(DnsQuestions) for question in message.questions]


@pytest.fixture
def connection():
    return Connection()


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


def test_the_end_comes_after_the_last_answer(connection):
    stream = connection.stream
    stream.write([framed(b"one")])
    stream.shut_down()
    assert stream.read(100) is None
    connection.questions()[0].reply(b"answer")
    assert connection.flow.take() == [SocketReadable()]
    assert stream.read(4) + stream.read(100) == framed(b"answer")
    assert stream.read(100) == b""


def test_a_guest_that_asks_nothing_gets_the_end_at_once(connection):
    assert connection.stream.read(100) is None
    connection.stream.shut_down()
    assert connection.flow.take() == [SocketReadable()]
    assert connection.stream.read(100) == b""


def test_a_question_that_is_too_long_ends_the_connection(connection):
    connection.stream.write([framed(bytes(MAX_QUERY))])
    assert len(connection.questions()) == 1
    with pytest.raises(OSError, match="too long"):
        connection.stream.write([(MAX_QUERY + 1).to_bytes(2, "big")])
    for attempt in (lambda: connection.stream.write([b"x"]), lambda: connection.stream.read(1)):
        with pytest.raises(OSError, match="given up"):
            attempt()


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


def test_after_the_end_answers_go_nowhere(connection):
    connection.stream.write([framed(b"q")])
    connection.stream.close(abort=True)
    connection.questions()[0].reply(b"answer")
    assert connection.flow.take() == []


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(0, 100)))
def test_however_questions_are_cut_they_arrive_whole(messages, cuts):
    connection = Connection()
    text = b"".join(map(framed, messages))
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in itertools.pairwise(edges):
        assert connection.stream.write([text[start:end]]) == end - start
    assert [question.query for question in connection.questions()] == messages

"""Name servers that answer with anything but an answer: whoever asks them, a neighbour does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import threading

import pytest
from dns_guests import GATEWAY_IP6, ip6_of
from guests import GATEWAY_MAC, Guest
from name_server import answer
from processes import PATIENCE, Relay
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from watch import spares_the_neighbour

from netstack.checksum import update_span

SECONDS = 2.0
QUESTIONS_PER_SECOND = 80
HEADER, TAIL = 12, 4
A_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x35"
LOOP = b"\xc0\x0c"
"""A name that is where the question's name begins."""


def question_of(query):
    return query[HEADER : query.index(b"\0", HEADER) + 1 + TAIL]


def response(query, records, count, *, flags=b"\x84\0", asked=None):
    question = question_of(query) if asked is None else asked
    return query[:2] + flags + b"\0\1" + struct.pack("!HHH", count, 0, 0) + question + records


def garbage(query):
    return query[:2] + random.Random(query).randbytes(600)


def huge(query):
    return response(query, A_RECORD * 4000, 4000)


def many_aliases(query):
    """A chain of names, each an alias of the next, as long as it fits."""
    records = []
    for number in range(1500):
        name = b"\x04%04d\0" % number
        following = b"\x04%04d\0" % (number + 1)
        owner = b"\xc0\x0c" if not number else name
        records.append(owner + b"\0\5\0\1\0\0\0\x3c" + struct.pack("!H", len(following)) + following)
    return response(query, b"".join(records), len(records))


def compression_loops(query):
    question = question_of(query)
    at = HEADER + len(question)
    loop = struct.pack("!H", 0xC000 | at) + b"\0\5\0\1\0\0\0\x3c\0\2" + struct.pack("!H", 0xC000 | at)
    return response(query, loop * 300, 300)


def long_names_by_pointers(query):
    """Names of 255 bytes that consist of pointers to one another."""
    question = question_of(query)
    name = b"".join(b"\x01%c" % (97 + n % 26) for n in range(100)) + LOOP
    first = name + b"\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x35"
    at = HEADER + len(question)
    more = struct.pack("!H", 0xC000 | at) + b"\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x35"
    return response(query, first + more * 3000, 3001)


def wrong_id(query):
    right = answer(query)
    return bytes((right[0] ^ 0xFF, right[1])) + right[2:]


def another_question(query):
    return response(query, A_RECORD, 1, asked=b"\5other\7example\0\0\1\0\1")


def truncated(query):
    """Have the relay ask again over TCP."""
    return response(query, b"", 0, flags=b"\x86\0")


def a_hundred_answers(query):
    return [answer(query)] * 100


ANSWERS = [
    garbage,
    huge,
    many_aliases,
    compression_loops,
    long_names_by_pointers,
    wrong_id,
    another_question,
    truncated,
    a_hundred_answers,
]


class NameServer:
    """Answers on UDP with what it is told to; on TCP it sends a length and then a byte now and then."""

    def __init__(self, make_answer):
        self._answer = make_answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self.port = self._udp.getsockname()[1]
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._answer_all, self._accept_all)]
        self.asked = 0

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._udp.close()
        self._tcp.close()

    def _answer_all(self):
        while not self._over.is_set():
            query, client = self._udp.recvfrom(4096)
            if query:
                self.asked += 1
                made = self._answer(query)
                for each in made if isinstance(made, list) else [made]:
                    self._udp.sendto(each[:65000], client)

    def _accept_all(self):
        with contextlib.ExitStack() as stack:
            slow = []
            while not self._over.is_set():
                client, _ = self._tcp.accept()
                slow.append(stack.enter_context(client))
                for each in slow:
                    with contextlib.suppress(OSError):
                        each.send(b"\xff")


def questions(guest):
    """Frames that ask for a name each, over IPv4 and IPv6 in turn; made of two, for scapy takes 1 ms."""
    name = os.urandom(4).hex()
    headers = (IP(src=guest.address, dst="10.0.2.2"), IPv6(src=ip6_of(guest), dst=GATEWAY_IP6))
    question = UDP(sport=1024, dport=53) / DNS(id=1, rd=1, qd=DNSQR(qname=f"{name}.example.com"))
    samples = [bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / ip / question) for ip in headers]
    for number in range(int(SECONDS * QUESTIONS_PER_SECOND)):
        frame = bytearray(samples[number % 2])
        # The sum starts with the UDP header, which is 8 bytes: the name's first label begins at an odd place.
        at = frame.index(name.encode()) - 1
        before = bytes(frame[at : at + 10])
        frame[at + 1 : at + 9] = os.urandom(4).hex().encode()
        sum_at = at - HEADER - 2
        old = int.from_bytes(frame[sum_at : sum_at + 2], "big")
        frame[sum_at : sum_at + 2] = update_span(old, before, bytes(frame[at : at + 10])).to_bytes(2, "big")
        yield bytes(frame)


async def asks_without_end(relay):
    """A guest that asks one thing after another."""
    guest = await Guest.join(relay)
    for frame in list(questions(guest)):
        guest.send_frames([frame])
        await asyncio.sleep(1 / QUESTIONS_PER_SECOND)
    guest.client.close()


@pytest.mark.parametrize("make_answer", ANSWERS)
def test_a_name_server_that_sends_anything(make_answer):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(NameServer(make_answer))
        relay = Relay("--upstream-dns", f"127.0.0.1:{server.port}")
        stack.callback(relay.stop)

        async def attack():
            await asyncio.gather(*(asks_without_end(relay) for _ in range(8)))

        spares_the_neighbour(relay, attack)
        counters = relay.counters()
    assert server.asked > SECONDS * QUESTIONS_PER_SECOND
    assert counters["actors.failed"] == counters["dns.drop.internal_error"] == 0
    assert "Traceback" not in relay.output

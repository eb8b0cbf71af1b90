"""Pings through the NAT, IPv4 and IPv6, in any order of events; see ``flow_model``."""

from __future__ import annotations

from flow_model import FlowsInAnyOrder
from hypothesis import settings
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest

from actors.flows.icmp_flow import IcmpFlowActor

HOST_IDENTIFIER, SEQUENCE = 99, 5
"""The identifier is the host's own socket's: no guest may see it."""


class PingInAnyOrder(FlowsInAnyOrder):
    actor = IcmpFlowActor
    filtering_is_a_setting = False

    @property
    def sockets(self):
        return self.lan.outside.echo

    @property
    def timeout(self):
        return self.lan.settings.icmp_idle_timeout

    def packet(self, number, data):
        return ICMP(id=number, seq=SEQUENCE) / data

    def sent(self, host, data):
        return SEQUENCE, data, host, 63

    def answer_of(self, data):
        return ICMP(type=0, id=HOST_IDENTIFIER, seq=SEQUENCE) / data

    def reply(self, mapping, host, data):
        mapping.socket.reply(bytes(self.answer_of(data)), (host, 0))

    def data_of(self, frame, number):
        assert (frame[ICMP].type, frame[ICMP].id, frame[ICMP].seq) == (0, number, SEQUENCE)
        return bytes(frame[ICMP].payload)


class Ping6InAnyOrder(PingInAnyOrder):
    version = 6

    def packet(self, number, data):
        return ICMPv6EchoRequest(id=number, seq=SEQUENCE, data=data)

    def answer_of(self, data):
        return ICMPv6EchoReply(id=HOST_IDENTIFIER, seq=SEQUENCE, data=data)

    def data_of(self, frame, number):
        reply = frame[ICMPv6EchoReply]
        assert (reply.id, reply.seq) == (number, SEQUENCE)
        return reply.data


TestPing, TestPing6 = PingInAnyOrder.TestCase, Ping6InAnyOrder.TestCase
TestPing.settings = TestPing6.settings = settings(max_examples=40, stateful_step_count=40)

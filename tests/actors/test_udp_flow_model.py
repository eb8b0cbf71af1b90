"""UDP through the NAT, IPv4 and IPv6, in any order of events; see ``flow_model``."""

from __future__ import annotations

from flow_model import FlowsInAnyOrder
from hypothesis import settings
from scapy.layers.inet import UDP

from actors.flows.udp_flow import UdpFlowActor

PORT = 7000
"""None of a name server: mappings for those live shorter."""


class UdpInAnyOrder(FlowsInAnyOrder):
    actor = UdpFlowActor

    @property
    def sockets(self):
        return self.lan.outside.udp

    @property
    def timeout(self):
        return self.lan.settings.udp_idle_timeout

    def packet(self, number, data):
        return UDP(sport=number, dport=PORT) / data

    def sent(self, host, data):
        return data, (host, PORT)

    def reply(self, mapping, host, data):
        """From a port that was not written to, which may answer too (RFC 4787 REQ-8)."""
        mapping.socket.reply(data, (host, PORT + 1))

    def data_of(self, frame, number):
        assert (frame[UDP].sport, frame[UDP].dport) == (PORT + 1, number)
        return bytes(frame[UDP].payload)


class Udp6InAnyOrder(UdpInAnyOrder):
    version = 6


TestUdp, TestUdp6 = UdpInAnyOrder.TestCase, Udp6InAnyOrder.TestCase
TestUdp.settings = TestUdp6.settings = settings(max_examples=40, stateful_step_count=40)

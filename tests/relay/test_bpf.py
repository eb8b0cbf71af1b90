from __future__ import annotations

import ctypes

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from relay.bpf import MAX_EXPRESSION, Filter, FilterError

PING = bytes(Ether() / IP(dst="192.0.2.1") / ICMP())
DNS = bytes(Ether() / IP(dst="192.0.2.1") / UDP(dport=53))


@pytest.mark.parametrize(
    ("expression", "ping", "dns"),
    [
        ("icmp", True, False),
        ("udp port 53", False, True),
        ("host 192.0.2.1", True, True),
        ("arp", False, False),
    ],
)
def test_filters_are_those_of_tcpdump(expression, ping, dns):
    wanted = Filter(expression)
    assert (wanted(PING), wanted(DNS)) == (ping, dns)
    assert wanted(PING[:20]) is False


@pytest.mark.parametrize("expression", ["no such", "port", "x" * (MAX_EXPRESSION + 1), "icmp\0", "host \xfc"])
def test_what_is_no_filter_is_said_in_one_line(expression):
    with pytest.raises(FilterError) as caught:
        Filter(expression)
    assert "\n" not in str(caught.value)


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch):
    def missing(_):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(FilterError, match="apt install libpcap"):
        Filter("icmp")

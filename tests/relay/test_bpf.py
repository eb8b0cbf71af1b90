from __future__ import annotations

import asyncio
import ctypes
import threading

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from waiting import PATIENCE, until

from relay import bpf
from relay.bpf import MAX_EXPRESSION, Filter, FilterError, Filters

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


@pytest.mark.parametrize(
    "expression",
    [
        *("no such", "port", "x" * (MAX_EXPRESSION + 1), "icmp\0", "host \xfc"),
        *("inbound", "icmp and outbound", "ifindex 1"),
    ],
)
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


def test_others_go_on_while_names_are_asked_for_and_filters_are_compiled_one_at_a_time(monkeypatch):
    began, answered = [], threading.Event()

    def slow(expression):
        began.append(expression)
        if expression.startswith("host"):
            answered.wait()
        return Filter(expression)

    monkeypatch.setattr(bpf, "Filter", slow)
    monkeypatch.setattr(bpf, "COMPILE_TIMEOUT", 0.2)

    async def scenario():
        filters = Filters()
        named = asyncio.create_task(filters.compile("host 192.0.2.1"))
        await until(lambda: began)
        for waiting in (named, asyncio.create_task(filters.compile("icmp"))):
            with pytest.raises(FilterError, match="give addresses"):
                await waiting
        assert began == ["host 192.0.2.1"], "that thread has not ended"
        monkeypatch.setattr(bpf, "COMPILE_TIMEOUT", PATIENCE)
        later = asyncio.create_task(filters.compile("icmp"))
        answered.set()
        return (await later)(PING)

    try:
        assert asyncio.run(scenario())
    finally:
        answered.set()
    assert began[1:] == ["icmp"]


def test_what_is_no_filter_is_said_to_who_has_it_compiled():
    async def scenario():
        filters = Filters()
        with pytest.raises(FilterError, match="no filter"):
            await filters.compile("no such")
        return await filters.compile("icmp")

    assert asyncio.run(scenario())(PING)

"""What nft itself tells of rules, in a network namespace of the test's, and what is made of that."""

from __future__ import annotations

import json

import pytest
from namespaces import Namespace

from relay.nft_rules import closed_to_udp

PORT = 4433
CHAIN = "inet filter input"


@pytest.fixture
def namespace():
    namespace = Namespace("nft")
    yield namespace
    namespace.delete()


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("policy accept;", None),
        ("policy drop;", f"drops what no rule names, and none names UDP port {PORT}"),
        ("policy drop; udp dport 4433 accept", None),
        ("policy drop; udp dport 4400-4500 accept", None),
        ("policy drop; udp dport { 53, 4433 } accept", None),
        ("policy drop; meta l4proto { tcp, udp } th dport 4433 counter accept", None),
        ("policy drop; tcp dport 4433 accept", f"drops what no rule names, and none names UDP port {PORT}"),
        ("policy drop; udp sport 4433 accept", f"drops what no rule names, and none names UDP port {PORT}"),
        (
            "policy drop; udp dport != 4433 accept",
            f"drops what no rule names, and none names UDP port {PORT}",
        ),
        ("policy drop; udp dport 4433 counter", f"drops what no rule names, and none names UDP port {PORT}"),
        ("udp dport 4433 drop", f"has a rule for UDP port {PORT}: drop"),
        ("udp dport 4433 counter reject", f"has a rule for UDP port {PORT}: reject"),
        ("tcp dport 4433 drop", None),
        ("udp dport 4433 accept; udp dport 4000-5000 drop", None),
    ],
)
def test_the_first_rule_that_names_the_port_decides_and_then_the_policy(namespace, rules, why):
    table = f"table inet filter {{ chain input {{ type filter hook input priority 0; {rules}; }}; }}"
    namespace.run("nft", "-f", "-", input=table.replace(";;", ";"))
    told = json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    assert closed_to_udp(told, PORT) == ([] if why is None else [(CHAIN, why)])


def test_chains_that_are_jumped_to_count_and_other_hooks_and_tables_do_not(namespace):
    namespace.run(
        *("nft", "-f", "-"),
        input="""
        table inet filter {
            chain services { udp dport 4433 accept; }
            chain input { type filter hook input priority 0; policy drop; jump services; }
            chain forward { type filter hook forward priority 0; policy drop; }
        }
        table ip other { chain output { type filter hook output priority 0; udp dport 4433 drop; }; }
        """,
    )
    told = json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    assert closed_to_udp(told, PORT) == []


def test_what_is_none_of_this_is_passed_over():
    assert closed_to_udp([], PORT) == closed_to_udp([{"metainfo": {}}, {"rule": {"expr": []}}], PORT) == []

"""What nft itself tells of rules, in a network namespace of the test's, and what is made of that."""

from __future__ import annotations

import json

import pytest
from namespaces import Namespace

from relay.nft_rules import look_at

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
    assert look_at(told, PORT).closed == ([] if why is None else [(CHAIN, why)])


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
    assert look_at(told, PORT).closed == []


def test_what_is_none_of_this_is_passed_over():
    assert look_at([], PORT).closed == look_at([{"metainfo": {}}, {"rule": {"expr": []}}], PORT).closed == []


NONE_NAMES_IT = f"drops what no rule names, and none names UDP port {PORT}"
FOR_ALL = f"and none before it names UDP port {PORT}"


@pytest.mark.parametrize(
    ("others", "rules", "why"),
    [
        ("chain other { udp dport 4433 accept; }", "policy drop; udp dport 53 jump other;", NONE_NAMES_IT),
        (
            "chain other { udp dport 4433 accept; }",
            "policy drop; tcp dport 1-65535 jump other;",
            NONE_NAMES_IT,
        ),
        ("chain other { udp dport 4433 accept; }", 'policy drop; iifname "eth0" jump other;', None),
        ("chain other { accept; }", "policy drop; udp dport 4433 jump other;", None),
        ("chain other { accept; }", 'policy drop; iifname "lo" jump other;', NONE_NAMES_IT),
        ("chain other { accept; }", "policy drop; ct state new jump other;", None),
        ("", "policy drop; udp dport >= 1024 accept;", None),
        ("", "policy drop; udp dport > 4433 accept;", NONE_NAMES_IT),
        ("", "policy drop; udp dport <= 4433 accept;", None),
        ("", "policy drop; udp dport < 4433 accept;", NONE_NAMES_IT),
        ("", "policy drop; th dport > 1024 accept;", None),
        ("", "udp dport > 1024 drop;", f"has a rule for UDP port {PORT}: drop"),
        ("", "policy drop; tcp dport != 22 accept;", NONE_NAMES_IT),
        ("", "policy drop; tcp dport >= 1024 accept;", NONE_NAMES_IT),
        ("", "policy drop; tcp flags & (syn | ack) == syn accept;", NONE_NAMES_IT),
        (
            "",
            "policy drop; icmp type echo-request accept; icmpv6 type nd-neighbor-solicit accept;",
            NONE_NAMES_IT,
        ),
        ("", "policy drop; ct state { established, related } accept; iif lo accept;", NONE_NAMES_IT),
        ("", "policy drop; ct state new accept;", None),
        ("", "policy drop; ct state vmap { new : accept, invalid : drop };", None),
        ("", "policy drop; ct state != new accept;", NONE_NAMES_IT),
        ("", "policy drop; udp sport 53 accept;", NONE_NAMES_IT),
        ("", "policy drop; udp sport >= 1024 accept;", None),
        ("", "policy drop; udp sport 1024-65535 udp dport 4433 accept;", None),
        ("", "policy drop; fib daddr type local accept;", None),
        ("", "policy drop; fib daddr type { broadcast, multicast } accept;", NONE_NAMES_IT),
        ("", "policy drop; @th,16,16 4433 accept;", None),
        ("chain other { drop; }", 'iifname "eth0" jump other;', None),
        (
            "chain other { udp dport 53 accept; drop; }",
            "jump other;",
            f"has a rule for all packets: drop, {FOR_ALL}",
        ),
        ("chain other { return; drop; }", "jump other;", None),
        (
            "chain other { udp dport 53 accept; }",
            "policy drop; goto other; udp dport 4433 accept;",
            NONE_NAMES_IT,
        ),
        ("chain unused { udp dport 4433 accept; }", "policy drop;", NONE_NAMES_IT),
        (
            "set open { type inet_service; elements = { 53, 4433 }; }",
            "policy drop; udp dport @open accept;",
            None,
        ),
        (
            "set open { type inet_service; flags interval; elements = { 4400-4500 }; }",
            "policy drop; udp dport @open accept;",
            None,
        ),
        (
            "set open { type inet_service; timeout 1h; elements = { 4433 timeout 1h }; }",
            "policy drop; udp dport @open accept;",
            None,
        ),
        (
            "set open { type inet_service; elements = { 53 }; }",
            "policy drop; udp dport @open accept;",
            NONE_NAMES_IT,
        ),
        (
            "set shut { type inet_service; elements = { 4433 }; }",
            "udp dport @shut drop;",
            f"has a rule for UDP port {PORT}: drop",
        ),
        (
            (
                "chain other { accept; }\n"
                "map of { type inet_service : verdict; elements = { 4433 : jump other }; }"
            ),
            "policy drop; udp dport vmap @of;",
            None,
        ),
        ("", "policy drop; udp dport vmap { 53 : drop, 4433 : accept };", None),
        ("", "policy drop; ct state vmap { established : accept, invalid : drop };", NONE_NAMES_IT),
        ("", "policy drop; meta l4proto . th dport { tcp . 4433, udp . 4433 } accept;", None),
        ("", "policy drop; meta l4proto . th dport { tcp . 4433 } accept;", NONE_NAMES_IT),
        ("", "policy drop; meta l4proto udp accept;", None),
        ("", "policy drop; ct state established accept;", NONE_NAMES_IT),
        (
            "",
            "ct state established accept; udp dport 53 accept; drop;",
            f"has a rule for all packets: drop, {FOR_ALL}",
        ),
        ("", "udp dport 4433 accept; drop;", None),
        ("", 'iifname "eth9" drop;', None),
    ],
)
def test_rules_are_followed_as_a_packet_to_the_port_goes_through_them(namespace, others, rules, why):
    table = (
        f"table inet filter {{\n{others}\nchain input {{ type filter hook input priority 0; {rules} }}; }}"
    )
    namespace.run("nft", "-f", "-", input=table)
    told = json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    assert look_at(told, PORT).closed == ([] if why is None else [(CHAIN, why)])


def test_what_is_dropped_on_arrival_counts_and_what_is_translated_does_not(namespace):
    for rules in (
        "table ip early { chain pre { type filter hook prerouting priority -300; udp dport 4433 drop; }; }",
        "table ip nat { chain pre { type nat hook prerouting priority -100; udp dport 4433 drop; }; }",
    ):
        namespace.run("nft", "-f", "-", input=rules)
    told = json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    assert look_at(told, PORT).closed == [("ip early pre", f"has a rule for UDP port {PORT}: drop")]


def test_chains_that_lead_to_each_other_end():
    def chain(name, **more):
        return {"chain": {"family": "ip", "table": "t", "name": name, **more}}

    def jump(name, target):
        return {"rule": {"family": "ip", "table": "t", "chain": name, "expr": [{"jump": {"target": target}}]}}

    base = chain("a", hook="input", type="filter", policy="drop")
    rules = [base, chain("b"), jump("a", "b"), jump("b", "a"), jump("b", "nowhere")]
    assert look_at(rules, PORT).closed == [("ip t a", NONE_NAMES_IT)]


def looked_at(namespace, text):
    namespace.run("nft", "-f", "-", input=text)
    return look_at(json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"], PORT)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('policy drop; iifname "eth0" accept;', NONE_NAMES_IT),
        ('policy drop; iifname "eth0" jump other;', NONE_NAMES_IT),
        ("policy drop; ip saddr 192.0.2.0/24 accept;", NONE_NAMES_IT),
        ("policy drop; meta mark 7 accept;", NONE_NAMES_IT),
        ("policy drop; meta mark vmap { 7 : accept };", NONE_NAMES_IT),
        ("policy drop; ip saddr 192.0.2.1 udp sport >= 1024 accept;", NONE_NAMES_IT),
        ("ip saddr 192.0.2.0/24 accept; drop;", f"has a rule for all packets: drop, {FOR_ALL}"),
    ],
)
def test_where_it_depends_on_what_is_not_known_nothing_is_claimed(namespace, rules, why):
    chains = f"chain other {{ accept; }}\nchain input {{ type filter hook input priority 0; {rules} }}"
    found = looked_at(namespace, f"table inet filter {{\n{chains}\n}}")
    assert found == ([], [(CHAIN, why)], [])


def test_what_a_port_is_closed_by_is_certain_whatever_may_have_let_it_in(namespace):
    rules = 'iifname "eth0" accept; udp dport 4433 drop;'
    found = looked_at(
        namespace, f"table inet filter {{ chain input {{ type filter hook input priority 0; {rules} }}; }}"
    )
    assert found == ([(CHAIN, f"has a rule for UDP port {PORT}: drop")], [], [])


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("udp dport 4433 redirect to :5544;", "port 5544"),
        ("udp dport 4433 dnat ip to 192.0.2.7:4434;", "192.0.2.7 port 4434"),
        ("udp dport 4433 dnat ip to 192.0.2.7;", "192.0.2.7 port 4433"),
        ("udp dport 4000-5000 redirect to :5544-5550;", "another port"),
        ("fib daddr type local jump other;", "192.0.2.8 port 4433"),
        (
            'iifname "eth0" udp dport 4433 redirect to :5544;',
            "port 5544, where what else its rule asks for is so",
        ),
        ("udp dport 4433 accept; udp dport 4433 redirect to :5544;", None),
        ("udp dport 4433 redirect to :4433;", None),
        ("udp dport 443 redirect to :4433;", None),
        ("tcp dport 4433 redirect to :5544;", None),
        ("udp dport < 4433 redirect to :5544;", None),
    ],
)
def test_what_sends_the_port_to_somewhere_else_is_found(namespace, rules, place):
    chains = f"""
        chain other {{ udp dport 4433 dnat ip to 192.0.2.8; }}
        chain in {{ type nat hook prerouting priority dstnat; {rules} }}
        chain out {{ type nat hook output priority -100; udp dport 4433 redirect to :5544; }}
    """
    found = looked_at(namespace, f"table inet nat {{ {chains} }}")
    told = [] if place is None else [("inet nat in", f"sends UDP port {PORT} to {place}")]
    assert found == ([], [], told)


def test_what_iptables_keeps_to_itself_is_not_guessed():
    """As nft tells rules that iptables made with a match of its own."""
    chain = {
        "family": "ip",
        "table": "filter",
        "name": "INPUT",
        "hook": "input",
        "type": "filter",
        "policy": "drop",
    }
    expressions = [{"xt": {"type": "match", "name": "multiport"}}, {"counter": {}}, {"accept": None}]
    rule = {"family": "ip", "table": "filter", "chain": "INPUT", "expr": expressions}
    assert look_at([{"chain": chain}, {"rule": rule}], PORT) == ([], [("ip filter INPUT", NONE_NAMES_IT)], [])


def test_targets_of_iptables_that_send_the_port_to_somewhere_else_are_found():
    chain = {"family": "ip", "table": "nat", "name": "PREROUTING", "hook": "prerouting", "type": "nat"}
    asks = {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": PORT}
    expressions = [{"match": asks}, {"counter": {}}, {"xt": {"type": "target", "name": "DNAT"}}]
    rule = {"family": "ip", "table": "nat", "chain": "PREROUTING", "expr": expressions}
    place = f"sends UDP port {PORT} to another place (DNAT of iptables)"
    assert look_at([{"chain": chain}, {"rule": rule}], PORT) == ([], [], [("ip nat PREROUTING", place)])
    asks["right"] = 53
    assert look_at([{"chain": chain}, {"rule": rule}], PORT) == ([], [], [])

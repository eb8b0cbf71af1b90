from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netstack.name_servers import MAX_SERVERS, NameServer, ResolverOptions, parse_options, parse_resolv_conf


def test_servers_are_taken_in_their_order():
    text = """
# made by a container runtime
; and commented
search example.com
nameserver 127.0.0.11
 nameserver\t2001:db8::1   # trailing words
nameserver fe80::1%eth0
options ndots:0 edns0
nameserver
nameserver dns.example
#nameserver 192.0.2.9
"""
    assert parse_resolv_conf(text) == (
        NameServer("127.0.0.11", 53),
        NameServer("2001:db8::1", 53),
        NameServer("fe80::1%eth0", 53),
    )


def test_so_many_at_most():
    assert len(parse_resolv_conf("nameserver 192.0.2.1\n" * 50)) == MAX_SERVERS
    assert parse_resolv_conf("") == ()


@given(st.text(max_size=200))
def test_no_text_whatever_raises(text):
    assert len(parse_resolv_conf("nameserver 192.0.2.1\nnameserver " + text)) >= 1


def test_options_are_those_of_the_c_library():
    assert parse_options("options ndots:2 use-vc\noptions rotate timeout:3 attempts:4") == ResolverOptions(
        use_vc=True, rotate=True, timeout=3, attempts=4
    )
    assert parse_options("options timeout:99999999999 attempts:99") == ResolverOptions(timeout=30, attempts=5)
    assert parse_options("options timeout:0 attempts:0") == ResolverOptions(timeout=1, attempts=1)
    assert (
        parse_options("options timeout:x attempts: timeout:-1 rotated\n#options rotate") == ResolverOptions()
    )


@given(st.text(max_size=200))
def test_no_options_whatever_raise(text):
    parse_options("options timeout:" + text)

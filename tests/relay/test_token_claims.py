"""What a token says, and what it cannot say."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.token_claims import ADMIN, BRIDGE, FORWARD, MAX_MACS, USUAL_RIGHTS, Pass, TokenError, read_claims

ONE, TWO = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")


def test_a_token_that_says_nothing_is_for_all_and_limits_nothing():
    assert read_claims({"iss": "somebody", "sub": 7}, 60.0) == Pass(60.0)
    assert read_claims({}, 60.0).rights == USUAL_RIGHTS == {BRIDGE, FORWARD}


def test_what_a_token_says():
    claims = {
        "room": "lab",
        "name": "web",
        "jti": "t1",
        "mac": ["52:54:00:00:00:01", "52-54-00-00-00-02"],
        "limits": {
            "bit-rate": "50M",
            "packet-rate": "off",
            "max-flows": 7,
            "flow-rate": 8,
            "max-half-open": 9,
        },
        "rights": ["bridge", "admin", "what a later relay knows"],
    }
    limits = {"bit_rate": 50_000_000, "packet_rate": 0, "max_flows": 7, "flow_rate": 8, "max_half_open": 9}
    found = read_claims(claims, 60.0)
    assert found == Pass(60.0, "lab", "web", "t1", frozenset({ONE, TWO}), limits, frozenset({BRIDGE, ADMIN}))
    assert read_claims({"mac": "52:54:00:00:00:01"}, 60.0).macs == {ONE}
    assert read_claims({"rights": []}, 60.0).rights == frozenset()
    lone = read_claims({"jti": "\udfff1"}, 60.0)
    assert lone.id == "?1", "what has no bytes in UTF-8 cannot be written down"
    for name in ("", "web", "My Web_1", "web.lab.example"):
        assert read_claims({"name": name}, 60.0).name == name
    for audience in ("vmrelay", ["mail", "vmrelay"]):
        assert read_claims({"aud": audience}, 60.0) == Pass(60.0)


@pytest.mark.parametrize(
    ("claims", "complaint"),
    [
        ({"room": "No Room"}, "room is none"),
        ({"name": 7}, "claims are not"),
        *(
            ({"name": name}, "none that a guest can have")
            for name in ("gateway", "Ann's", "w\u00e9b", ".lab", "a\ud800b")
        ),
        ({"jti": 7}, "claims are not"),
        *(({"jti": identifier}, "nobody could revoke it") for identifier in ("a b", "t1\n", " ")),
        *(
            ({"aud": aud}, "its aud names others")
            for aud in ("mail", "", None, 7, [], ["mail", "VMRELAY"], {})
        ),
        *(
            ({"mac": mac}, "mac is not")
            for mac in (
                *("", "web", 7, [], [7], {"a": 1}, ["52:54:00:00:00:01", "01:00:5e:00:00:01"]),
                [f"52:54:00:00:00:{n:02x}" for n in range(MAX_MACS + 1)],
            )
        ),
        *(
            ({"limits": limits}, "limits are not such")
            for limits in (
                *([], "50M", {"bit-rate": -1}, {"bit-rate": True}, {"bit-rate": 1.5}, {"bit-rate": None}),
                *({"max-flows": 0}, {"max-flows": "many"}, {"max-guests": 7}, {"max_flows": 7}, {"port": 7}),
            )
        ),
        *(({"rights": rights}, "no list of words") for rights in ("bridge", [7], {"b": 1}, 17 * ["x"])),
    ],
)
def test_what_a_token_cannot_say(claims, complaint):
    with pytest.raises(TokenError, match=complaint):
        read_claims(claims, 60.0)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from(["room", "name", "jti", "mac", "limits", "rights"]), json))
def test_whatever_a_token_says_is_read_or_refused(claims):
    with contextlib.suppress(TokenError):
        assert read_claims(claims, 60.0).expires == 60.0

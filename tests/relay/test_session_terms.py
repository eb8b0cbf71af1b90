"""What one worker tells another of a session's terms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.port_policy import Guard, Role, usual_policy
from actors.ports import SessionTerms
from actors.runtime import NEVER
from actors.settings import LanSettings
from netstack.malformed import MalformedPacket
from relay.session_terms import pack_terms, read_terms

POLICY = replace(usual_policy(LanSettings()), max_flows=7, guards=Guard.NONE, role=Role.ISOLATED)


@pytest.mark.parametrize("expires", [NEVER, 17.5])
@pytest.mark.parametrize(
    "policy",
    [
        *(
            None,
            POLICY,
            replace(POLICY, macs=frozenset()),
            replace(POLICY, macs=frozenset({bytes(6), b"mac-02"})),
        ),
        replace(POLICY, own=frozenset({"max_flows", "macs"})),
    ],
    ids=["no policy", "any MAC", "no MAC", "two MACs", "of its own"],
)
def test_terms_are_read_as_they_were(expires, policy):
    terms = SessionTerms("wéb", expires, policy, "t1")
    assert read_terms(pack_terms("/?encap=framed", terms)) == ("/?encap=framed", terms)


@pytest.mark.parametrize(
    "packed",
    [
        *(b"", b"{", b"[]", b"{}", b'"x"', b"null", b"\xff"),
        b'{"path": "/", "name": "", "token": "", "expires": "soon", "policy": null}',
        b'{"path": "/", "name": "", "token": "", "expires": 1, "policy": []}',
        b'{"path": "/", "name": "", "token": "", "expires": 1, "policy": {"macs": null, "guards": 0}}',
        b'{"path": "/", "name": "", "token": "", "expires": 1, "policy": {"macs": ["x"], "guards": 0}}',
    ],
)
def test_what_is_none_is_malformed(packed):
    with pytest.raises(MalformedPacket):
        read_terms(packed)

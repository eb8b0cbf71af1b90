"""Answers for guests of other workers (proxy ARP and ND), so that questions for them need not go there.

Whose an address is the gateway's tables tell (RFC 7432 section 10). Looked at are ARP requests (RFC 826) and
neighbour solicitations (RFC 4861) that are for many; not those by which a guest tells of its own address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV6
from netstack.icmpv6 import NEIGHBOUR_SOLICITATION, PROTOCOL_ICMPV6
from netstack.ipv6 import NEXT_HEADER, PAYLOAD_AT
from netstack.neighbour import guest_advertisement

if TYPE_CHECKING:
    from netstack.address_pool import AddressPool
    from netstack.neighbour import AddressBindings

_REQUEST: Final = b"\x00\x01"
_REPLY: Final = b"\x00\x02"
_ARP_END: Final = 42
_TARGET_AT: Final = PAYLOAD_AT + 8
_SOLICITATION_END: Final = _TARGET_AT + 16


class NeighbourProxy:
    """Looks at frames without tags."""

    def __init__(self, pool: AddressPool, bindings: AddressBindings) -> None:
        self._pool = pool
        self._bindings = bindings

    def holder(self, frame: bytes) -> bytes | None:
        """Tell the MAC of whom a frame asks for; None for all other frames, and where nobody is known."""
        ethertype = frame[12:14]
        if ethertype == ETHERTYPE_ARP:
            if len(frame) < _ARP_END or frame[20:22] != _REQUEST or frame[28:32] == frame[38:42]:
                return None
            return self._pool.holder_of(frame[38:42])
        if ethertype == ETHERTYPE_IPV6 and len(frame) >= _SOLICITATION_END:
            if frame[NEXT_HEADER] != PROTOCOL_ICMPV6 or frame[PAYLOAD_AT] != NEIGHBOUR_SOLICITATION:
                return None
            return self._bindings.holder_of(frame[_TARGET_AT:_SOLICITATION_END])
        return None


def answer_for(holder: bytes, frame: bytes) -> bytes:
    """Build what the MAC ``holder`` would answer to an ARP request, or a solicitation, for its address."""
    asker = frame[6:12]
    if frame[12:14] == ETHERTYPE_ARP:
        # As in the request: kinds and lengths, and who asked is who is answered.
        head = asker + holder + frame[12:20] + _REPLY
        return head + holder + frame[38:42] + frame[22:32]
    return guest_advertisement(holder, frame[_TARGET_AT:_SOLICITATION_END], asker, frame[22:38])

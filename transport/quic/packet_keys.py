"""Packet protection of 1-RTT packets in batches (RFC 9001, section 5).

aioquic protects one packet at a time. Here the header samples of a whole batch go through AES in one call,
which makes header protection nearly free; AES-GCM is called per packet, as it must be. The ciphers are those
that aioquic has made: one set serves both.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from aioquic.tls import CipherSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AES_SUITES: Final = frozenset({CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384})
"""Suites of this path; ChaCha20 (clients without AES hardware, if they insist) stays with aioquic."""

SAMPLE: Final = 16
"""Bytes of ciphertext that header protection samples (RFC 9001, 5.4.2)."""

_RECEIVE_MASK: Final = Struct(">BI11x")
"""Of each mask: one byte for the flags, four for the longest packet number."""


class PacketKeys:
    """Keys of one direction.

    ``crypt(nonce, data, header)`` opens or seals; ``nonce`` is ``(iv ^ packet_number).to_bytes(12, "big")``.
    ``mask(samples)`` returns 16 bytes for each sample of 16. ``secret`` tells one key phase from another.
    """

    __slots__ = ("crypt", "iv", "mask", "secret")

    def __init__(
        self,
        secret: bytes,
        crypt: Callable[[bytes, bytes, bytes], bytes],
        iv: int,
        mask: Callable[[bytes], bytes],
    ) -> None:
        self.secret = secret
        self.crypt = crypt
        self.iv = iv
        self.mask = mask

    def receive_masks(self, packets: Sequence[bytes], at: int) -> Iterator[tuple[int, int]]:
        """For each packet the mask of its flags (8 bits) and of its packet number field (32 bits).

        ``at`` is where the packet number starts; every packet must have 20 bytes from there on.
        """
        start, end = at + 4, at + 4 + SAMPLE
        return _RECEIVE_MASK.iter_unpack(self.mask(b"".join([packet[start:end] for packet in packets])))

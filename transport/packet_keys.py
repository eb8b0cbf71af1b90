"""Packet protection of 1-RTT packets in batches (RFC 9001, section 5).

aioquic protects one packet at a time. Here the header samples of a whole batch go through AES in one call,
which makes header protection nearly free; AES-GCM is called per packet, as it must be.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from aioquic.quic.crypto import derive_key_iv_hp
from aioquic.tls import CipherSuite
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AES_SUITES = frozenset({CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384})
"""Suites of this path; ChaCha20 (clients without AES hardware, if they insist) stays with aioquic."""

SAMPLE = 16
"""Bytes of ciphertext that header protection samples (RFC 9001, 5.4.2)."""

_RECEIVE_MASK = Struct(">BI11x")
"""Of each mask: one byte for the flags, four for the longest packet number."""


class Secret(NamedTuple):
    """What keys are derived from; compared to notice a key update."""

    cipher_suite: CipherSuite
    secret: bytes
    version: int


class PacketKeys:
    """Keys of one direction.

    ``crypt(nonce, data, header)`` opens or seals; ``nonce`` is ``(iv ^ packet_number).to_bytes(12, "big")``.
    ``mask(samples)`` returns 16 bytes for each sample of 16.
    """

    __slots__ = ("crypt", "iv", "mask", "secret")

    def __init__(self, secret: Secret, *, seals: bool, previous: PacketKeys | None = None) -> None:
        """Derive from ``secret``; after a key update the header key stays ``previous``'s (RFC 9001, 6)."""
        key, iv, header_key = derive_key_iv_hp(
            cipher_suite=secret.cipher_suite, secret=secret.secret, version=secret.version
        )
        aead = AESGCM(key)
        self.secret = secret
        self.crypt: Callable[[bytes, bytes, bytes], bytes] = aead.encrypt if seals else aead.decrypt
        self.iv = int.from_bytes(iv, "big")
        self.mask: Callable[[bytes], bytes] = (
            previous.mask
            if previous is not None
            # One block per sample and no chaining: ECB is what RFC 9001, 5.4.3 asks for.
            else Cipher(algorithms.AES(header_key), modes.ECB()).encryptor().update  # noqa: S305
        )

    def receive_masks(self, packets: Sequence[bytes], at: int) -> Iterator[tuple[int, int]]:
        """For each packet the mask of its flags (8 bits) and of its packet number field (32 bits).

        ``at`` is where the packet number starts; every packet must have 20 bytes from there on.
        """
        start, end = at + 4, at + 4 + SAMPLE
        return _RECEIVE_MASK.iter_unpack(self.mask(b"".join([packet[start:end] for packet in packets])))

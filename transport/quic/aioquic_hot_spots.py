"""What aioquic does most often while a connection opens, done the same way for less; for clients as well.

Importing this module replaces it in aioquic. ``tests/transport/test_aioquic_hot_spots.py`` compares both.
"""

from __future__ import annotations

import sys
from enum import EnumType
from functools import cache
from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.h3 import connection as h3_connection
from aioquic.quic import connection as quic_connection
from aioquic.quic import crypto, packet, packet_builder
from aioquic.tls import Epoch

from transport.quic import key_schedule, tls_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator


class Members(type):
    """Metaclass of what stands for an enumeration; it asks the enumeration for all but its members.

    Before 3.12 an enumeration's class has a ``__getattr__``, with which every look at a member makes two
    objects. An opening takes some 800 such looks.
    """

    enumeration: EnumType

    def __call__(cls, value: object) -> Any:
        """Return the member of this value. Raises ValueError."""
        return cls.enumeration(value)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.enumeration)

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls.enumeration)


def _hasten_members(module: Any) -> None:
    """Have a module's functions find the members of aioquic's enumerations as plain attributes."""
    for name, kind in list(vars(module).items()):
        if isinstance(kind, EnumType) and kind.__module__.startswith("aioquic."):
            vars(module)[name] = Members(
                name, (), {**kind.__members__, "__members__": kind.__members__, "enumeration": kind}
            )


vars(tls).update(
    pull_block=tls_blocks.PulledBlock,
    push_block=tls_blocks.PushedBlock,
    pull_opaque=tls_blocks.pull_opaque,
    push_opaque=tls_blocks.push_opaque,
    push_extension=tls_blocks.push_extension,
    push_message=tls_blocks.PushedMessage,
    hkdf_expand_label=key_schedule.hkdf_expand_label,
    hkdf_extract=key_schedule.hkdf_extract,
    KeySchedule=key_schedule.KeySchedule,
)
vars(crypto).update(
    hkdf_expand_label=key_schedule.hkdf_expand_label,
    hkdf_extract=key_schedule.hkdf_extract,
    derive_key_iv_hp=key_schedule.derive_key_iv_hp,
)

# A connection asks for the same thirty sets of encryption levels as the one before.
vars(quic_connection)["EPOCHS"] = cache(quic_connection.EPOCHS)

# There is one object for each level. Enum's own hash is a function in Python, called with each look-up.
type.__setattr__(Epoch, "__hash__", object.__hash__)

if sys.version_info < (3, 12):
    for part in (tls, packet, packet_builder, quic_connection, h3_connection):
        _hasten_members(part)

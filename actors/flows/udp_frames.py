"""A UDP flow's frames: taken apart on their way out, built on their way back.

Every datagram through the NAT comes by here, so mypyc compiles this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.udp import UdpFrameTemplate, has_head, plain_payload, read_udp, udp_head

if TYPE_CHECKING:
    from collections.abc import Container

    from actors.messages import DatagramFromNet
    from netstack.family import Family
    from netstack.udp import UdpHead

MAX_TEMPLATES: Final = 256
"""Remote addresses and ports for which frames are prepared; beyond that it begins anew."""
_NOBODY: Final = ("", 0)


class Run(NamedTuple):
    """Frames that follow one another to one address and port, with one TTL and one "don't fragment"."""

    target: tuple[bytes, int, int, bool]
    frames: list[bytes]
    payloads: list[bytes]


def runs_of(frames: list[bytes], family: Family) -> list[Run]:
    """Sort frames that the gateway has checked into runs, which may leave with few calls."""
    runs: list[Run] = []
    known: UdpHead | None = None
    last_frames: list[bytes] = []
    last_payloads: list[bytes] = []
    last_target = (b"", 0, 0, False)
    for frame in frames:
        if known is not None and has_head(frame, known):
            last_payloads.append(plain_payload(frame))
        else:
            known = udp_head(frame)
            _, _, destination, port, payload = read_udp(frame)
            target = (destination, port, frame[family.ttl] - 1, family.dont_fragment(frame))
            if not runs or target != last_target:
                last_target, last_frames, last_payloads = target, [], []
                runs.append(Run(target, last_frames, last_payloads))
            last_payloads.append(payload)
        last_frames.append(frame)
    return runs


class FramesToGuest:
    """Builds the frames of what comes from outside to one guest's port."""

    def __init__(self, family: Family, macs: bytes, address: bytes, port: int) -> None:
        """``macs`` are the frames' destination and source, 12 bytes; address and port are the guest's."""
        self._family = family
        self._macs = macs
        self._address = address
        self._port = port
        self._templates: dict[tuple[str, int], UdpFrameTemplate] = {}
        self._identification = 0

    def build(self, datagrams: list[DatagramFromNet], senders: Container[str] | None) -> list[bytes]:
        """Build the frames of the datagrams that come from ``senders``; None lets everybody in."""
        frames: list[bytes] = []
        template: UdpFrameTemplate | None = None
        last = _NOBODY
        for payload, address, ttl in datagrams:
            if address != last:
                last = address
                is_wanted = senders is None or address[0] in senders
                template = self._template_for(address) if is_wanted else None
            if template is not None:
                self._identification = (self._identification + 1) & 0xFFFF
                frames.append(template.build(payload, self._identification, max(1, ttl - 1)))
        return frames

    def _template_for(self, address: tuple[str, int]) -> UdpFrameTemplate:
        template = self._templates.get(address)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            remote = self._family.pack(address[0])
            template = UdpFrameTemplate(self._macs, remote, address[1], self._address, self._port)
            self._templates[address] = template
        return template

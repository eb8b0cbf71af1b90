"""What this machine's packet filter makes of a UDP port, from the rules as nft tells them in JSON.

The form is that of libnftables-json(5). A base chain's rules are followed as a first packet to the port would
go through them: into chains that are jumped to, sets and verdict maps. A rule that names the port decides,
whatever else it asks for (an interface, a source address). One that does not name it decides only if it asks
for nothing else either: whether a client's packet would be such a one is not known here.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

HOOKS = ("prerouting", "input")
"""Where packets for this machine pass."""

_VERDICTS = ("accept", "drop", "reject")
_OF_UDP = frozenset({"udp", "th"})
"""Headers whose port it is: UDP's own, or that of any transport."""
_UDP = frozenset({"udp", 17})
_HARMLESS = frozenset({"counter", "log"})
"""Statements that neither ask for anything nor decide."""


class Fits(Enum):
    """Whether a packet to the port is what a rule asks for."""

    NO = 0
    PERHAPS = 1
    YES = 2
    """It is, as far as the rule asks for nothing but UDP."""
    NAMED = 3
    """The port itself is named."""


class Decision(NamedTuple):
    """What becomes of the packet."""

    verdict: str
    """One of accept, drop and reject; or, of a rule, ``return``."""
    named: bool
    """Whether by a rule that names the port."""


def closed_to_udp(rules: list[dict[str, Any]], port: int) -> list[tuple[str, str]]:
    """Find the base chains that do not let a UDP port in: (family, table and name; why)."""
    found = []
    for chain in (entry["chain"] for entry in rules if "chain" in entry):
        if chain.get("hook") not in HOOKS or chain.get("type", "filter") != "filter":
            continue
        family, table, name = chain["family"], chain["table"], chain["name"]
        decided = _Packet(rules, family, table, port).decide(name, certain=True)
        where = f"{family} {table} {name}"
        if decided is None:
            if chain.get("policy") == "drop":
                found.append((where, f"drops what no rule names, and none names UDP port {port}"))
        elif decided.verdict != "accept":
            rule = f"for UDP port {port}" if decided.named else "for all packets"
            more = "" if decided.named else f", and none before it names UDP port {port}"
            found.append((where, f"has a rule {rule}: {decided.verdict}{more}"))
    return found


class _Packet:
    """The first packet of a client to the port, on its way through one table."""

    def __init__(self, rules: list[dict[str, Any]], family: str, table: str, port: int) -> None:
        self._port = port
        self._rules: dict[str, list[list[dict[str, Any]]]] = {}
        self._sets: dict[str, Any] = {}
        """Elements of sets and maps by their names."""
        self._known: dict[tuple[str, bool], Decision | None] = {}
        """What chains decide; it also ends loops, which nft lets nobody make."""
        for entry in rules:
            for kind, item in entry.items():
                if not isinstance(item, dict) or (item.get("family"), item.get("table")) != (family, table):
                    continue
                if kind == "rule":
                    self._rules.setdefault(item["chain"], []).append(item.get("expr", []))
                elif kind in {"set", "map"}:
                    self._sets[item["name"]] = item.get("elem", [])

    def decide(self, chain: str, *, certain: bool) -> Decision | None:
        """Tell what a chain decides; ``certain`` is whether each packet to the port gets there."""
        key = chain, certain
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._decide(chain, certain=certain)
        return self._known[key]

    def _decide(self, chain: str, *, certain: bool) -> Decision | None:
        for expressions in self._rules.get(chain, []):
            fits = self._fits(expressions)
            if fits is Fits.NO:
                continue
            sure = certain and fits is not Fits.PERHAPS
            for statement in expressions:
                decided = self._verdict(statement, fits=fits, certain=sure)
                if decided is None:
                    continue
                if decided.verdict == "return":
                    return None
                return decided
        return None

    def _fits(self, expressions: list[dict[str, Any]]) -> Fits:
        found = [self._asks(statement) for statement in expressions]
        if Fits.NO in found:
            return Fits.NO
        # A rule that names the port decides, whatever else it asks for.
        return next((fits for fits in (Fits.NAMED, Fits.PERHAPS) if fits in found), Fits.YES)

    def _asks(self, statement: dict[str, Any]) -> Fits:
        """Tell whether the packet is what one statement asks for."""
        for kind, content in statement.items():
            if kind == "match":
                return self._matches(content)
            if kind not in {*_HARMLESS, *_VERDICTS, "jump", "goto", "return", "continue", "vmap"}:
                return Fits.PERHAPS
        return Fits.YES

    def _matches(self, match: dict[str, Any]) -> Fits:
        holds, named = self._compare(match.get("left"), match.get("right"))
        if holds is None:
            return Fits.PERHAPS
        if match.get("op") == "!=":
            return Fits.NO if holds else Fits.YES
        if match.get("op") not in {"==", "in"}:
            return Fits.PERHAPS
        if not holds:
            return Fits.NO
        return Fits.NAMED if named else Fits.YES

    def _compare(self, left: Any, right: Any) -> tuple[bool | None, bool]:
        """Tell whether a field is a value, None if that is not known; and whether it is the port."""
        parts = left["concat"] if isinstance(left, dict) and "concat" in left else [left]
        fields = [self._field(part) for part in parts]
        if None in fields:
            return None, False
        return self._holds(right, fields), any(_is_port(part) for part in parts)

    def _field(self, part: Any) -> frozenset[Any] | None:
        """Tell what a field of the packet may be written as; None if that is not known."""
        payload = part.get("payload") if isinstance(part, dict) else None
        if isinstance(payload, dict) and payload.get("field") == "dport":
            return frozenset({self._port}) if payload.get("protocol") in _OF_UDP else frozenset()
        if isinstance(payload, dict) and payload.get("field") in {"protocol", "nexthdr"}:
            return _UDP
        if isinstance(part, dict) and part.get("meta", {}).get("key") == "l4proto":
            return _UDP
        return None

    def _holds(self, value: Any, fields: list[Any]) -> bool:
        """Whether fields are a value, or in a set, a list or a range of it."""
        match value:
            case str() if value.startswith("@"):
                return self._holds(self._sets.get(value[1:], []), fields)
            case {"set": inner}:
                return self._holds(inner, fields)
            case {"elem": {"val": inner}}:
                return self._holds(inner, fields)
            case list():
                return any(self._holds(item, fields) for item in value)
            case {"concat": parts}:
                pairs = zip(parts, fields, strict=False)
                return len(parts) == len(fields) and all(self._holds(part, [field]) for part, field in pairs)
            case {"range": [int(low), int(high)]}:
                return any(isinstance(one, int) and low <= one <= high for one in fields[0])
        return len(fields) == 1 and isinstance(value, str | int) and value in fields[0]

    def _verdict(self, statement: dict[str, Any], *, fits: Fits, certain: bool) -> Decision | None:
        """Tell what a statement of a rule decides that the packet may be meant by."""
        named = fits is Fits.NAMED
        for kind, content in statement.items():
            if kind in {*_VERDICTS, "return"} and (named or certain):
                return Decision(kind, named)
            if kind in {"jump", "goto"}:
                inner = self.decide(content["target"], certain=certain or named)
                # What all packets of this port are sent to is for it by name.
                found = None if inner is None else Decision(inner.verdict, inner.named or named)
                return Decision("return", named) if found is None and kind == "goto" and certain else found
            if kind == "vmap":
                return self._look_up(content, certain=certain)
        return None

    def _look_up(self, vmap: dict[str, Any], *, certain: bool) -> Decision | None:
        """Tell what a verdict map decides about the packet."""
        data = vmap.get("data")
        elements = self._sets.get(data[1:], []) if isinstance(data, str) else (data or {}).get("set", [])
        for element in elements:
            key, verdict = element if isinstance(element, list) and len(element) == 2 else (None, None)  # noqa: PLR2004 - a key and its verdict
            holds, named = self._compare(vmap.get("key"), key)
            if holds and isinstance(verdict, dict):
                return self._verdict(verdict, fits=Fits.NAMED if named else Fits.YES, certain=certain)
        return None


def _is_port(part: Any) -> bool:
    return isinstance(part, dict) and part.get("payload", {}).get("field") == "dport"

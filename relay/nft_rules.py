"""What this machine's packet filter makes of a UDP port, from the rules as nft tells them in JSON.

The form is that of libnftables-json(5). A base chain's rules are followed as a first packet to the port would
go through them: into chains that are jumped to, sets and verdict maps. A rule that names the port decides,
whatever else it asks for (an interface, a source address). One that does not name it decides only if it asks
for nothing else either that is not known of such a packet: it is new to conntrack, comes by an interface
other than loopback, is for this machine, and from a port that systems give to clients. Where all that would
let it in asks for more (or is a match of iptables, of which nft does not tell what it asks for), it cannot be
told. What rewrites destinations (dnat, redirect) is looked for too: the relay would not see the packet.
"""

from __future__ import annotations

from enum import Enum
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

HOOKS = ("prerouting", "input")
"""Where packets for this machine pass."""

_VERDICTS = ("accept", "drop", "reject")
_OF_UDP = frozenset({"udp", "th"})
"""Headers whose port it is: UDP's own, or that of any transport."""
_UDP: frozenset[str | int] = frozenset({"udp", 17})
_OF_OTHERS = frozenset(
    {"tcp", "icmp", "icmpv6", "igmp", "sctp", "dccp", "udplite", "esp", "ah", "comp", "arp"}
)
"""Headers that a UDP packet does not have: whatever is asked of them, it is not such a packet."""
_CLIENTS_PORTS = range(32768, 61000)
"""Of Linux (ip_local_port_range); those of others lie above."""
_KNOWN = {
    ("meta", "l4proto"): _UDP,
    ("ct", "state"): frozenset[str | int]({"new"}),
    ("fib", "type"): frozenset[str | int]({"local"}),
}
"""What is known of the packet, by how nft calls it."""
_COMPARISONS = {"<": lt, ">": gt, "<=": le, ">=": ge}
_REWRITES = ("dnat", "redirect")
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


class Findings(NamedTuple):
    """What becomes of a UDP port: chains (family, table and name), and what each does."""

    closed: list[tuple[str, str]]
    """They do not let it in."""
    unknown: list[tuple[str, str]]
    """They let it in only as rules say of which it cannot be told whether they mean it."""
    rewritten: list[tuple[str, str]]
    """They send it to somewhere else."""


def look_at(rules: list[dict[str, Any]], port: int) -> Findings:
    """Tell what the base chains do with a UDP port."""
    findings = Findings([], [], [])
    for chain in (entry["chain"] for entry in rules if "chain" in entry):
        family, table, name = chain["family"], chain["table"], chain["name"]
        packet, where = _Packet(rules, family, table, port), f"{family} {table} {name}"
        if chain.get("type") == "nat" and chain.get("hook") == "prerouting":
            if (place := packet.sent_to(name)) is not None:
                findings.rewritten.append((where, f"sends UDP port {port} to {place}"))
            continue
        if chain.get("hook") not in HOOKS or chain.get("type", "filter") != "filter":
            continue
        decided = packet.decide(name, certain=True)
        if decided is None and chain.get("policy") == "drop":
            why = f"drops what no rule names, and none names UDP port {port}"
        elif decided is not None and decided.verdict != "accept":
            rule = f"for UDP port {port}" if decided.named else "for all packets"
            more = "" if decided.named else f", and none before it names UDP port {port}"
            why = f"has a rule {rule}: {decided.verdict}{more}"
        else:
            continue
        if packet.may_be_let_in and (decided is None or not decided.named):
            findings.unknown.append((where, why))
        else:
            findings.closed.append((where, why))
    return findings


class _Packet:
    """The first packet of a client to the port, on its way through one table."""

    def __init__(self, rules: list[dict[str, Any]], family: str, table: str, port: int) -> None:
        self._port = port
        self._rules: dict[str, list[list[dict[str, Any]]]] = {}
        self._sets: dict[str, Any] = {}
        """Elements of sets and maps by their names."""
        self._known: dict[tuple[str, bool], Decision | None] = {}
        """What chains decide; it also ends loops, which nft lets nobody make."""
        self.may_be_let_in = False
        """Whether a rule accepts it perhaps, of those before the one that decides."""
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
        left, right, operator = match.get("left"), match.get("right"), match.get("op")
        if _is_of_another(left):
            return Fits.NO
        if operator in _COMPARISONS:
            return self._lies(left, right, operator)
        if operator not in {"==", "!=", "in"}:
            return Fits.PERHAPS
        holds, named = self._compare(left, right)
        if holds is None:
            return Fits.PERHAPS
        if operator == "!=":
            return Fits.NO if holds else Fits.YES
        if not holds:
            return Fits.NO
        return Fits.NAMED if named else Fits.YES

    def _lies(self, left: Any, right: Any, operator: str) -> Fits:
        """Tell whether the port is below or above a number."""
        if not isinstance(right, int):
            return Fits.PERHAPS
        if _is_port(left):
            return Fits.NAMED if _COMPARISONS[operator](self._port, right) else Fits.NO
        if _is_port(left, "sport"):
            return Fits.YES if all(_COMPARISONS[operator](end, right) for end in _ends()) else Fits.NO
        return Fits.PERHAPS

    def _compare(self, left: Any, right: Any) -> tuple[bool | None, bool]:
        """Tell whether a field is a value, None if that is not known; and whether it is the port."""
        parts = left["concat"] if isinstance(left, dict) and "concat" in left else [left]
        if any(map(_is_of_another, parts)):
            return False, False
        if _is_port(left, "sport"):
            return all(self._holds(right, [frozenset({end})]) for end in _ends()), False
        if _is_interface(left):
            # By loopback no client of another machine comes; of the others any may be theirs.
            return (False, False) if right == "lo" else (None, False)
        fields = [self._field(part) for part in parts]
        if None in fields:
            return None, False
        return self._holds(right, fields), any(_is_port(part) for part in parts)

    def _field(self, part: Any) -> frozenset[Any] | None:
        """Tell what a field of the packet may be written as; None if that is not known."""
        if _is_port(part):
            return frozenset({self._port})
        for kind, content in part.items() if isinstance(part, dict) else ():
            if not isinstance(content, dict):
                continue
            if kind == "payload" and content.get("field") in {"protocol", "nexthdr"}:
                return _UDP
            if kind == "fib" and content.get("flags") != ["daddr"]:
                return None
            return _KNOWN.get((kind, str(content.get("key", content.get("result")))))
        return None

    def sent_to(self, chain: str, depth: int = 0) -> str | None:
        """Tell where a chain of type nat sends the packet to, instead of the port; None if nowhere."""
        for expressions in self._rules.get(chain, []) if depth <= len(self._rules) else ():
            asked = [self._asks(statement) for statement in expressions if not _rewrites(statement)]
            if Fits.NO in asked:
                continue
            for kind, content in (item for statement in expressions for item in statement.items()):
                if _rewrites({kind: content}):
                    place = _place(kind, content, self._port)
                    perhaps = Fits.PERHAPS in asked
                    return place and f"{place}, where what else its rule asks for is so" if perhaps else place
                if kind in {"jump", "goto"}:
                    place = self.sent_to(content["target"], depth + 1)
                    if place is not None:
                        return place
                if kind in {"accept", "return"} and Fits.PERHAPS not in asked:
                    return None
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
            if kind == "accept":
                self.may_be_let_in = True
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
            if holds is None and isinstance(verdict, dict):
                self._verdict(verdict, fits=Fits.PERHAPS, certain=False)
            if holds and isinstance(verdict, dict):
                return self._verdict(verdict, fits=Fits.NAMED if named else Fits.YES, certain=certain)
        return None


def _payload(part: Any) -> dict[str, Any]:
    found = part.get("payload") if isinstance(part, dict) else None
    return found if isinstance(found, dict) else {}


def _is_port(part: Any, field: str = "dport") -> bool:
    """Whether it is a port of UDP: by name, or by where it stands in the header."""
    payload = _payload(part)
    if payload.get("base") == "th":
        return (payload.get("offset"), payload.get("len")) == ({"sport": 0, "dport": 16}[field], 16)
    return payload.get("field") == field and payload.get("protocol") in _OF_UDP


def _is_of_another(part: Any) -> bool:
    """Whether it is of a header that a UDP packet does not have."""
    if isinstance(part, dict) and (masked := part.get("&")):
        return any(map(_is_of_another, masked))
    return _payload(part).get("protocol") in _OF_OTHERS


def _is_interface(part: Any) -> bool:
    meta = part.get("meta") if isinstance(part, dict) else None
    return isinstance(meta, dict) and meta.get("key") in {"iif", "iifname"}


def _ends() -> tuple[int, int]:
    return _CLIENTS_PORTS[0], _CLIENTS_PORTS[-1]


def _rewrites(statement: dict[str, Any]) -> bool:
    """Whether a statement rewrites the destination: one of nft's own, or a target of iptables."""
    target = statement.get("xt")
    named = target.get("name") if isinstance(target, dict) and target.get("type") == "target" else None
    return any(kind in statement for kind in _REWRITES) or named in {"DNAT", "REDIRECT"}


def _place(kind: str, content: Any, port: int) -> str | None:
    """Write where a packet for a port is sent to; None where that is the same place."""
    if kind == "xt":
        return f"another place ({content['name']} of iptables)"
    asked = content if isinstance(content, dict) else {}
    address, number = asked.get("addr"), asked.get("port", port)
    if kind == "redirect" and number == port:
        return None
    where = "port" if kind == "redirect" or address is None else f"{address} port"
    return f"{where} {number}" if isinstance(number, int) else f"another {where}"

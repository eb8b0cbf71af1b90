"""What this machine's packet filter makes of a UDP port, from the rules as nft tells them in JSON.

The form is that of libnftables-json(5). Rules are looked at one by one, in the order of their table, those of
chains that others jump to among them: whether a jump is taken is not looked into.
"""

from __future__ import annotations

from typing import Any

_VERDICTS = ("accept", "drop", "reject")
_OF_UDP = frozenset({"udp", "th"})
"""Headers whose port it is: UDP's own, or that of any transport."""


def closed_to_udp(rules: list[dict[str, Any]], port: int) -> list[tuple[str, str]]:
    """Find the base chains for input that do not let a UDP port in: (family, table and name; why)."""
    found = []
    for chain in (entry["chain"] for entry in rules if entry.get("chain", {}).get("hook") == "input"):
        of_table = [
            entry["rule"]
            for entry in rules
            if "rule" in entry and all(entry["rule"].get(key) == chain[key] for key in ("family", "table"))
        ]
        verdicts = [verdict for rule in of_table if (verdict := _verdict(rule.get("expr", []), port))]
        where = f"{chain['family']} {chain['table']} {chain['name']}"
        if verdicts and verdicts[0] != "accept":
            found.append((where, f"has a rule for UDP port {port}: {verdicts[0]}"))
        elif not verdicts and chain.get("policy") == "drop":
            found.append((where, f"drops what no rule names, and none names UDP port {port}"))
    return found


def _verdict(expressions: list[dict[str, Any]], port: int) -> str | None:
    """Tell what a rule does with a UDP port; None if it does not name it, or does nothing with it."""
    if not any(_names(expression.get("match", {}), port) for expression in expressions):
        return None
    return next((name for expression in expressions for name in _VERDICTS if name in expression), None)


def _names(match: dict[str, Any], port: int) -> bool:
    payload = match.get("left", {}).get("payload") if isinstance(match.get("left"), dict) else None
    if not isinstance(payload, dict) or payload.get("field") != "dport":
        return False
    if payload.get("protocol") not in _OF_UDP or match.get("op") not in {"==", "in"}:
        return False
    return _holds(match.get("right"), port)


def _holds(value: Any, port: int) -> bool:
    """Whether a port is a value, or in a set, a list or a range of it."""
    match value:
        case {"range": [int(low), int(high)]}:
            return low <= port <= high
        case {"set": inner}:
            return _holds(inner, port)
        case list():
            return any(_holds(item, port) for item in value)
    return bool(value == port)

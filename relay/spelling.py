"""Which name was probably meant: what refusals of unknown flags, variables and settings add as "perhaps"."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

LIKENESS = 0.6
"""Ratio of difflib from which a name of the right kind counts as misspelt; it is difflib's own default."""

ELSEWHERE_LIKENESS = 0.87
"""The same for environment variables without a prefix of ours: most of them are other programs'."""

OWN_PREFIX_LIKENESS = 0.8
"""The same behind RELAY_, which the certificate's variables have, and some other program's may."""

CONFIG_VARIABLE = "VMRELAY_CONFIG"

OTHER_VARIABLES = (
    CONFIG_VARIABLE,
    "VMRELAY_TOKEN_FILE",
    "VMRELAY_CONSOLE",
    "VMRELAY_COMPILE",
    "VMRELAY_OPTIMIZE",
    "VMRELAY_ACCELERATED",
    "VMRELAY_ADMIN_TOKEN_FILE",
    "VMRELAY_CLUSTER_KEY_FILE",
    "VMRELAY_PROMETHEUS",
    "RELAYBENCH",
)
"""Variables that are no settings: of the file, the clients, the build, the tests, Compose and the load
generator."""

MAX_NAMED = 5
"""Variables that one line complains about."""

_OWN = "VMRELAY"
_NOT = "no-"

_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def perhaps(word: str, known: Iterable[str], switches: Iterable[str] = ()) -> str:
    """Return ``, perhaps 'NAME'`` for the known name that is most like ``word``, or nothing.

    Case, and dashes written as underscores, make no difference. For ``no-NAME``, where NAME is one of
    ``switches``, what it is set to is a part of what was meant.
    """
    negated = _negated(word, switches)
    near = closest(word, known) if negated is None else f"{negated} = false"
    return "" if near is None else f", perhaps {near!r}"


def _negated(word: str, switches: Iterable[str]) -> str | None:
    """Return the switch that ``word`` turns off as a flag would, ``no-NAME``; None if it is none."""
    folded = _folded(word)
    return closest(folded.removeprefix(_NOT), switches) if folded.startswith(_NOT) else None


def closest(word: str, known: Iterable[str], likeness: float = LIKENESS) -> str | None:
    """Return the known name that is most like ``word``, or None if none is like it."""
    names = {_folded(name): name for name in known}
    near = difflib.get_close_matches(_folded(word), names, n=1, cutoff=likeness)
    return names[near[0]] if near else None


def misspelt_variables(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    others: Iterable[str],
    switches: Collection[str] = (),
) -> dict[str, str | None]:
    """Find variables that look as if they were meant for the relay, with what was probably meant (or None).

    ``settings`` has the variable of each setting by the setting's name, of which ``switches`` are true or
    false; ``others`` are variables that mean something to other parts of the project. Everything that begins
    with VMRELAY is ours; of other names those that are much like one of ours. Variables that are set to
    nothing count as not set.
    """
    known = {*settings.values(), *others}
    found = {}
    for name, value in environment.items():
        if name in known or not value.strip() or is_service_link(name, value):
            continue
        folded = name.upper()
        if folded.startswith(_OWN):
            # The prefix alike says nothing: the rest decides.
            rest = folded.removeprefix(_OWN).strip("_-")
            negated = _negated(rest, switches)
            setting = closest(rest, settings) if negated is None else negated
            found[name] = None if setting is None else settings[setting] + ("=false" if negated else "")
            continue
        own = folded.startswith("RELAY_")
        near = closest(name, known, OWN_PREFIX_LIKENESS if own else ELSEWHERE_LIKENESS)
        if near is not None:
            found[name] = near
    return found


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes (or Docker's links) set the variable to say where a service is.

    A service named ``vmrelay`` gives every container of its namespace VMRELAY_PORT=tcp://10.0.0.1:4433,
    VMRELAY_SERVICE_HOST and more.
    """
    return bool(
        _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value.strip()))
    )


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")

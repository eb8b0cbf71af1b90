"""The software bill of materials of an environment: its Python packages with their licences, as CycloneDX.

``python docker/sbom.py`` lists the environment that it runs in, ``--lock FILE`` only what a lock file names,
``--path FOLDER`` another environment's site-packages. ``--expression`` prints all licences together, as the
image's label has them. A package of which no licence is known ends it with status 1: none goes unnoticed.

What metadata say in old forms (classifiers, free text) becomes an SPDX expression. Same input, same output.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

_SPDX_ID = re.compile(r"[A-Za-z0-9.+-]+")
_NAMED_IN_LOCK = re.compile(r"^([A-Za-z0-9._-]+)==\S+(.*)$", re.MULTILINE)

_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Those that say just one licence. "BSD License" is one of several, and so not here."""


class UnknownLicenceError(Exception):
    """Packages do not say under which licence they are, in no form that is known."""


def canonical(name: str) -> str:
    """Write a package's name as registries do (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(distribution: Distribution) -> str | None:
    """Find the SPDX expression of a package's licence."""
    metadata = distribution.metadata
    if expressions := metadata.get_all("License-Expression"):
        return str(expressions[0])
    said = [_CLASSIFIERS[c] for c in metadata.get_all("Classifier") or [] if c in _CLASSIFIERS]
    if not said and metadata["License"] in _CLASSIFIERS.values():
        return str(metadata["License"])  # an SPDX identifier before there was a field for it
    return " OR ".join(sorted(set(said))) or None


def packages(folder: str | None = None, lock: str | None = None) -> list[Distribution]:
    """Find the packages of an environment, of which a lock file may name those wanted. In order of names.

    Raises LookupError for one that is not there, unless the lock file names it for some systems only.
    """
    found = {
        canonical(distribution.metadata["Name"]): distribution
        for distribution in (distributions(path=[folder]) if folder else distributions())
    }
    if lock is None:
        return [found[name] for name in sorted(found)]
    named = {canonical(name): marker for name, marker in _NAMED_IN_LOCK.findall(lock)}
    if missing := [name for name, marker in named.items() if name not in found and ";" not in marker]:
        raise LookupError(f"not installed: {', '.join(missing)}")
    return [found[name] for name in sorted(named.keys() & found.keys())]


def bill(listed: list[Distribution]) -> dict[str, Any]:
    """Make a CycloneDX 1.6 document. Raises UnknownLicenceError, which names the packages."""
    if unknown := [d.metadata["Name"] for d in listed if licence_of(d) is None]:
        raise UnknownLicenceError(f"no licence is known of: {', '.join(unknown)}")
    components = [
        {
            "type": "library",
            "bom-ref": _purl(distribution),
            "name": canonical(distribution.metadata["Name"]),
            "version": distribution.version,
            "licenses": [_as_cyclonedx(str(licence_of(distribution)))],
            "purl": _purl(distribution),
        }
        for distribution in listed
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def expression(listed: list[Distribution]) -> str:
    """Join the licences of all packages, each once: all of them have to be kept."""
    licences = sorted({licence_of(distribution) or "NOASSERTION" for distribution in listed})
    return " AND ".join(f"({licence})" if " " in licence else licence for licence in licences)


def _purl(distribution: Distribution) -> str:
    return f"pkg:pypi/{canonical(distribution.metadata['Name'])}@{distribution.version}"


def _as_cyclonedx(licence: str) -> dict[str, Any]:
    return {"license": {"id": licence}} if _SPDX_ID.fullmatch(licence) else {"expression": licence}


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description="List Python packages with their licences (CycloneDX).")
    parser.add_argument("--path", help="site-packages of the environment to list")
    parser.add_argument("--lock", type=Path, help="lock file that names the packages to list")
    parser.add_argument("--expression", action="store_true", help="print one SPDX expression for all")
    arguments = parser.parse_args()
    try:
        lock = None if arguments.lock is None else arguments.lock.read_text()
        listed = packages(arguments.path, lock)
        document = json.dumps(bill(listed), indent=2)
    except (LookupError, OSError, UnknownLicenceError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{expression(listed) if arguments.expression else document}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

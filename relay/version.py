"""``vmrelay version``: which version this is, and what it runs on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

LIBRARIES = ("aioquic", "pykka", "scapy", "loguru", "cryptography")


def version() -> str:
    """Return the version that is installed."""
    return _of("vmrelay")


def _of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def is_accelerated() -> bool:
    """Whether the datagram path is compiled; looked up without loading it."""
    spec = importlib.util.find_spec("transport.quic.datagram_path")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def path_form() -> str:
    """Say which form of the datagram path there is, in an operator's words."""
    return "compiled accelerator" if is_accelerated() else "pure Python"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay version``."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Print it; return the exit status."""
    told = {"vmrelay": version(), "path": path_form(), "python": platform.python_version()}
    told |= {library: _of(library) for library in LIBRARIES}
    told["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    if args.json:
        print(json.dumps(told, indent=1))  # noqa: T201
    else:
        print("\n".join(f"{name:<12} {value}" for name, value in told.items()))  # noqa: T201
    return 0

"""Builds the accelerator: the modules of the datagram path, compiled by mypyc.

A wheel has it if it can be compiled; otherwise the build says why in one line and makes a wheel of pure
Python, which does the same more slowly. VMRELAY_COMPILE=1 demands it, =0 leaves it out; VMRELAY_OPTIMIZE=0
compiles sooner what then runs slower, for tests of the build. An editable install
never has it: its sources are meant to be changed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setuptools import Extension

COMPILED = [
    "actors/flows/udp_frames.py",
    "actors/lan/forwarding.py",
    "actors/scheduler.py",
    "actors/token_bucket.py",
    "netstack/checksum.py",
    "netstack/chunks.py",
    "netstack/encapsulation.py",
    "netstack/ethernet.py",
    "netstack/ipv4.py",
    "netstack/mac_table.py",
    "netstack/offload.py",
    "netstack/room_events.py",
    "netstack/room_state.py",
    "netstack/room_wire.py",
    "netstack/source_guard.py",
    "netstack/udp.py",
    "netstack/vlan.py",
    "transport/end_of_turn.py",
    "transport/host/receiving.py",
    "transport/quic/aioquic_one_rtt.py",
    "transport/quic/bbr.py",
    "transport/quic/bbr_signals.py",
    "transport/quic/carrier.py",
    "transport/quic/congestion.py",
    "transport/quic/connection.py",
    "transport/quic/datagram_path.py",
    "transport/quic/delivery_rate.py",
    "transport/quic/endpoint.py",
    "transport/quic/frames.py",
    "transport/quic/key_schedule.py",
    "transport/quic/ledger.py",
    "transport/quic/pacing.py",
    "transport/quic/packet_keys.py",
    "transport/quic/path_mtu.py",
    "transport/quic/reordering.py",
    "transport/quic/sent_contents.py",
    "transport/quic/session.py",
    "transport/quic/tls_blocks.py",
    "transport/quic/udp.py",
    "transport/trunk/unix_trunk.py",
    "transport/work_shares.py",
]
"""Hot modules that import nothing but typed code; the tests run on both forms.

What they import, however indirectly, has to be there while they are compiled, hence stands among the build
requirements in pyproject.toml: mypyc cannot compile names whose modules it has not seen.
"""

QUICKLY = [] if os.name == "nt" else ["-Wno-misleading-indentation"]
"""Arguments of the C compiler: of generated code gcc takes three times as long to look for that."""


def obstacle() -> str | None:
    """Name what is missing for compiling, as far as a look tells; None when nothing is."""
    if find_spec("mypyc") is None:
        return "mypy is not installed"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        return f"Python's headers are missing ({headers}/Python.h; on Debian python3-dev has them)"
    return None


def accelerator(folder: str) -> list[Extension]:
    """Give the extension modules; their C code is written to ``folder``."""
    from mypyc.build import mypycify

    options = ["--ignore-missing-imports", "--follow-imports=silent"]
    extensions: list[Extension] = mypycify(
        [*options, *COMPILED],
        opt_level=os.environ.get("VMRELAY_OPTIMIZE", "3"),
        group_name="vmrelay",
        target_dir=folder,
    )
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *QUICKLY]
    return extensions


def build_wheel(folder: str) -> None:
    """Build with the accelerator or, unless it is demanded, without; intermediate files go to ``folder``.

    Without it the build starts afresh: leaving out what failed would result in half an accelerator, or in
    pure Python in a wheel that is bound to one platform.
    """
    from setuptools import setup

    wish = os.environ.get("VMRELAY_COMPILE", "")
    reason = "VMRELAY_COMPILE=0" if wish == "0" else None if wish else obstacle()
    if reason is None:
        try:
            setup(ext_modules=accelerator(folder), options={"build": {"build_base": f"{folder}/compiled"}})
        except (Exception, SystemExit) as error:
            if wish:
                raise
            # One line of it: what was said in full stands above it in the build's output.
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        else:
            return
    said = f"vmrelay: building pure Python, without the accelerator: {reason}"
    print(said, file=sys.stderr)  # noqa: T201
    setup(options={"build": {"build_base": f"{folder}/pure"}})


def main() -> None:
    """Do what the build backend asks for."""
    if "bdist_wheel" in sys.argv:
        # Not in the tree, where the next build would find what this one leaves.
        with tempfile.TemporaryDirectory(prefix="vmrelay-build-") as scratch:
            build_wheel(scratch)
    else:
        from setuptools import setup

        setup()


if __name__ == "__main__":
    main()

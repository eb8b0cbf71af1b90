"""What programs may import of vmrelay; all else may be moved or changed in any version.

    from vmrelay import vm_client      a network card on a relay's LAN, for asyncio
    from vmrelay import RelaySocket    the same as a scapy socket

``python -m vmrelay`` is the command ``vmrelay``. A name is loaded when it is asked for, so that programs
without scapy's sockets need not wait for scapy.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guest.client import ConnectError, SessionEndedError
    from guest.nic_changes import Assigned, Attached, Detached, Draining, Readdressed, Resized
    from guest.relay_socket import RelayIPSocket, RelayPeer, RelaySocket, use_relay
    from guest.vm_client import VirtualNic, vm_client

    __version__: str

__all__ = [
    "Assigned",
    "Attached",
    "ConnectError",
    "Detached",
    "Draining",
    "Readdressed",
    "RelayIPSocket",
    "RelayPeer",
    "RelaySocket",
    "Resized",
    "SessionEndedError",
    "VirtualNic",
    "__version__",
    "use_relay",
    "vm_client",
]

_MODULES = {
    "guest.client": ("ConnectError", "SessionEndedError"),
    "guest.relay_socket": ("RelayIPSocket", "RelayPeer", "RelaySocket", "use_relay"),
    "guest.nic_changes": ("Assigned", "Attached", "Detached", "Draining", "Readdressed", "Resized"),
    "guest.vm_client": ("VirtualNic", "vm_client"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_OWN_PACKAGES = frozenset({"actors", "guest", "netstack", "relay", "transport"})


def __getattr__(name: str) -> Any:
    """Load ``name`` from its module (PEP 562); raises HiddenPackageError."""
    value: Any
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("vmrelay")
    elif name in _MODULE_OF:
        value = getattr(load(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))


class HiddenPackageError(ImportError):
    """A package of another distribution has the name of one of vmrelay's, and is found instead of it."""


def load(module: str) -> Any:
    """Import a module of vmrelay's; raises HiddenPackageError.

    The packages of the wheel have common names: others of these names, ``relay`` on PyPI for one, may be in
    the same environment or in the folder that Python was started in.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OWN_PACKAGES or (found := importlib.util.find_spec(package)) is None:
            raise
        place = found.origin or next(iter(found.submodule_search_locations or ()), "another one")
        raise HiddenPackageError(
            f"vmrelay's package {package!r} is hidden by {place}; "
            "give vmrelay an environment of its own (pipx install FOLDER, that of its sources)"
        ) from error

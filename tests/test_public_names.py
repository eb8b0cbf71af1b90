"""What ``import vmrelay`` gives, at what cost, and what it says where it cannot."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vmrelay
from guest import client, nic_changes, relay_socket, vm_client

ROOT = Path(__file__).parent.parent


def python(*words, path=(), cwd=ROOT):
    """Run Python with this tree behind the folders of ``path``."""
    places = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        (sys.executable, "-P", *words), env=os.environ | {"PYTHONPATH": places}, cwd=cwd, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted({*vmrelay.__all__} - {"__version__"}))
def test_a_public_name_is_what_the_guests_side_has_by_that_name(name):
    [home] = [
        module for module in (client, nic_changes, relay_socket, vm_client) if _is_defined_in(module, name)
    ]
    assert getattr(vmrelay, name) is getattr(home, name)
    assert name in dir(vmrelay)


def _is_defined_in(module, name):
    return getattr(getattr(module, name, None), "__module__", None) == module.__name__


def test_the_version_is_that_of_the_distribution():
    assert vmrelay.__version__ == importlib.metadata.version("vmrelay")
    assert python("-m", "vmrelay", "--version").stdout == f"vmrelay {vmrelay.__version__}\n"


def test_what_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'vmrelay' has no attribute 'choose_kind'"):
        _ = vmrelay.choose_kind
    with pytest.raises(ImportError):
        exec("from vmrelay import nothing")


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import vmrelay", set()),
        ("import vmrelay; vmrelay.__version__", set()),
        ("from vmrelay import vm_client, ConnectError", {"aioquic"}),
        ("from vmrelay import RelaySocket", {"aioquic", "scapy"}),
    ],
)
def test_only_what_is_asked_for_is_loaded(statement, loaded):
    code = f"import sys; {statement}; print(*{{'aioquic', 'scapy', 'pykka'}} & sys.modules.keys())"
    done = python("-c", code)
    assert (done.stderr, {*done.stdout.split()}) == ("", loaded)


def test_what_others_have_by_the_names_of_our_packages_is_told_of(tmp_path):
    for name in ("guest", "relay"):
        (tmp_path / f"{name}.py").write_text("")
    command = python("-m", "vmrelay", "--version", path=(tmp_path,))
    assert command.returncode == 1
    assert command.stderr == (
        f"vmrelay: error: vmrelay's package 'relay' is hidden by {tmp_path}/relay.py; "
        "give vmrelay an environment of its own (pipx install FOLDER, that of its sources)\n"
    )
    program = python("-c", "from vmrelay import vm_client", path=(tmp_path,))
    said = f"HiddenPackageError: vmrelay's package 'guest' is hidden by {tmp_path}/guest.py"
    assert said in program.stderr


def test_a_library_that_is_missing_is_named_as_it_is(tmp_path):
    (tmp_path / "aioquic.py").write_text("raise ModuleNotFoundError('No module aioquic', name='aioquic')")
    done = python("-c", "from vmrelay import vm_client", path=(tmp_path,))
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module aioquic"

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from relay.settings import OPTIONS, Settings, SettingsError, resolve
from relay.spelling import OTHER_VARIABLES, closest, perhaps

ROOT = Path(__file__).parents[2]
VARIABLES = [option.own_variable or f"VMRELAY_{name.upper()}" for name, option in OPTIONS.items()]


def complaint(**environment):
    with pytest.raises(SettingsError) as refused:
        resolve({}, environment)
    return str(refused.value)


def test_the_nearest_name_is_suggested_whatever_its_case():
    assert perhaps("prot", ["port", "bind"]) == ", perhaps 'port'"
    assert perhaps("DENY_CIDR", ["allow-cidr", "deny-cidr"]) == ", perhaps 'deny-cidr'"
    assert perhaps("qwxyz", ["port", "bind"]) == ""
    assert closest("--bind", []) is None


def test_what_turns_a_switch_off_is_suggested_with_its_value():
    assert perhaps("no_peer_list", ["peer-list", "port"], ["peer-list"]) == ", perhaps 'peer-list = false'"
    assert perhaps("no-port", ["peer-list", "port"], ["peer-list"]) == ", perhaps 'port'"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VMRELAY_DENY_CDIR", "VMRELAY_DENY_CIDR"),
        ("VMRELAY_DENY_CIDRS", "VMRELAY_DENY_CIDR"),
        ("VMRELAY_DENYCIDR", "VMRELAY_DENY_CIDR"),
        ("vmrelay_deny_cidr", "VMRELAY_DENY_CIDR"),
        ("VMRELAY-DENY-CIDR", "VMRELAY_DENY_CIDR"),
        ("VMRELAY__PORT", "VMRELAY_PORT"),
        ("VMRELAYPORT", "VMRELAY_PORT"),
        ("VMRELAY_CERT_PEM", "RELAY_CERT_PEM"),
        ("VMRELAY_CERT_POLL_INTERVAL", "CERT_POLL_INTERVAL"),
        ("VMRELAY_CONFG", "VMRELAY_CONFIG"),
        ("VMRELY_DENY_CIDR", "VMRELAY_DENY_CIDR"),
        ("VM_RELAY_DENY_CIDR", "VMRELAY_DENY_CIDR"),
        ("RELAY_DENY_CIDR", "VMRELAY_DENY_CIDR"),
        ("RELAY_CERT", "RELAY_CERT_PEM"),
        ("RELAY_KEY_PME", "RELAY_KEY_PEM"),
        ("CERT_POLL_INTERVALL", "CERT_POLL_INTERVAL"),
        # Who follows the hint must not get the opposite.
        ("VMRELAY_NO_INTERNET", "VMRELAY_INTERNET=false"),
        ("VMRELAY_NO_PEERLIST", "VMRELAY_PEER_LIST=false"),
        ("vmrelay-no-source-guard", "VMRELAY_SOURCE_GUARD=false"),
        ("VMRELAY_NO_PORT", "VMRELAY_PORT"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_was_meant(name, meant):
    assert complaint(**{name: "1"}) == (
        f"unknown environment variable {name}, perhaps {meant} (see vmrelay --help)"
    )


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_is_recognised_with_a_letter_too_many_too_few_or_two_swapped(variable):
    middle = variable.rindex("_") + 1
    misspelt = {
        variable + "S",
        variable[:middle] + variable[middle + 1 :],
        variable[:middle] + variable[middle + 1] + variable[middle] + variable[middle + 2 :],
    } - set(VARIABLES)
    for name in misspelt:
        assert complaint(**{name: "1"}).startswith(f"unknown environment variable {name}, perhaps ")


def test_what_is_like_nothing_is_refused_all_the_same():
    assert complaint(VMRELAY_QWXYZ="1") == "unknown environment variable VMRELAY_QWXYZ (see vmrelay --help)"


def test_many_are_one_line_of_bounded_length():
    said = complaint(**{f"VMRELAY_QWXYZ_{number:0100}": "1" for number in range(1000)})
    assert said.endswith("; and 995 more (see vmrelay --help)")
    assert len(said) < 600


@pytest.mark.parametrize(
    "environment",
    [
        {"VMRELAY_DENY_CDIR": " "},
        {"RELAYHOST": "mail", "RELAY_HOST": "mail", "MAIL_RELAY_PORT": "25", "SERVER_CERT_PEM": "x"},
        {"POLL_INTERVAL": "5", "PORT": "80", "DENY_CIDR": "::/0", "LOG_LEVEL": "debug"},
        dict.fromkeys(OTHER_VARIABLES[1:], "1"),
    ],
    ids=["set to nothing", "of other programs", "without a prefix", "of the project's other parts"],
)
def test_other_variables_are_left_alone(environment):
    assert resolve({}, environment) == Settings()


def test_a_service_of_kubernetes_named_as_the_relay_is_no_setting():
    address = "tcp://10.0.0.1:4433"
    links = {
        "VMRELAY_SERVICE_HOST": "10.0.0.1",
        "VMRELAY_SERVICE_PORT": "4433",
        "VMRELAY_SERVICE_PORT_QUIC": "4433",
        "VMRELAY_PORT": address,
        "VMRELAY_PORT_4433_UDP": "udp://10.0.0.1:4433",
        "VMRELAY_PORT_4433_UDP_PROTO": "udp",
        "VMRELAY_PORT_4433_UDP_ADDR": "10.0.0.1",
        "VMRELAY_UDP_SERVICE_HOST": "10.0.0.1",
        "VMRELAY_UDP_PORT": address,
        "RELAY_PORT": address,
    }
    assert resolve({}, links) == Settings()
    assert "VMRELAY_PORT: must be a whole number" in complaint(VMRELAY_PORT="10.0.0.1:4433")


def test_every_variable_that_the_tree_reads_is_known():
    """One that the build or the tests have must not stop a relay that is started beside them."""
    files = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.split()
    if not files:
        pytest.skip("not a clone of the repository")
    parts = ("Makefile", "setup.py", "scripts/", "docker/", "bench/", "examples/", "tests/system/", ".ci/")
    found = set()
    for name in files:
        path = ROOT / name
        if name.startswith(parts) and path.is_file():
            text = path.read_bytes().decode(errors="ignore")
            found |= set(re.findall(r"(?<![A-Z_])(?:VMRELAY_[A-Z0-9_]+[A-Z0-9]|RELAYBENCH)(?![A-Z_])", text))
    assert {"VMRELAY_COMPILE", "VMRELAY_ACCELERATED", "RELAYBENCH"} <= found
    assert found - set(VARIABLES) - set(OTHER_VARIABLES) == set()

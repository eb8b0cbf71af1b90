"""The doctor's findings on this machine, and on ones where something is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from namespaces import Namespace, connect
from processes import Relay, free_port, run

from netstack.name_servers import NameServer
from relay import doctor
from relay.settings import Settings
from transport.certificates import EphemeralCertificateStore


def vmrelay(*words, status=0, **environment):
    done = run(
        *(sys.executable, "-m", "relay.main", "doctor", *words), check=False, env=os.environ | environment
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def findings(look, **settings):
    return [(found.mark, found.said, found.fix) for found in look(Settings(**settings))]


def test_it_looks_at_all_that_a_relay_needs_and_says_so_in_lines():
    port = free_port()
    told = vmrelay("--port", port, "--bind", "127.0.0.1")
    for what in (
        "settings",
        "port",
        "firewall",
        "certificate",
        "clock",
        "ping",
        "resolvers",
        "buffers",
        "IPv6",
        "MTU",
    ):
        assert f" {what}: " in told
    assert f"UDP {port} is free" in told
    found = json.loads(vmrelay("--port", port, "--json"))
    assert {entry["mark"] for entry in found} <= {"ok", "warning"}
    assert all(entry["fix"] for entry in found if entry["mark"] != "ok")


def test_settings_that_are_wrong_are_a_problem():
    assert "problem  settings: VMRELAY_MAX_PEERS" in vmrelay(status=1, VMRELAY_MAX_PEERS="many")


def test_a_port_that_somebody_else_has_is_a_problem_and_a_relays_is_not():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        [(mark, said, fix)] = findings(doctor._port, port=taken, bind="127.0.0.1", web="off")
    assert (mark, f"{taken} of 127.0.0.1 cannot be had: Address already in use" in said) == ("problem", True)
    assert f"sport = :{taken}" in fix


def test_a_port_that_a_relay_has_which_does_not_answer_leads_to_the_firewall(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute, socket.socket(socket.AF_UNIX) as admin:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        admin.bind(str(tmp_path / f"{port}.sock"))
        admin.listen()
        [(mark, said, fix)] = findings(doctor._port, port=port, bind="127.0.0.1", web="off")
    assert (mark, "a relay of this user that does not answer" in said) == ("problem", True)
    assert "firewall" in fix
    relay = Relay()
    try:
        found = findings(doctor._port, port=relay.port, bind="127.0.0.1")
    finally:
        relay.stop()
    assert [(mark, "a QUIC server answers there" in said) for mark, said, _ in found] == [("ok", True)] * 2


def test_an_address_of_another_machine_is_a_problem():
    [(mark, _, fix), *_] = findings(doctor._port, bind="192.0.2.77")
    assert (mark, "--bind names an address" in fix) == ("problem", True)


def test_a_name_that_no_host_can_have_is_a_problem():
    [(mark, said, fix)] = findings(doctor._port, bind="a..b", web="off")
    assert (mark, said) == ("problem", "UDP 4433 of a..b cannot be had: not a host name")
    assert fix


def test_a_certificate_is_described_and_half_a_one_is_a_problem(tmp_path):
    run(sys.executable, "-m", "relay.main", "certs", "generate", tmp_path)
    chain, key = tmp_path / "relay-cert.pem", tmp_path / "relay-key.pem"
    [(mark, said, _), *_] = findings(doctor._certificate, cert_pem=chain, key_pem=key)
    assert (mark, "can be pinned by its hash" in said) == ("ok", True)
    [(mark, said, _)] = findings(doctor._certificate, cert_pem=chain, key_pem=chain)
    assert (mark, str(chain) in said) == ("problem", True)


def test_a_name_server_that_is_silent_is_a_warning():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        server = NameServer("127.0.0.1", port)
        [(mark, said, _)] = findings(doctor._resolvers, upstream_dns=(server,))
    assert (mark, said) == ("warning", f"127.0.0.1 port {port} does not answer")


def test_few_descriptors_are_a_warning(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    [(mark, said, fix), *_] = findings(doctor._files)
    assert (mark, said) == ("warning", "256 descriptors at most, and each flow has one")
    assert "LimitNOFILE" in fix


@pytest.mark.parametrize(
    ("rules", "mark"),
    [
        ("", "ok"),
        ("policy drop;", "problem"),
        ("policy drop; udp dport 4433 accept;", "ok"),
        ("policy drop; udp dport { 53, 4433 } accept;", "ok"),
        ("policy drop; udp dport 4000-5000 accept;", "ok"),
        ("policy drop; udp dport 5000-6000 accept;", "problem"),
        ("policy accept; udp dport 53 drop;", "ok"),
        ("policy drop; udp dport >= 1024 accept;", "ok"),
        ('policy drop; iifname "eth0" accept;', "warning"),
    ],
)
def test_a_chain_that_drops_the_port_is_a_problem(rules, mark):
    assert shutil.which("nft"), "nftables is among what the tests need"
    code = (
        "from relay import doctor; from relay.settings import Settings; "
        "print(next(doctor._firewall(Settings())).mark)"
    )
    table = (
        f"table inet filter {{ chain input {{ type filter hook input priority 0; {rules} }}; }}"
        if rules
        else ""
    )
    script = f"echo '{table}' | nft -f - && exec {sys.executable} -c '{code}'"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == mark


@pytest.mark.parametrize(
    ("chain", "said", "fix"),
    [
        (
            'hook input priority 0; policy drop; iifname "eth0" accept;',
            "cannot tell: inet",
            "vmrelay netcheck URL",
        ),
        (
            "nat hook prerouting priority -100; udp dport 4433 redirect to :5544;",
            "inet t c sends UDP port 4433 to port 5544: a relay here does not see it",
            "nft -a list chain inet t c shows the rule",
        ),
    ],
)
def test_what_is_not_sure_is_said_with_what_to_do(chain, said, fix):
    kind = "" if chain.startswith("nat") else "filter "
    rules = f"table inet t {{ chain c {{ type {kind}{chain} }}; }}"
    code = (
        "import json; from relay import doctor; from relay.settings import Settings; "
        "print(json.dumps(list(doctor._firewall(Settings()))))"
    )
    script = f"echo '{rules}' | nft -f - && exec {sys.executable} -c '{code}'"
    [(mark, what, told, todo)] = json.loads(run("unshare", "--net", "sh", "-c", script).stdout)
    assert (mark, what) == ("warning", "firewall")
    assert told.startswith(said)
    assert fix in todo


def test_without_rights_to_read_the_rules_it_says_so(monkeypatch, tmp_path):
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\necho 'Operation not permitted' >&2; exit 1\n")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [(mark, said, _)] = findings(doctor._firewall)
    assert (mark, said) == ("warning", "its rules cannot be read")


def test_no_look_ends_with_a_traceback(monkeypatch):
    def broken(_):
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr(doctor, "_buffers", broken)
    found = list(doctor.examine({"port": "0"}))
    assert any(finding.said == "cannot be told: Permission denied" for finding in found)


def test_an_interface_that_quics_packets_do_not_fit_is_told_with_what_to_do():
    with contextlib.ExitStack() as stack:
        one, other = Namespace("doctor"), Namespace("beyond")
        stack.callback(one.delete)
        stack.callback(other.delete)
        connect(one, "10.99.0.1/24", other, "10.99.0.2/24")
        name = one.device_of("10.99.0.1")
        for mtu, mark in ((1500, "ok"), (1280, "ok"), (1279, "warning"), (576, "warning")):
            one.run("ip", "link", "set", name, "mtu", mtu)
            told = json.loads(
                one.run(sys.executable, "-m", "relay.main", "doctor", "--json", check=False).stdout
            )
            (found,) = [each for each in told if each["what"] == "MTU" and name in each["said"]]
            assert found["mark"] == mark, mtu
            assert str(mtu) in found["said"]
            assert bool(found["fix"]) == (mark != "ok")


def test_the_certificate_that_an_earlier_relay_has_kept_is_told(tmp_path):
    made = EphemeralCertificateStore(["localhost"], datetime.now(UTC))
    pem = b"".join(each.chain_pem() + each.private_key_pem() for each in (made.current, made.next))
    [(_, said, _)] = findings(doctor._certificate, state=str(tmp_path))
    assert "SHA-256" not in said
    (tmp_path / "certificates.pem").write_bytes(pem)
    [(mark, said, _)] = findings(doctor._certificate, state=str(tmp_path))
    assert mark == "ok"
    assert f"SHA-256 {made.current.sha256}" in said
    assert "0 days old" in said

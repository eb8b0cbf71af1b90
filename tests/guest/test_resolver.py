"""``vmrelay attach --configure`` sets the name server of its namespace, and undoes it."""

from __future__ import annotations

import signal
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from namespaces import Namespace
from processes import Program

from guest import resolver
from guest.resolver import Resolver

ATTACHED = r"attached to \S+ as"


def attach(relay, namespace, spelled="{}"):
    where = spelled.format(namespace.name)
    return Program(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", "t-dns0", "--netns", where),
        *("--configure", "--cert-hash", relay.hash, relay.url),
    )


@pytest.fixture
def namespace():
    namespace = Namespace("dns")
    yield namespace
    namespace.delete()


@pytest.fixture
def file(namespace):
    file = Path("/etc/netns") / namespace.name / "resolv.conf"
    yield file
    file.unlink(missing_ok=True)
    if file.parent.is_dir():
        file.parent.rmdir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_names_of_the_lan_resolve_until_a_signal_ends_it(live_relay, namespace, file, number):
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        assert namespace.run("dig", "+search", "+short", "gateway").stdout == "10.0.2.2\n"
        program.signal(number)
        assert program.wait() == 0
        assert not file.parent.exists()
    finally:
        program.stop()


@pytest.mark.parametrize("folder", ["/run/netns", "/var/run/netns"])
def test_a_namespace_may_be_named_by_its_path(live_relay, namespace, file, folder):
    program = attach(live_relay, namespace, f"{folder}/{{}}")
    try:
        program.wait_for(ATTACHED)
        assert "nameserver 10.0.2.2\n" in file.read_text()
    finally:
        program.stop()
    assert not file.exists()


def test_what_a_killed_one_left_is_taken_over(live_relay, namespace, file):
    killed = attach(live_relay, namespace)
    killed.wait_for(ATTACHED)
    killed.signal(signal.SIGKILL)
    killed.wait()
    killed.stop()
    left = file.read_text()
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        assert file.read_text() != left
    finally:
        program.stop()
    assert not file.exists()


@pytest.mark.parametrize("link", [False, True], ids=["file", "symbolic-link"])
def test_a_file_of_somebody_else_is_left_alone(live_relay, namespace, file, tmp_path, link):
    file.parent.mkdir(parents=True)
    other = tmp_path / "other" if link else file
    other.write_text("nameserver 192.0.2.1\n")
    if link:
        file.symlink_to(other)
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        assert program.output.count(f"{file} is there already and left alone") == 1
    finally:
        program.stop()
    assert file.is_symlink() == link
    assert other.read_text() == "nameserver 192.0.2.1\n"


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """A systemd-resolved that runs; gives the file of what ``resolvectl`` was asked, a line each."""
    asked = tmp_path / "asked"
    program = tmp_path / "resolvectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ ! -e {tmp_path}/broken ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(resolver, "RESOLVED", tmp_path)
    return asked


def test_systemd_resolved_is_told_and_told_back(resolved):
    said = []
    of_tap = Resolver("tap0", None, said.append)
    of_tap.set(IPv4Address("10.0.2.2"))
    of_tap.close()
    assert resolved.read_text().splitlines() == [
        "dns tap0 10.0.2.2",
        "domain tap0 vm.internal",
        "revert tap0",
    ]
    assert said == []


def test_short_names_are_looked_for_in_the_rooms_domain(resolved):
    of_tap = Resolver("tap0", None, print)
    of_tap.set(IPv4Address("172.20.0.2"), "lab.example")
    of_tap.close()
    assert "domain tap0 lab.example" in resolved.read_text().splitlines()


def test_a_refusal_of_systemd_resolved_is_one_line(resolved):
    (resolved.parent / "broken").touch()
    said = []
    of_tap = Resolver("tap0", None, said.append)
    of_tap.set(IPv4Address("10.0.2.2"))
    of_tap.close()
    (line,) = said
    assert line.startswith("the name server 10.0.2.2 is not set: ")


@pytest.mark.parametrize("namespace", [None, "/proc/self/ns/net"])
def test_a_machine_without_systemd_resolved_is_left_alone(tmp_path, monkeypatch, namespace):
    monkeypatch.setattr(resolver, "RESOLVED", tmp_path / "none")
    said = []
    of_tap = Resolver("tap0", namespace, said.append)
    of_tap.set(IPv4Address("10.0.2.2"))
    of_tap.close()
    assert said == ["the name server 10.0.2.2 is not set: /etc/resolv.conf is left alone"]


def test_a_file_that_was_changed_since_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(resolver, "FOLDERS", tmp_path)
    of_tap = Resolver("tap0", "vm", print)
    of_tap.set(IPv4Address("10.0.2.2"))
    file = tmp_path / "vm/resolv.conf"
    file.write_text(file.read_text() + "options ndots:2\n")
    of_tap.close()
    assert file.exists()

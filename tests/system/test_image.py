"""The container image, built from docker/ and run for real, with everything taken away that can be."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from browsers import chromium, site
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from images import LIMITS, Podman
from playwright.sync_api import Error
from processes import PATIENCE, ROOT, run
from setup_parts import compiled_modules

from relay.tokens import make_key, public_half, sign

IMAGE = "localhost/vmrelay"
IMAGE_WITHOUT_COMPILER = "localhost/vmrelay-built-without-compiler"


@pytest.fixture(scope="module")
def podman():
    # Unix sockets in it have a length limit that pytest's own folders exceed.
    folder = Path("/var/tmp") / f"vmrelay-podman-{time.monotonic_ns()}"
    folder.mkdir()
    podman = Podman(folder)
    podman.build(IMAGE)
    podman.build(IMAGE_WITHOUT_COMPILER, build_base="plain")
    yield podman
    podman("system", "reset", "--force", check=False)
    shutil.rmtree(folder, ignore_errors=True)


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Container:
    """A running container of the image whose UDP port is published on loopback."""

    def __init__(self, podman, name, port):
        self._podman = podman
        self.name = name
        self.url = f"https://127.0.0.1:{port}/"
        self.hash = self.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})")[1]

    @property
    def pid(self):
        return self.inspect("{{.State.Pid}}")

    @property
    def status(self):
        """The kernel's account of the relay's process."""
        return Path(f"/proc/{self.pid}/status").read_text()

    def inspect(self, what):
        return self._podman("inspect", "--format", what, self.name).stdout.strip()

    def execute(self, *command, check=True):
        return self._podman("exec", self.name, *command, check=check)

    def logs(self):
        done = self._podman("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.logs()):
                return match
        raise AssertionError(f"the container never said {pattern!r}:\n{self.logs()}")


@pytest.fixture
def start(podman):
    """Start a container with everything taken away that can be; ``podman run`` options may be given."""
    names = []

    def start_container(*options, image=IMAGE, words=()):
        port = free_udp_port()
        names.append(f"relay-{port}")
        podman(
            *("run", "--detach", "--name", names[-1], *LIMITS, "--publish", f"127.0.0.1:{port}:4433/udp"),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt", "no-new-privileges"),
            *("--sysctl", "net.ipv4.ping_group_range=0 65535", *options, image, *words),
        )
        return Container(podman, names[-1], port)

    yield start_container
    for name in names:
        podman("rm", "--force", "--time", "0", name)


@pytest.fixture
def container(start):
    return start()


@pytest.mark.parametrize(
    ("image", "form", "suffix"),
    [(IMAGE, "compiled accelerator", ".so"), (IMAGE_WITHOUT_COMPILER, "pure Python", ".py")],
    ids=["built with a compiler", "built without one"],
)
def test_the_image_has_the_accelerator_if_it_can_be_compiled(start, load, image, form, suffix):
    container = start(image=image)
    assert container.wait_for(r"datagram path: ([\w ]+)")[1] == form
    code = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    python = ("/opt/vmrelay/bin/python", "-c", code)
    files = container.execute(*python, *compiled_modules()).stdout.split()
    assert {Path(file).suffix for file in files} == {suffix}
    assert load(container, "ping", "--dst", "10.0.2.2", "--count", 3)["intact"] == 3


def test_what_is_in_the_image_is_listed_with_its_licences(podman, container):
    listed = json.loads(container.execute("cat", "/opt/vmrelay/share/sbom.cdx.json").stdout)["components"]
    code = "from importlib.metadata import distributions\nfor d in distributions(): print(d.version)"
    versions = container.execute("/opt/vmrelay/bin/python", "-c", code).stdout.split()
    assert sorted(component["version"] for component in listed) == sorted(versions)
    assert {"vmrelay", "scapy", "pykka", "aioquic"} <= {component["name"] for component in listed}
    label = podman("inspect", "--format", '{{index .Labels "org.opencontainers.image.licenses"}}', IMAGE)
    said = {part for component in listed for licence in licences_of(component) for part in parts_of(licence)}
    assert parts_of(label.stdout) >= said >= {"GPL-2.0-only"}


def parts_of(expression):
    """Give the licences that all hold, each of which may be a choice."""
    return {part.strip("()\n") for part in expression.split(" AND ")}


def licences_of(component):
    return [
        said["license"]["id"] if "license" in said else said["expression"] for said in component["licenses"]
    ]


def test_the_manual_page_is_where_man_looks(container):
    assert container.execute("cat", "/usr/share/man/man1/vmrelay.1").stdout.startswith(".TH VMRELAY 1 ")


def test_nothing_runs_as_root(container):
    status = container.status
    assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)


def test_nothing_can_be_written_but_tmp(container):
    assert container.execute("touch", "/opt/vmrelay/here", check=False).returncode != 0
    assert container.execute("touch", "/tmp/here").returncode == 0


def test_clients_connect_through_the_published_port(container, load):
    figures = load(container, "ping", "--dst", "10.0.2.2", "--count", 10)
    assert (figures["replies"], figures["intact"]) == (10, 10)


def test_an_operator_asks_it_from_inside(container, load):
    load(container, "ping", "--dst", "10.0.2.2", "--count", 1)
    told = json.loads(container.execute("vmrelay", "status", "--json").stdout)
    assert told["rooms"][0]["name"] == "default"
    assert container.execute("vmrelay", "doctor", "--json", check=False).stdout.startswith("[")


def test_guests_ping_the_outside_without_a_privilege(start, load):
    container = start("--env", "VMRELAY_ALLOW_CIDR=127.0.0.0/8")
    figures = load(container, "ping", "--dst", "127.0.0.1", "--count", 10)
    assert (figures["replies"], figures["intact"]) == (10, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ()),
        ((), ("--port", "5000")),
        ((), ("--port", "0", "--web", "off")),
        (("--env", "VMRELAY_PORT=5000"), ()),
        (("--env", "VMRELAY_PORT=5000"), ("--port", "6000", "--bind", "127.0.0.1")),
        (("--entrypoint", "sh"), ("-c", "vmrelay serve --port=5000; true")),
    ],
    ids=["default", "flag", "free port", "variable", "flag and variable", "behind a shell"],
)
def test_health_check_finds_the_port(podman, start, options, words):
    container = start(*options, words=words)
    assert podman("healthcheck", "run", container.name).returncode == 0


def test_health_check_fails_when_the_relay_hangs(podman, container):
    os.kill(int(container.pid), signal.SIGSTOP)
    try:
        assert podman("healthcheck", "run", container.name, check=False).returncode != 0
    finally:
        os.kill(int(container.pid), signal.SIGCONT)


def test_sigterm_ends_it_at_once(podman, container):
    # podman would kill it after these seconds, with status 137.
    podman("stop", "--time", "8", container.name)
    assert container.inspect("{{.State.ExitCode}}") == "0"


def test_bad_options_end_it_with_one_line(podman):
    done = podman("run", "--rm", *LIMITS, IMAGE, "--port", "99999", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_volume_keeps_the_hash_and_without_one_nothing_is_complained_of(start, podman):
    volume = f"state-{time.monotonic_ns()}"
    hashes = []
    for _ in range(2):
        container = start("--volume", f"{volume}:/var/lib/vmrelay")
        hashes.append(container.hash)
        podman("rm", "--force", container.name)
    assert hashes[0] == hashes[1]
    podman("volume", "rm", volume)
    without = start()
    assert without.hash != hashes[0]
    assert without.wait_for(r"forgotten when this relay ends: /var/lib/vmrelay/lock: Read-only file system")
    assert "WARNING" not in without.logs()


def test_production_certificates_come_from_a_volume(start, load, tmp_path):
    certificates = tmp_path / "certs"
    run(sys.executable, "-m", "relay.main", "certs", "generate", certificates, cwd=ROOT)
    for path in (tmp_path, certificates):
        path.chmod(0o755)
    for file in certificates.iterdir():
        file.chmod(0o644)
    container = start(
        *("--volume", f"{certificates}:/certs:ro"),
        *("--env", "RELAY_CERT_PEM=/certs/relay-cert.pem", "--env", "RELAY_KEY_PEM=/certs/relay-key.pem"),
    )
    generated = x509.load_pem_x509_certificate((certificates / "relay-cert.pem").read_bytes())
    assert container.hash == generated.fingerprint(SHA256()).hex()
    assert load(container, "ping", "--dst", "10.0.2.2", "--count", 3)["intact"] == 3


def test_compose_file_starts_a_relay(podman, load, tmp_path):
    port = free_udp_port()
    # As it stands but for the ports, which another relay of this machine may have.
    compose = (ROOT / "docker/docker-compose.yml").read_text()
    for line, ours in (
        ('"4433:4433/udp"', f'"127.0.0.1:{port}:4433/udp"'),
        ('"4433:4433/tcp"', f'"127.0.0.1:{port}:4433/tcp"'),
        ("context: ..", f"context: {ROOT}"),
    ):
        assert line in compose
        compose = compose.replace(line, ours)
    (tmp_path / "docker-compose.yml").write_text(compose)
    # podman-compose wants a program, ours is podman with options.
    wrapper = tmp_path / "podman"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, podman.command))} "$@"\n')
    wrapper.chmod(0o755)
    project = (
        *(sys.executable, "-m", "podman_compose", "--podman-path", wrapper),
        *("--podman-run-args", shlex.join(LIMITS), "-p", "vmrelay", "-f", tmp_path / "docker-compose.yml"),
    )
    run(*project, "up", "--detach", "--no-build", patience=PATIENCE)
    try:
        container = Container(podman, "vmrelay_relay_1", port)
        assert load(container, "ping", "--dst", "10.0.2.2", "--count", 3)["intact"] == 3
        assert re.search(r"^CapEff:\s+0+$", container.status, re.MULTILINE)
        assert container.inspect("{{.HostConfig.ReadonlyRootfs}}") == "true"
    finally:
        run(*project, "down", "--timeout", "1", patience=PATIENCE)


JOIN = """async ([url, hash]) => {
  const value = Uint8Array.from(hash.match(/../g), (byte) => parseInt(byte, 16));
  const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
  await session.ready;
  const register = new TextEncoder().encode('\\0{"type":"Register","mac":[82,84,0,1,2,3]}');
  await session.datagrams.writable.getWriter().write(register);
  const reader = session.datagrams.readable.getReader();
  for (;;) {
    const text = new TextDecoder().decode((await reader.read()).value.subarray(1));
    if (text.includes("Assigned")) return JSON.parse(text);
  }
}"""


def test_chromium_joins_a_room_by_its_url_with_a_token(start, tmp_path):
    key, folder = make_key("EdDSA"), tmp_path / "vmrelay"
    folder.mkdir()
    (folder / "keys.json").write_text(json.dumps({"keys": [public_half(key)]}))
    (folder / "relay.toml").write_text('[room.lab]\nnetwork = "172.20.0.0/16"\nauth = "required"\n')
    container = start(
        *("--volume", f"{folder}:/etc/vmrelay:ro"),
        words=("--config", "/etc/vmrelay/relay.toml", "--auth-keys", "/etc/vmrelay/keys.json"),
    )
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    token = sign(key, {"exp": time.time() + 600, "room": "lab"})
    with chromium(tmp_path) as browser, site(tmp_path) as origin:
        page = browser.new_page()
        page.goto(origin)
        assigned = page.evaluate(JOIN, [f"{container.url}room/lab?token={token}", container.hash])
        assert (assigned["room"], assigned["ip"][:2]) == ("lab", [172, 20])
        assert page.evaluate(JOIN, [container.url, container.hash])["ip"][:3] == [10, 0, 2]
        for name in ("lab", f"lab?token={sign(make_key('EdDSA'), {'exp': time.time() + 600})}"):
            with pytest.raises(Error, match="WebTransport"):
                page.evaluate(JOIN, [f"{container.url}room/{name}", container.hash])
    assert "eyJ" not in container.logs()

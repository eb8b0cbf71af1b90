"""examples/v86/serve.py with a page of the test's own: the page is told where the relay is."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from processes import ROOT, Program, free_port, run

PAGE = b"<!doctype html><title>a page</title>"


class Demo:
    """serve.py with options for its relay."""

    def __init__(self, folder, *options):
        self.port = free_port()
        self.program = Program(
            *(sys.executable, ROOT / "examples/v86/serve.py", folder, *options),
            environment={"DEMO_PORT": str(self.port), "PYTHONPATH": str(ROOT)},
        )
        self.hash = self.program.wait_for(r"Certificate SHA-256 Hash: (\S+)$")[1]
        self.program.wait_for(f"Open http://127.0.0.1:{self.port}/")
        self.relay_port = int(self.program.wait_for(r"^Listening on https://\S+:(\d+)$")[1])

    def get(self, path):
        """Give (status, where to, content)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.getheader("Location"), content

    def told(self, path="/"):
        """What the page is told: its parameters."""
        status, location, _ = self.get(path)
        assert status == 302
        assert self.get(location)[::2] == (200, PAGE)
        return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


@pytest.fixture
def demo(tmp_path):
    (tmp_path / "index.html").write_bytes(PAGE)
    running = []

    def start(*options):
        running.append(Demo(tmp_path, *options))
        return running[-1]

    yield start
    for one in running:
        one.program.stop()
        assert "Traceback" not in one.program.output


def test_the_page_is_told_the_port_that_the_relay_has(demo):
    one = demo("--port", "0")
    assert one.told() == {"relay": f"http://127.0.0.1:{one.relay_port}/"}


@pytest.mark.parametrize(
    ("options", "host"),
    [(("--bind", "0.0.0.0"), r"[\w.]+"), (("--web", "off"), r"127\.0\.0\.1")],
    ids=["every-address", "no-web"],
)
def test_the_page_is_told_the_certificate_where_it_cannot_ask_by_http(demo, options, host):
    one = demo("--port", "0", *options)
    told = one.told()
    assert re.fullmatch(rf"https://{host}:{one.relay_port}/", told["relay"])
    assert told["hash"] == one.hash


def test_the_page_is_told_about_a_relay_on_ipv6(demo):
    one = demo("--port", "0", "--bind", "::1")
    assert one.told() == {"relay": f"http://[::1]:{one.relay_port}/"}


@pytest.mark.parametrize("port", ["80x", "0", "65536", "-1"])
def test_a_port_that_is_none_is_one_line(tmp_path, port):
    done = run(sys.executable, ROOT / "examples/v86/serve.py", tmp_path, check=False, env={"DEMO_PORT": port})
    assert done.returncode == 2
    assert done.stderr == f"DEMO_PORT must be a whole number from 1 to 65535, not '{port}'\n"


def test_a_relay_that_the_address_names_is_kept(demo):
    one = demo("--port", "0")
    assert one.get("/?relay=https://relay.example.org:4433/")[::2] == (200, PAGE)
    assert one.told("/?via=v86") == {"relay": f"http://127.0.0.1:{one.relay_port}/", "via": "v86"}


def test_the_relay_ends_with_the_demo(demo):
    one = demo("--port", "0")
    one.program.signal(signal.SIGTERM)
    assert one.program.wait() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", one.relay_port))

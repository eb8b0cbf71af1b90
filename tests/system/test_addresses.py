"""A relay on a machine of several addresses is reached at each that it listens on, and answers from there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from types import SimpleNamespace

import pytest
from cryptography import x509
from guests import Guest
from namespaces import Namespace, connect
from processes import PATIENCE, ROOT, Relay, run
from scapy.layers.l2 import Ether

GUEST = (sys.executable, ROOT / "tests/system/aioquic_guest.py")
STEPS = ["status 200", "Assigned", "reset", "HeartbeatAck", "closed"]
WITHOUT_IPV6 = (sys.executable, ROOT / "tests/system/without_ipv6.py")

IPV4 = ["10.99.1.1", "10.99.1.2", "10.99.1.3", "10.99.2.1", "10.99.2.2"]
"""The relay's, on two cables."""
IPV6 = ["fd99:1::1", "fd99:1::2", "fd99:2::1", "fd99:2::2"]


@pytest.fixture(scope="module")
def machines():
    """The relay's machine and a client's, two cables between them, several addresses at the relay's ends."""
    with contextlib.ExitStack() as stack:
        relays, clients = (Namespace(role) for role in ("relay", "client"))
        stack.callback(relays.delete)
        stack.callback(clients.delete)
        for cable in (1, 2):
            connect(relays, f"10.99.{cable}.1/24", clients, f"10.99.{cable}.9/24")
            device = relays.device_of(f"10.99.{cable}.1")
            for address in [*IPV4, *IPV6]:
                if address.startswith((f"10.99.{cable}.", f"fd99:{cable}:")) and not address.endswith(".1"):
                    add_address(relays, address, device)
            add_address(clients, f"fd99:{cable}::9", clients.device_of(f"10.99.{cable}.9"))
        yield relays, clients


def add_address(namespace, address, device):
    if ":" in address:
        namespace.run("ip", "address", "add", f"{address}/64", "dev", device, "nodad")
    else:
        namespace.run("ip", "address", "add", f"{address}/24", "dev", device)


@contextlib.contextmanager
def relay_on(namespace, *options, bind, before=()):
    relay = Relay(*options, bind=bind, before=(*namespace.prefix, *before))
    try:
        yield relay
        assert "Traceback" not in relay.output
    finally:
        relay.stop()


def in_url(address):
    return f"[{address}]" if ":" in address else address


def is_a_guest(relay, clients, address):
    """Have a client of the other machine connect to this address of the relay's."""
    done = run(*clients.prefix, *GUEST, relay.url_at(in_url(address)), relay.hash, check=False)
    assert done.stdout.splitlines() == STEPS, f"{address}: {done.stdout}{done.stderr}"


def page_at(namespace, host, port):
    """First line of the answer on the TCP port, and the certificate that is shown there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with namespace.socket(socket.SOCK_STREAM, family=family) as plain:
        plain.connect((host, port))
        with context.wrap_socket(plain) as secure:
            secure.sendall(f"GET /cert-hash HTTP/1.1\r\nHost: {in_url(host)}\r\n\r\n".encode())
            return secure.recv(100).split(b"\r\n")[0], secure.getpeercert(binary_form=True)


@pytest.mark.parametrize("bind", [None, "0.0.0.0"])
def test_clients_reach_a_relay_at_each_of_its_addresses(machines, bind):
    relays, clients = machines
    with relay_on(relays, bind=bind) as relay:
        addresses = IPV4 if bind == "0.0.0.0" else [*IPV4, *IPV6]
        for number, address in enumerate(addresses, 1):
            is_a_guest(relay, clients, address)
            assert page_at(clients, address, relay.port)[0] == b"HTTP/1.1 200 OK"
            network = address.rpartition("." if "." in address else ":")[0]
            # IPv4 is shown as IPv4, whatever socket it came to.
            seen = f"{network}.9:" if "." in network else rf"\[{network}:9\]:"
            relay.wait_for(rf'peer {number} registered .*"remote": "{seen}')
        assert relay.counters()["endpoint.drop.unknown_connection"] == 0


@pytest.mark.parametrize("bind", [IPV4[1], IPV6[1]])
def test_a_relay_that_is_bound_to_one_address_is_there_alone(machines, bind):
    relays, clients = machines
    with relay_on(relays, bind=bind) as relay:
        assert relay.host == in_url(bind)
        is_a_guest(relay, clients, bind)
        for other in (IPV4[0], IPV6[0]):
            with pytest.raises(ConnectionRefusedError):
                page_at(clients, other, relay.port)


def test_ipv4_alone_is_what_0_0_0_0_means(machines):
    relays, clients = machines
    with relay_on(relays, bind="0.0.0.0") as relay:
        assert relay.host == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            page_at(clients, IPV6[0], relay.port)


@pytest.mark.parametrize("address", [IPV4[0], IPV4[2], IPV6[0], IPV6[1]])
def test_frames_arrive_in_bulk_at_any_of_several_addresses(machines, address):
    relays, clients = machines

    async def exchange(at):
        one, other = await Guest.join(at), await Guest.join(at)
        for first in range(0, 2000, 50):
            frames = [
                bytes(Ether(dst=other.mac, src=one.mac, type=0x88B5)) + number.to_bytes(2, "big") * 400
                for number in range(first, first + 50)
            ]
            one.send_frames(frames)
            arrived = []
            async with asyncio.timeout(PATIENCE):
                while len(arrived) < len(frames):
                    arrived += [frame for frame in await other.next_frames() if frame[12:14] == b"\x88\xb5"]
            assert arrived == frames
        for guest in (one, other):
            guest.client.close()
            await guest.client.wait_closed()

    with relay_on(relays, bind=None) as relay, clients.entered():
        asyncio.run(exchange(SimpleNamespace(url=relay.url_at(in_url(address)), hash=relay.hash)))


def test_the_certificate_names_what_clients_may_call_the_relay(machines):
    relays, clients = machines
    with relay_on(relays, bind=None) as relay:
        _, shown = page_at(clients, IPV4[0], relay.port)
        extension = x509.load_der_x509_certificate(shown).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        addresses = set(map(str, extension.value.get_values_for_type(x509.IPAddress)))
        assert addresses >= {"127.0.0.1", "::1", *IPV4, *IPV6}
        assert {"localhost", socket.gethostname()} <= set(extension.value.get_values_for_type(x509.DNSName))
        relay.wait_for(rf"other machines reach it at https://{IPV4[0]}:{relay.port} ")


@pytest.mark.parametrize("lacks", ["the protocol", "addresses"])
def test_a_machine_without_ipv6_has_a_relay_all_the_same(machines, lacks):
    _, clients = machines
    relays = Namespace("ipv4")
    try:
        connect(relays, "10.99.3.1/24", clients, "10.99.3.9/24")
        if lacks == "addresses":
            relays.run("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
        with relay_on(relays, bind=None, before=WITHOUT_IPV6 if lacks == "the protocol" else ()) as relay:
            is_a_guest(relay, clients, "10.99.3.1")
            assert page_at(relays, "127.0.0.1", relay.port)[0] == b"HTTP/1.1 200 OK"
            if lacks == "addresses":
                assert relay.host == "127.0.0.1"
            assert '"level": "warning"' not in relay.output.replace("guests cannot ping", "")
    finally:
        relays.delete()

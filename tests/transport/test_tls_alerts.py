"""Clients that go away during the handshake, and what the operator reads of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from endpoint_parts import PATIENCE, pinned, running_endpoint, udp_client
from quic_parts import client_configuration
from waiting import until
from web_parts import connected, serving

from guest.client import ConnectError, connect
from guest.target import Trust
from transport.certificates import Certificate, EphemeralCertificateStore
from transport.tls_alerts import alert_of_quic, log_alert, log_handshake_error

NOW = datetime.now(UTC)
HERE = "127.0.0.1:"


def run(scenario):
    async def main():
        async with asyncio.timeout(PATIENCE):
            await scenario()

    asyncio.run(main())


def issued_by_an_authority():
    key = ec.generate_private_key(ec.SECP256R1())
    name, authority = x509.Name([]), ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=9))
    return Certificate((builder.sign(authority, hashes.SHA256()),), key)


# -- over QUIC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "alert", "said"),
    [
        (
            Trust(certificate_hash=bytes(32)),
            "bad certificate",
            "not the one to be trusted: the relay has a new",
        ),
        (
            Trust(),
            "bad certificate",
            "TLS: self-signed certificate; trust the certificate by its hash, or by",
        ),
    ],
    ids=["another hash", "authorities only"],
)
def test_a_client_that_does_not_accept_the_certificate_is_a_line_on_both_sides(lines, trust, alert, said):
    async def scenario():
        async with running_endpoint() as relay:
            with pytest.raises(ConnectError, match=said) as refused:
                await connect(relay.url, trust)
            assert refused.value.permanent
            await until(lambda: relay.counters["endpoint.handshakes_failed"])
            [line] = lines
            assert line.startswith(f"WARNING {HERE}")
            assert f" does not accept the relay's certificate ({alert}): perhaps it pins the hash of " in line
            assert line.endswith(f"the present hash is {pinned().certificate_hash.hex()}")
            assert relay.peers == []

    run(scenario)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (42, "does not accept the relay's certificate (bad certificate): "),
        (45, "does not accept the relay's certificate (certificate expired): "),
        (46, "does not accept the relay's certificate (certificate unknown): "),
        (40, "ended the TLS handshake: handshake failure"),
        (255, "ended the TLS handshake: alert 255"),
    ],
)
@pytest.mark.parametrize("confirmed", [False, True])
def test_an_alert_during_the_handshake_or_right_after_it_is_a_line(lines, code, line, confirmed):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            if confirmed:
                await client.until(lambda: client.quic._handshake_confirmed)
            client.quic.close(error_code=0x100 + code, frame_type=6)
            client.flush()
            await until(lambda: relay.counters["endpoint.handshakes_failed"])
            [said] = lines
            assert line in said

    run(scenario)


def test_an_application_that_leaves_with_the_same_number_is_none(lines):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            await client.until(lambda: client.quic._handshake_confirmed)
            client.quic.close(error_code=0x100 + 42)
            client.flush()
            await until(lambda: relay.endpoint.connection_count == 0)
            assert lines == []
            assert "endpoint.handshakes_failed" not in relay.counters

    run(scenario)


def test_a_client_with_which_the_relay_has_no_protocol_in_common_is_a_line(lines):
    async def scenario():
        configuration = client_configuration()
        configuration.alpn_protocols = ["hq-interop"]
        async with running_endpoint() as relay, udp_client(configuration, relay.address) as client:
            await client.until(lambda: client.quic.ended is not None)
            await until(lambda: relay.counters["endpoint.handshakes_failed"])
            [line] = lines
            assert line.startswith(f"WARNING {HERE}")
            assert (
                " was refused in the TLS handshake: no application protocol (No common ALPN protocols)"
                in line
            )

    run(scenario)


def test_a_request_that_is_refused_is_a_line(lines):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            await client.until(lambda: client.quic._handshake_confirmed)
            fields = {b":method": b"GET", b":scheme": b"https", b":authority": b"relay", b":path": b"/x"}
            await client.until(lambda: client.client.h3 is not None)
            client.client.h3.send_headers(
                client.quic.get_next_available_stream_id(), list(fields.items()), True
            )
            client.flush()
            await until(lambda: lines)
            assert lines[0].startswith(f"WARNING {HERE}")
            assert lines[0].endswith(" was refused GET /x: status 405")

    run(scenario)


# -- over TCP -------------------------------------------------------------------------------------------


def handshake(port, context):
    """As most clients do it: when it fails the other side is told by an alert."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp:
        context.wrap_socket(tcp, server_hostname="127.0.0.1").close()


def test_a_client_that_does_not_accept_the_certificate_over_tcp_is_a_line(lines):
    async def scenario():
        async with serving() as web:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(handshake, web.port, ssl.create_default_context())
            await until(lambda: web.counters["web.drop.tls_handshake"])
            [line] = lines
            assert line.startswith(f"WARNING {HERE}")
            assert (
                " does not accept the relay's certificate (unknown ca): perhaps it pins the hash of " in line
            )

    run(scenario)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_client_of_an_old_version_of_tls_is_a_line(lines):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    async def scenario():
        async with serving() as web:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(handshake, web.port, context)
            await until(lambda: lines)
            assert " was refused in the TLS handshake: unsupported protocol" in lines[0]

    run(scenario)


def test_a_client_that_leaves_without_an_alert_is_a_line(lines):
    async def scenario():
        async with serving() as web:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", web.port, ssl=ssl.create_default_context())
            await until(lambda: lines)
            assert lines[0].startswith(f"INFO {HERE}")
            assert (
                " left in the TLS handshake: perhaps it does not accept the relay's certificate" in lines[0]
            )

    run(scenario)


def test_a_client_that_says_nothing_is_no_line(lines):
    async def scenario():
        async with serving() as web:
            async with connected(web) as (_, writer):
                writer.write_eof()
                await until(lambda: web.counters["web.drop.no_request"])
            assert lines == []

    run(scenario)


# -- words ------------------------------------------------------------------------------------------------


def test_what_it_may_mean_depends_on_who_signed(lines):
    log_alert("192.0.2.1:5", "unknown ca", EphemeralCertificateStore([], NOW).current)
    log_alert("192.0.2.1:5", "unknown ca", issued_by_an_authority())
    assert "perhaps it pins the hash of another one, or trusts authorities only" in lines[0]
    assert "perhaps it does not know the authority, or asked for another name" in lines[1]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "certificate (certificate unknown)"),
        ("TLSV1_ALERT_UNKNOWN_CA", "certificate (unknown ca)"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "ended the TLS handshake: certificate required"),
        ("NO_SHARED_CIPHER", "was refused in the TLS handshake: no shared cipher"),
        (None, "was refused in the TLS handshake: unknown"),
    ],
)
def test_openssls_reasons_are_put_into_words(lines, reason, said):
    error = ssl.SSLError(1, "what it says")
    error.reason = reason
    log_handshake_error("192.0.2.1:5", error, EphemeralCertificateStore([], NOW).current)
    assert said in lines[0]


def test_alerts_have_names():
    assert alert_of_quic(0x100 + 42) == "bad certificate"
    assert alert_of_quic(0x100 + 13) == "alert 13"

"""What the relay's side of each connection is like."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

from transport.certificates import Certificate, EphemeralCertificateStore
from transport.quic.server_configuration import server_configuration


def certificates(count):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [EphemeralCertificateStore([f"{number}.example"], now).current for number in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_clients_are_shown_the_certificate_with_its_chain(count):
    made = certificates(count)
    whole = Certificate(tuple(each.chain[0] for each in made), made[0].private_key)
    found = server_configuration(whole, "bbr")
    assert found.certificate == whole.chain[0]
    assert found.certificate_chain == [*whole.chain[1:]]
    assert found.private_key is whole.private_key


@pytest.mark.parametrize("congestion", ["bbr", "cubic", "reno"])
def test_it_is_a_servers_of_http_3_over_version_1(congestion):
    found = server_configuration(certificates(1)[0], congestion)
    assert not found.is_client
    assert found.alpn_protocols == ["h3"]
    assert found.supported_versions == [QuicProtocolVersion.VERSION_1]
    assert found.cipher_suites[0] is CipherSuite.AES_128_GCM_SHA256
    assert found.congestion_control_algorithm == congestion

from __future__ import annotations

import shlex
import socket
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from relay import certs
from relay.certs import MAX_ADDRESSES, local_names, network_addresses
from relay.main import main
from transport.certificates import generate, load


def test_generate_writes_a_pair_and_prints_its_hash(tmp_path, capsys):
    directory = tmp_path / "new" / "certs"
    assert main(["certs", "generate", str(directory), "--name", "relay.example", "--name", "192.0.2.7"]) == 0

    certificate = load(directory / "relay-cert.pem", directory / "relay-key.pem")
    assert f"Certificate SHA-256 Hash: {certificate.sha256}\n" in capsys.readouterr().out
    assert certificate.not_after - certificate.not_before == timedelta(days=10)
    assert certificate.complaints(datetime.now(UTC)) == ()
    assert certificate.can_be_pinned
    names = certificate.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "relay.example"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1", "192.0.2.7"} <= {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    }


@pytest.mark.parametrize("name", ["https://relay.example", "relay.example:4433", "käse.example", "a..b", ""])
def test_what_is_no_name_is_refused_and_nothing_written(tmp_path, capsys, name):
    with pytest.raises(SystemExit) as left:
        main(["certs", "generate", str(tmp_path / "new"), "--name", name])
    assert left.value.code == 2
    assert f"--name: {name!r} is not a host name or an address" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_wildcards_and_addresses_in_brackets_are_names(tmp_path):
    assert main(["certs", "generate", str(tmp_path), "--name", "*.relay.example", "--name", "[fd00::7]"]) == 0
    names = load(tmp_path / "relay-cert.pem", tmp_path / "relay-key.pem").names
    assert {"*.relay.example", "fd00::7"} <= names


def test_the_command_that_is_printed_can_be_pasted(tmp_path, capsys):
    directory = tmp_path / "the relay's certificates"
    assert main(["certs", "generate", str(directory)]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    files = str(directory / "relay-cert.pem"), str(directory / "relay-key.pem")
    assert command == ["vmrelay", "--cert-pem", files[0], "--key-pem", files[1]]


ADDRESSES = [
    "fe80::1",
    "2001:db8::7",
    "127.0.0.1",
    "::1",
    "192.0.2.9",
    "192.0.2.10",
    "169.254.1.1",
    "fd00::1",
]


def test_certificates_name_the_addresses_that_others_reach_this_machine_at(monkeypatch):
    monkeypatch.setattr(certs, "interface_addresses", lambda: frozenset(ADDRESSES))
    assert network_addresses() == ["192.0.2.9", "192.0.2.10", "2001:db8::7", "fd00::1"]
    assert list(local_names()) == [
        "localhost",
        "127.0.0.1",
        "::1",
        socket.gethostname(),
        *network_addresses(),
    ]


def test_a_machine_of_many_addresses_has_a_certificate_that_fits(monkeypatch):
    many = frozenset(f"2001:db8::{number:x}" for number in range(1, 1000))
    monkeypatch.setattr(certs, "interface_addresses", lambda: many)
    assert len(network_addresses()) == MAX_ADDRESSES
    certificate = generate(local_names(), datetime.now(UTC))
    # Beside the rest of the handshake, in three times the 1,200 bytes of a client's first packet.
    assert len(certificate.leaf.public_bytes(Encoding.DER)) < 1500


def test_where_interfaces_cannot_be_read_certificates_name_this_machine_only(monkeypatch):
    def unreadable():
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(certs, "interface_addresses", unreadable)
    assert list(local_names()) == ["localhost", "127.0.0.1", "::1", socket.gethostname()]


def test_only_the_owner_reads_the_key(tmp_path):
    main(["certs", "generate", str(tmp_path)])
    assert stat.S_IMODE((tmp_path / "relay-key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "relay-cert.pem").stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["relay-cert.pem", "relay-key.pem"]


@pytest.mark.parametrize("name", ["relay-cert.pem", "relay-key.pem"])
def test_files_are_replaced_only_by_force(tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    assert main(["certs", "generate", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"vmrelay: error: {tmp_path / name} is there already; --force replaces it\n"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]

    assert main(["certs", "generate", str(tmp_path), "--force"]) == 0
    assert load(tmp_path / "relay-cert.pem", tmp_path / "relay-key.pem")


def test_what_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["certs", "generate", str(tmp_path / "file" / "below")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vmrelay: error: ")
    assert "Not a directory" in line

    (tmp_path / "relay-cert.pem").mkdir()
    assert main(["certs", "generate", str(tmp_path), "--force"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "relay-cert.pem", "relay-key.pem"]


def test_local_names_are_those_a_client_on_this_machine_uses():
    assert {"localhost", "127.0.0.1", "::1"} < set(local_names())

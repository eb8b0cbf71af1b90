"""Answers of a name server with records that nobody knows, malformed ones and very many, as a kernel's guest
gets them: by dig, and byte for byte by a program of its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import odd_name_server
import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import Relay

from netstack.dns_wire import WireMessage

GATEWAY = "10.0.2.2"
NAME_SERVER = "10.99.0.2"

ASK = f"""
import socket, sys
s = socket.create_connection(({GATEWAY!r}, 53), 10)
query = bytes.fromhex(sys.argv[1])
s.sendall(len(query).to_bytes(2, "big") + query)
file = s.makefile("rb")
print(file.read(int.from_bytes(file.read(2), "big")).hex())
"""


@pytest.fixture(scope="module")
def guest():
    here, outside = Namespace("relay"), Namespace("names")
    connect(here, "10.99.0.1/24", outside, f"{NAME_SERVER}/24")
    server = outside.start(sys.executable, Path(__file__).with_name("odd_name_server.py"), NAME_SERVER)
    server.wait_for("answering")
    relay = Relay("--upstream-dns", NAME_SERVER, before=here.prefix)
    guest = KernelGuest("asks", relay, here)
    yield guest
    guest.leave()
    relay.stop()
    server.stop()
    for namespace in (here, outside):
        namespace.delete()
    assert "Traceback" not in relay.output


def bytes_of(guest, name, kind=1):
    """Ask over TCP; give the types and data of the records that came."""
    labels = b"".join(bytes((len(part),)) + part.encode() for part in (*name.split("."), ""))
    query = b"\x12\x34\1\0\0\1" + bytes(6) + labels + kind.to_bytes(2, "big") + b"\0\1"
    wire = bytes.fromhex(guest.run(sys.executable, "-c", ASK, query.hex()).stdout)
    assert wire[:2] == query[:2]
    return tuple((kind, wire[data:end]) for _, kind, data, end in WireMessage(wire).records)


def test_odd_records_come_byte_for_byte(guest):
    for _ in ("fresh", "from the cache"):
        assert bytes_of(guest, "odd.example") == odd_name_server.RECORDS


def test_odd_records_come_beside_one_that_is_taken_out(guest):
    assert bytes_of(guest, "private.example") == odd_name_server.RECORDS


def test_dig_shows_the_known_and_the_unknown(guest):
    said = guest.run("dig", f"@{GATEWAY}", "+nosplit", "odd.example", "A").stdout
    for line in ("A\t8.8.4.4", "A\t8.8.8.8", 'TXT\t"plain"', "TYPE65400 \\# 7 C00CFF006F6464"):
        assert line in said, said


def test_a_thousand_addresses_come_over_tcp(guest):
    said = guest.run("dig", f"@{GATEWAY}", "+short", "many.example", "A").stdout
    assert len(set(said.split())) == odd_name_server.MANY


def test_service_bindings_come_without_those_that_point_into_private_networks(guest):
    for _ in ("fresh", "from the cache"):
        records = bytes_of(guest, "service.example", odd_name_server.HTTPS)
        assert records == odd_name_server.ANSWERS[b"service"][:1]


@pytest.mark.parametrize("options", [(), ("+dnssec",), ("+cdflag",), ("+noadflag", "+dnssec", "+cdflag")])
def test_bits_of_dnssec_go_to_the_name_server_and_come_back(guest, options):
    for _ in ("fresh", "from the cache"):
        said = guest.run("dig", f"@{GATEWAY}", *options, "bits.example", "TXT").stdout
        wanted = [bit for bit, option in (("DO", "+dnssec"), ("CD", "+cdflag")) if option in options]
        assert f'TXT\t"{" ".join([*wanted, "AD"])}"' in said, said
        flags = re.search(r"flags: ([\w ]+);", said)[1].split()
        assert set(flags) == {"qr", "rd", "ra", "ad", *(["cd"] if "CD" in wanted else [])}
        assert ("flags: do;" in said) == ("DO" in wanted)


def test_who_does_not_understand_ad_does_not_get_it(guest):
    for option in ("+noadflag", "+noedns"):
        said = guest.run("dig", f"@{GATEWAY}", "+noadflag", option, "bits.example", "TXT").stdout
        assert "ad" not in re.search(r"flags: ([\w ]+);", said)[1].split()


def test_that_an_answer_is_cut_is_passed_on_where_the_name_server_has_no_tcp(guest):
    for how in ("+notcp", "+tcp"):
        said = guest.run("dig", f"@{GATEWAY}", how, "+ignore", "cut.example", "A").stdout
        assert "tc" in re.search(r"flags: ([\w ]+);", said)[1].split(), said
        assert "A\t8.8.4.4" in said

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netstack.dhcp_options import (
    END,
    Code,
    Route,
    arrange,
    encode_domain_search,
    encode_routes,
    option_spans,
    read_options,
)

MAC = bytes.fromhex("525400aa0001")


def test_values_are_found_where_they_stand():
    options = [("message-type", 1), "pad", ("client_id", b"\0one"), ("client_id", b"two"), "end"]
    message = bytes(BOOTP(chaddr=MAC) / DHCP(options=options))
    assert [message[a:b] for a, b in option_spans(message, Code.CLIENT_ID)] == [b"\0one", b"two"]
    assert list(option_spans(message[:240] + b"\x3d\x09\1", Code.CLIENT_ID)) == []


@given(st.binary(max_size=300))
def test_no_message_whatever_is_too_odd_to_look_through(message):
    for start, end in option_spans(message, Code.CLIENT_ID):
        assert 240 < start <= end <= len(message)


def test_search_domains_are_compressed():
    """The example of RFC 3397 section 2."""
    assert encode_domain_search([(b"eng", b"apple", b"com", b""), (b"marketing", b"apple", b"com", b"")]) == (
        b"\3eng\5apple\3com\0\x09marketing\xc0\x04"
    )
    name = (b"a", b"example", b"")
    assert encode_domain_search([name, name, name[1:]]) == b"\1a\7example\0\xc0\0\xc0\2"


GATEWAY = bytes((10, 0, 2, 2))
ROUTER = bytes((10, 0, 2, 15))


def test_routes_have_the_significant_bytes_and_a_default():
    """The examples of RFC 3442."""
    networks = {
        (0, "00"): bytes(4),
        (8, "080a"): bytes((10, 0, 0, 0)),
        (24, "180a0000"): bytes((10, 0, 0, 0)),
        (16, "100a11"): bytes((10, 17, 0, 0)),
        (24, "180a1b81"): bytes((10, 27, 129, 0)),
        (25, "190a e5 00 80"): bytes((10, 229, 0, 128)),
        (32, "200a c6 7a 2f"): bytes((10, 198, 122, 47)),
    }
    for (length, expected), network in networks.items():
        written = encode_routes([Route(network, length, ROUTER)], GATEWAY)
        default = b"" if length == 0 else b"\0" + GATEWAY
        assert written == bytes.fromhex(expected) + ROUTER + default


def test_a_long_option_is_in_pieces():
    """RFC 3396 section 4."""
    areas = arrange({Code.WPAD: bytes(600)}, 1000, file=True, sname=True)
    assert [areas.options[at] for at in (0, 257, 514)] == [Code.WPAD] * 3
    assert [areas.options[at] for at in (1, 258, 515)] == [255, 255, 90]
    assert read_options(areas.options, b"", b"") == {Code.WPAD: bytes(600)}


values = st.dictionaries(
    st.sampled_from([code for code in Code if code is not Code.OVERLOAD]),
    st.binary(min_size=1, max_size=400),
    max_size=12,
)


@given(values, st.integers(60, 1200), st.booleans(), st.booleans())
def test_what_is_written_fits_and_is_read_again(fields, room, file, sname):
    areas = arrange(fields, room, file=file, sname=sname)
    assert len(areas.options) <= room
    assert areas.options[-1] == END
    assert len(areas.file) <= 128 * file
    assert len(areas.sname) <= 64 * sname
    found = read_options(areas.options, areas.sname, areas.file)
    where = found.pop(Code.OVERLOAD, b"\0")
    assert where == bytes((bool(areas.file) + 2 * bool(areas.sname),))
    assert found.items() <= fields.items()
    if sum(2 * -(-len(value) // 255) + len(value) for value in fields.values()) < room:
        assert (found, where) == (fields, b"\0")


def test_what_fits_to_the_byte_is_written():
    fields = {Code.ROUTER: bytes(40), Code.BOOT_FILE: bytes(125), Code.WPAD: bytes(61)}
    areas = arrange(fields, 42 + 3 + 1, file=True, sname=True)
    assert list(map(len, areas)) == [46, 128, 64]
    assert read_options(areas.options, areas.sname, areas.file).items() > fields.items()


def test_the_least_important_options_are_left_out():
    fields = {
        Code.ROUTER: bytes(4),
        Code.NTP_SERVERS: bytes(40),
        Code.DOMAIN_SEARCH: bytes(40),
        Code.WPAD: b"x",
    }
    areas = arrange(fields, 60, file=False, sname=False)
    assert read_options(areas.options, b"", b"").keys() == {Code.ROUTER, Code.NTP_SERVERS, Code.WPAD}

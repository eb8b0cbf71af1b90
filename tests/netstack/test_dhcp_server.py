from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netstack.address_pool import AddressPool
from netstack.dhcp import MessageType, parse_dhcp
from netstack.dhcp_boot import BootFile
from netstack.dhcp_options import Route
from netstack.dhcp_server import DhcpOptions, DhcpServer, Reply, Unanswered
from netstack.malformed import MalformedPacket

MAC = bytes.fromhex("525415ee0001")  # has the first address of the pool
OTHER = bytes.fromhex("525415ee0002")
GATEWAY = bytes((10, 0, 2, 2))
OPTIONS = DhcpOptions(GATEWAY, bytes((255, 255, 255, 0)), GATEWAY, "vm.internal", 3600)


class Conversation:
    """A server, and what a guest says to it."""

    def __init__(self, options=OPTIONS, **pool):
        self.pool = AddressPool(**pool)
        self.server = DhcpServer(options, self.pool)
        self.now = 0.0

    def says(self, kind, *options, mac=MAC, mtu=1395, port=1, **fields):
        header = BOOTP(chaddr=mac + bytes(10), xid=7, **fields)
        payload = bytes(header / DHCP(options=[("message-type", kind), *options, "end"]))
        return self.server.answer(parse_dhcp(payload), mtu, port, self.now)


def told(reply):
    """What a reply says: yiaddr, and the options by name."""
    message = BOOTP(reply.payload)
    options = {option[0]: option[1] for option in message[DHCP].options if isinstance(option, tuple)}
    return message.yiaddr, options


@pytest.fixture
def dhcp():
    return Conversation()


def test_a_guest_gets_its_address_and_all_it_needs(dhcp):
    offer = dhcp.says("discover")
    ack = dhcp.says("request", ("server_id", "10.0.2.2"), ("requested_addr", "10.0.2.10"))
    for reply, kind in ((offer, MessageType.OFFER), (ack, MessageType.ACK)):
        assert reply.kind is kind
        assert (reply.mac, reply.address) == (MAC, bytes((10, 0, 2, 10)))
        address, options = told(reply)
        assert address == "10.0.2.10"
        assert options == {
            "message-type": kind,
            "server_id": "10.0.2.2",
            "lease_time": 3600,
            "renewal_time": 1800,
            "rebinding_time": 3150,
            "subnet_mask": "255.255.255.0",
            "router": "10.0.2.2",
            "name_server": "10.0.2.2",
            "domain": b"vm.internal",
            "interface-mtu": 1395,
            "broadcast_address": "10.0.2.255",
        }
    assert (offer.lease, ack.lease) == (None, bytes((10, 0, 2, 10)))


def test_it_is_the_address_that_the_pool_gave_already(dhcp):
    dhcp.pool.assign(OTHER)
    given_before = dhcp.pool.assign(MAC)
    assert told(dhcp.says("discover"))[0] == "10.0.2.10"
    assert dhcp.pool.address_of(MAC) == given_before


def test_a_broadcast_is_answered_by_broadcast_where_the_guest_wants_it(dhcp):
    offer = dhcp.says("discover", flags="B")
    assert (offer.mac, offer.address) == (b"\xff" * 6, b"\xff" * 4)
    nak = dhcp.says("request", ("requested_addr", "10.0.2.2"), flags="B")
    assert (nak.kind, nak.mac, nak.address) == (MessageType.NAK, b"\xff" * 6, b"\xff" * 4)


def test_renewing(dhcp):
    dhcp.says("discover")
    ack = dhcp.says("request", ciaddr="10.0.2.10", mtu=1280)
    assert (ack.kind, ack.mac, ack.address) == (MessageType.ACK, MAC, bytes((10, 0, 2, 10)))
    assert told(ack)[1]["interface-mtu"] == 1280


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ([("server_id", "10.0.2.2"), ("requested_addr", "10.0.2.99")], {}),
        ([("requested_addr", "192.168.1.5")], {}),
        ([("requested_addr", "10.0.2.2")], {}),
        ([], {"ciaddr": "10.0.2.99"}),
        ([], {}),
    ],
    ids=["selecting", "rebooted elsewhere", "the gateway's", "renewing", "nothing named"],
)
def test_another_address_is_refused(dhcp, options, fields):
    nak = dhcp.says("request", *options, **fields)
    assert (nak.kind, nak.mac, nak.address, nak.lease) == (MessageType.NAK, MAC, b"\xff" * 4, None)
    address, said = told(nak)
    assert address == "0.0.0.0"
    assert said.keys() == {"message-type", "server_id", "error_message"}


def test_the_address_of_another_guest_is_refused(dhcp):
    dhcp.pool.assign(OTHER)
    assert dhcp.says("request", ("requested_addr", "10.0.2.11")).kind is MessageType.NAK
    assert dhcp.pool.holder_of(bytes((10, 0, 2, 11))) == OTHER


REBOOTED = [("requested_addr", "10.0.2.99")]
"""What a client says that boots with a lease of before (INIT-REBOOT): it names no server."""


def test_a_client_that_reboots_has_its_address_when_nothing_is_known_of_it(dhcp):
    ack = dhcp.says("request", *REBOOTED)
    assert (ack.kind, ack.lease) == (MessageType.ACK, bytes((10, 0, 2, 99)))
    assert dhcp.pool.held() == ((bytes((10, 0, 2, 99)), MAC),)
    assert dhcp.says("request", ("requested_addr", "10.0.2.98")).kind is MessageType.NAK, "it is known now"


def test_it_has_it_in_place_of_one_that_was_chosen_for_its_mac(dhcp):
    dhcp.pool.assign(MAC)
    assert dhcp.says("request", *REBOOTED).kind is MessageType.ACK
    assert dhcp.pool.address_of(MAC) == bytes((10, 0, 2, 99))


def test_a_client_that_looks_for_a_server_is_offered_the_address_that_it_asks_for(dhcp):
    dhcp.pool.assign(MAC)
    assert told(dhcp.says("discover", *REBOOTED))[0] == "10.0.2.99"
    ack = dhcp.says("request", ("server_id", "10.0.2.2"), *REBOOTED)
    assert (ack.kind, ack.lease) == (MessageType.ACK, bytes((10, 0, 2, 99)))


@pytest.mark.parametrize("why", ["used", "kept", "accepted", "held", "kept for another", "fixed for another"])
def test_it_is_told_otherwise_where_more_is_known(why):
    address = bytes((10, 0, 2, 99))
    dhcp = Conversation(fixed={OTHER: address} if why == "fixed for another" else {})
    given = bytes((10, 0, 2, 10))
    match why:
        case "used":
            dhcp.pool.assign(MAC)
            dhcp.pool.uses(MAC, given)
        case "accepted":
            dhcp.says("request", ("requested_addr", "10.0.2.10"))
        case "kept":
            dhcp.pool.remember(MAC, given)
        case "held":
            dhcp.pool.claim(OTHER, address)
        case "kept for another":
            dhcp.pool.remember(OTHER, address)
    assert dhcp.says("request", *REBOOTED).kind is MessageType.NAK
    assert told(dhcp.says("discover", *REBOOTED))[0] == "10.0.2.10"
    assert dhcp.pool.address_of(MAC) == given


def test_clients_behind_one_mac_have_theirs_again_too(dhcp):
    clients = {"10.0.2.99": b"\0one", "10.0.2.77": b"\0two", "10.0.2.88": b"\0three"}
    for _ in range(2):
        for address, identifier in clients.items():
            ack = dhcp.says("request", ("requested_addr", address), ("client_id", identifier))
            assert (ack.kind, told(ack)[0]) == (MessageType.ACK, address)
    refused = dhcp.says("request", ("requested_addr", "10.0.2.66"), ("client_id", b"\0two"))
    assert refused.kind is MessageType.NAK


def test_inform_gets_everything_but_a_lease(dhcp):
    ack = dhcp.says("inform", ciaddr="10.0.2.77")
    assert (ack.kind, ack.mac, ack.address, ack.lease) == (MessageType.ACK, MAC, bytes((10, 0, 2, 77)), None)
    address, options = told(ack)
    assert address == "0.0.0.0"
    assert options["router"] == "10.0.2.2"
    assert "lease_time" not in options
    assert dhcp.pool.address_of(MAC) is None
    assert dhcp.says("inform").address == b"\xff" * 4


def test_release_leaves_the_address_with_the_session(dhcp):
    dhcp.says("discover")
    assert dhcp.says("release", ciaddr="10.0.2.10") is Unanswered.RELEASED
    assert dhcp.pool.address_of(MAC) == bytes((10, 0, 2, 10))


def test_a_guest_that_goes_on_with_a_lease_of_before_is_given_it_again(dhcp):
    dhcp.pool.assign(MAC)
    old = bytes((10, 0, 2, 99))
    assert dhcp.says("request", ciaddr="10.0.2.99").kind is MessageType.NAK
    assert dhcp.pool.claim(MAC, old).accepted, "as the frame that renews it does"
    ack = dhcp.says("request", ciaddr="10.0.2.99")
    assert (ack.kind, ack.lease) == (MessageType.ACK, old)
    assert dhcp.pool.address_of(MAC) == old


def test_a_declined_address_is_the_last_to_be_given_again():
    dhcp = Conversation(first="10.0.2.10", last="10.0.2.12")
    dhcp.says("discover")
    assert dhcp.says("decline", ("requested_addr", "10.0.2.10")) is Unanswered.DECLINED
    given = [told(dhcp.says("discover", mac=bytes([2, 0, 0, 0, 0, n])))[0] for n in range(3)]
    assert sorted(given) == ["10.0.2.10", "10.0.2.11", "10.0.2.12"]
    assert given[-1] == "10.0.2.10"


def test_only_ones_own_address_can_be_declined(dhcp):
    dhcp.says("discover")
    assert dhcp.says("decline", ("requested_addr", "10.0.2.99")) is Unanswered.DECLINED
    assert dhcp.says("decline") is Unanswered.DECLINED
    assert dhcp.pool.address_of(MAC) == bytes((10, 0, 2, 10))


def test_when_all_addresses_are_held():
    dhcp = Conversation(first="10.0.2.10", last="10.0.2.10")
    dhcp.says("discover", mac=OTHER)
    assert dhcp.says("discover") is Unanswered.POOL_FULL
    assert dhcp.says("request", ("requested_addr", "10.0.2.10")).kind is MessageType.NAK


def test_bootp_is_answered_for_good_with_the_macs_address(dhcp):
    dhcp.says("discover")
    request = bytes(BOOTP(chaddr=MAC + bytes(10), xid=7) / DHCP(options=["end"]))
    reply = dhcp.server.answer(parse_dhcp(request), 1395, 1, 0.0)
    assert (reply.kind, reply.mac, reply.address) == (MessageType.BOOTP, MAC, bytes((10, 0, 2, 10)))
    address, options = told(reply)
    assert address == "10.0.2.10"
    assert options.keys() == {
        "subnet_mask",
        "router",
        "name_server",
        "domain",
        "interface-mtu",
        "broadcast_address",
    }
    assert len(reply.payload) == 300
    assert reply.lease == bytes((10, 0, 2, 10))


@pytest.mark.parametrize("kind", ["discover", "request", "inform"])
@pytest.mark.parametrize("wanted", ["10.0.2.10", "10.0.2.99"])
def test_the_identifier_comes_back_in_every_answer(dhcp, kind, wanted):
    """RFC 6842 section 3: in OFFER, ACK and NAK."""
    reply = dhcp.says(kind, ("client_id", b"\0me"), ("requested_addr", wanted))
    assert told(reply)[1]["client_id"] == b"\0me"


def test_two_identifiers_behind_one_mac_are_two_leases(dhcp):
    for _ in range(2):
        for identifier, address in ((b"\0one", "10.0.2.10"), (b"\0two", "10.0.2.11")):
            client = ("client_id", identifier)
            assert told(dhcp.says("discover", client))[0] == address
            ack = dhcp.says("request", client, ("requested_addr", address))
            assert (ack.kind, ack.lease) == (MessageType.ACK, bytes(map(int, address.split("."))))
            assert dhcp.pool.holder_of(ack.lease) == MAC
    nak = dhcp.says("request", ("client_id", b"\0two"), ("requested_addr", "10.0.2.10"))
    assert nak.kind is MessageType.NAK


@pytest.mark.parametrize("kind", ["decline", "release"])
def test_what_another_server_gave_is_not_this_ones_to_take_back(dhcp, kind):
    """RFC 2131 section 4.4.1, table 5: both messages name their server."""
    one, other = ("client_id", b"\0one"), ("client_id", b"\0other")
    for client, address in ((one, "10.0.2.10"), (other, "10.0.2.11")):
        dhcp.says("discover", client)
        dhcp.says("request", client, ("requested_addr", address))
    before = dhcp.pool.held()
    about = ("requested_addr", "10.0.2.11"), ("server_id", "10.0.2.9")
    assert dhcp.says(kind, other, *about, ciaddr="10.0.2.11") is Unanswered.OTHER_SERVER
    assert dhcp.pool.held() == before
    dhcp.says(kind, other, about[0], ("server_id", "10.0.2.2"), ciaddr="10.0.2.11")
    assert len(dhcp.pool.held()) == len(before) - 1


@pytest.mark.parametrize(
    ("kind", "options", "fields", "why"),
    [
        ("request", [("server_id", "10.0.2.9")], {}, Unanswered.OTHER_SERVER),
        ("discover", [], {"giaddr": "10.0.2.9"}, Unanswered.RELAYED),
        ("offer", [], {}, Unanswered.NOT_A_REQUEST),
        ("ack", [], {}, Unanswered.NOT_A_REQUEST),
    ],
)
def test_what_is_not_for_this_server(dhcp, kind, options, fields, why):
    assert dhcp.says(kind, *options, **fields) is why
    assert dhcp.pool.held() == ()


def test_a_fixed_address():
    dhcp = Conversation(fixed={MAC: bytes((10, 0, 2, 50))})
    assert told(dhcp.says("discover"))[0] == "10.0.2.50"
    dhcp.says("decline", ("requested_addr", "10.0.2.50"))
    assert told(dhcp.says("discover"))[0] == "10.0.2.50"


TELLS = OPTIONS._replace(
    boot=(
        BootFile((0,), "bios.0", bytes((10, 0, 2, 15))),
        BootFile((16,), "http://10.0.2.15/boot.efi", bytes(4)),
        BootFile((7,), "/long" * 30, bytes((10, 0, 2, 15))),
    ),
    search=("corp.example",),
    ntp=(bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))),
    routes=(Route(bytes((192, 168, 0, 0)), 16, bytes((10, 0, 2, 15))),),
    wpad="http://10.0.2.15/wpad.dat",
)
ROUTES = b"\x10\xc0\xa8\x0a\0\2\x0f" + b"\0" + GATEWAY
BESIDES = {
    42: b"\xc0\0\2\1\xc0\0\2\2",
    119: b"\4corp\7example\0",
    121: ROUTES,
    249: ROUTES,
    252: b"http://10.0.2.15/wpad.dat",
}


def raw_options(reply):
    """Options by code, as bytes."""
    return dict(parse_dhcp(b"\1" + reply.payload[1:]).options)


def test_what_the_operator_adds_is_told_to_who_asks_for_it():
    dhcp = Conversation(TELLS)
    for asked, told_of in (
        (b"\1\3\x2a", {42}),
        (b"\x77\x79\xfc", {119, 121, 252}),
        (b"\xf9", {249}),
        (b"\1", set()),
    ):
        for kind in ("discover", "inform"):
            options = raw_options(dhcp.says(kind, (55, asked)))
            assert {code: value for code, value in options.items() if code in BESIDES} == {
                code: BESIDES[code] for code in told_of
            }
            assert options[3] == GATEWAY
    assert raw_options(dhcp.says("discover")).keys() >= {42, 119, 121, 252}, "it did not say what it wants"


def test_the_file_to_boot_is_in_the_header_and_in_options():
    dhcp = Conversation(TELLS)
    reply = dhcp.says("discover", (93, b"\0\0"), (55, b"\1\x42\x43"))
    header = BOOTP(reply.payload)
    assert (header.siaddr, header.file.rstrip(b"\0"), header.sname.rstrip(b"\0")) == (
        "10.0.2.15",
        b"bios.0",
        b"",
    )
    options = raw_options(reply)
    assert (options[66], options[67]) == (b"10.0.2.15", b"bios.0")
    reply = dhcp.says("discover", (93, b"\0\0"), (55, b"\1"))
    assert BOOTP(reply.payload).file.rstrip(b"\0") == b"bios.0"
    assert not raw_options(reply).keys() & {66, 67}


def test_firmware_that_boots_by_http_is_answered_as_such():
    reply = Conversation(TELLS).says(
        "discover", (60, b"HTTPClient:Arch:00016"), (93, b"\0\x10"), (55, b"\x3c\x43")
    )
    options = raw_options(reply)
    assert (options[60], options[67]) == (b"HTTPClient", b"http://10.0.2.15/boot.efi")
    assert BOOTP(reply.payload).siaddr == "0.0.0.0"


@pytest.mark.parametrize(("length", "in_header"), [(127, True), (128, False)])
def test_a_name_in_the_header_ends_with_a_zero_byte(length, in_header):
    """RFC 2131 section 2: ``file`` is a null terminated string of 128 bytes."""
    name = "f" * length
    dhcp = Conversation(OPTIONS._replace(boot=(BootFile((), name, GATEWAY),)))
    reply = dhcp.says("discover", ("param_req_list", [67]))
    assert BOOTP(reply.payload).file == (name.encode() * in_header).ljust(128, b"\0")
    assert told(reply)[1]["boot-file-name"] == name.encode()


def test_a_name_too_long_for_the_header_is_in_the_option_only():
    reply = Conversation(TELLS).says("discover", (93, b"\0\7"), (55, b"\x43"))
    assert raw_options(reply)[67] == b"/long" * 30
    assert BOOTP(reply.payload).siaddr == "10.0.2.15"


def test_who_has_no_use_for_a_boot_file_is_not_told_of_one():
    options = TELLS._replace(boot=(BootFile((), "any", bytes((10, 0, 2, 15))),))
    header = BOOTP(Conversation(options).says("discover", (55, b"\1\3")).payload)
    assert (header.siaddr, header.file.rstrip(b"\0")) == ("0.0.0.0", b"")
    bootp = parse_dhcp(bytes(BOOTP(chaddr=MAC) / DHCP(options=["end"])))
    reply = Conversation(options).server.answer(bootp, 1395, 1, 0.0)
    assert (BOOTP(reply.payload).siaddr, len(reply.payload)) == ("10.0.2.15", 300)
    assert raw_options(reply).keys() >= {1, 3, 6}


@pytest.mark.parametrize("length", [10, 40, 120, 200, 255])
@pytest.mark.parametrize("kind", ["bootp", "discover"])
def test_a_long_boot_file_takes_nothing_from_what_every_guest_needs(kind, length):
    options = OPTIONS._replace(boot=(BootFile((), "x" * length, bytes((10, 0, 2, 15))),))
    dhcp = Conversation(options)
    if kind == "discover":
        found = raw_options(dhcp.says(kind))
        assert found.keys() >= {1, 3, 6, 15, 26, 28, 51, 53, 54, 58, 59}
        assert (67 in found) == (length <= 200), "of the longest a client hears if it takes more (option 57)"
    else:
        request = parse_dhcp(bytes(BOOTP(chaddr=MAC) / DHCP(options=["end"])))
        found = raw_options(dhcp.server.answer(request, 1395, 1, 0.0))
        assert found.keys() >= {1, 3, 6, 15, 26, 28}


@pytest.mark.parametrize(
    ("size", "mtu", "longest"),
    [(None, 1500, 548), (100, 1500, 548), (576, 1500, 548), (800, 1500, 772), (1500, 1141, 1113)],
)
def test_an_answer_is_no_longer_than_the_client_takes(size, mtu, longest):
    """Option 57, or 576 bytes (RFC 2131 section 2), with the headers of IP and UDP."""
    many = TELLS._replace(search=tuple(f"{n:060}.example" for n in range(32)), wpad="http://h/" + "x" * 200)
    wants: list[Any] = [(55, b"\x77\xfc\x2a\x79")]
    wants += [] if size is None else [("max_dhcp_size", size)]
    reply = Conversation(many).says("discover", *wants, mtu=mtu)
    assert len(reply.payload) <= longest
    options = raw_options(reply)
    assert options.keys() >= {1, 3, 6, 15, 26, 51, 54, 42, 121}
    assert 119 not in options, "32 domains do not fit"
    assert 252 in options


@given(
    st.lists(
        st.tuples(
            st.sampled_from([MAC, OTHER, b"\x02" * 6]),
            st.sampled_from(list(MessageType)),
            st.dictionaries(st.sampled_from([50, 54, 12, 81]), st.binary(max_size=6)),
            st.sampled_from([bytes(4), bytes((10, 0, 2, 10)), bytes((10, 0, 2, 11)), GATEWAY]),
        ),
        max_size=30,
    )
)
def test_no_conversation_gives_one_address_to_two(messages):
    pool = AddressPool(first="10.0.2.10", last="10.0.2.12")
    server = DhcpServer(OPTIONS, pool)
    for mac, kind, options, ciaddr in messages:
        body = b"".join(bytes((code, len(value))) + value for code, value in options.items())
        header = bytes(BOOTP(chaddr=mac + bytes(10)))[:12] + ciaddr + bytes(12) + mac + bytes(202)
        try:
            request = parse_dhcp(header + b"\x63\x82\x53\x63\x35\x01" + bytes((kind,)) + body)
        except MalformedPacket:
            continue
        reply = server.answer(request, 1500, 1, 0.0)
        if isinstance(reply, Reply) and reply.lease is not None:
            assert pool.holder_of(reply.lease) == mac
    held = pool.held()
    assert len({address for address, _ in held}) == len(held) == len({mac for _, mac in held})

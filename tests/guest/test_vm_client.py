from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Interface

import pytest
from admission_parts import OpenDoor
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Relay
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from waiting import until

from actors.messages import DatagramsFromClient, SessionClosed
from actors.runtime import current_scheduler
from guest import retry_delays
from guest import vm_client as vm_client_module
from guest.client import ConnectError, SessionEndedError
from guest.client_connection import FALLEN_SILENT
from guest.nic_changes import Attached, Detached, Resized
from guest.places import Places
from guest.vm_client import choose_kind, vm_client
from netstack import control
from netstack.counters import Counters
from netstack.encapsulation import Kind
from transport.certificates import EphemeralCertificateStore
from transport.quic.endpoint import Endpoint

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"
ASSIGNED = control.encode_assigned(
    bytes([10, 0, 2, 77]), bytes([10, 0, 2, 2]), bytes([255, 255, 255, 0]), bytes([8, 8, 8, 8])
)


def on_scripted_relay(scenario, answer):
    """Run ``scenario(url, relay)`` on a relay that answers control messages by ``answer(relay, fields)``.

    ``answer`` returns datagrams, or None to close the session.
    """

    class Script:
        def __init__(self):
            self.heard = []
            self.sessions = []
            self.closed = []

        def open_session(self, session):
            self.sessions.append(session)
            return Peer(session)

    class Peer:
        def __init__(self, session):
            self.session = session

        def tell(self, message):
            if isinstance(message, SessionClosed):
                script.closed.append(message)
            if not isinstance(message, DatagramsFromClient):
                return
            for datagram in message.datagrams:
                fields = json.loads(datagram[1:])
                script.heard.append(fields)
                datagrams = answer(script, fields)
                if datagrams is None:
                    self.session.close(4, "another session took the MAC over")
                else:
                    self.session.send(datagrams)

    script = Script()

    async def main():
        endpoint = Endpoint(
            host="127.0.0.1",
            port=0,
            certificates=EphemeralCertificateStore(["127.0.0.1"], datetime.now(UTC)),
            admission=OpenDoor(script.open_session),
            turns=current_scheduler(),
            counters=Counters(),
        )
        await endpoint.start()
        try:
            await asyncio.wait_for(scenario(f"https://127.0.0.1:{endpoint.port}/", script), 30)
        finally:
            endpoint.close(0, "")
            await endpoint.wait_closed()

    asyncio.run(main())


async def answer_to(nic, request, *, wanted):
    """Send a packet and return the first that comes for which ``wanted(packet)``."""
    nic.send([bytes(request)])
    async with asyncio.timeout(20):
        while True:
            for frame in await nic.recv_batch():
                if wanted(packet := Ether(frame)):
                    return packet


def echo_request(nic, size, sequence=1):
    mac = nic.mac.hex(":")
    packet = IP(src=str(nic.assigned.ip), dst=GATEWAY) / ICMP(id=7, seq=sequence) / Raw(bytes(size))
    return Ether(src=mac, dst=GATEWAY_MAC) / packet


# -- on a real relay ----------------------------------------------------------------------------------


def test_it_gets_an_address_and_reaches_the_gateway(live_relay):
    async def scenario():
        async with vm_client(live_relay.url, cert_hash=live_relay.hash) as nic:
            assert nic.attached
            assert nic.assigned.gateway == IPv4Address(GATEWAY)
            assert nic.assigned.interface.network == IPv4Interface(f"{GATEWAY}/24").network
            question = ARP(hwsrc=nic.mac.hex(":"), psrc=str(nic.assigned.ip), pdst=GATEWAY)
            found = await answer_to(
                nic, Ether(src=nic.mac.hex(":"), dst=BROADCAST) / question, wanted=lambda p: ARP in p
            )
            assert found[ARP].hwsrc == GATEWAY_MAC
            for size in (0, 900, 1472):
                pong = await answer_to(nic, echo_request(nic, size), wanted=lambda p: ICMP in p)
                assert (pong[ICMP].type, pong[ICMP].id, len(pong[ICMP].payload)) == (0, 7, size)

    asyncio.run(scenario())


def test_the_mac_keeps_its_address(live_relay):
    async def scenario():
        addresses = []
        for mac in ("52:54:00:00:10:01", b"\x52\x54\x00\x00\x10\x01"):
            async with vm_client(live_relay.url, insecure=True, mac=mac) as nic:
                assert nic.mac == b"\x52\x54\x00\x00\x10\x01"
                addresses.append(nic.assigned.ip)
        assert addresses[0] == addresses[1]

    asyncio.run(scenario())


def test_framed_and_raw_nics_talk_to_each_other(live_relay):
    async def scenario():
        async with (
            vm_client(live_relay.url, insecure=True) as framed,
            vm_client(live_relay.url, insecure=True, encap="raw") as raw,
        ):
            assert raw.assigned is None
            assert raw.mtu == 1141
            hello = Ether(src=raw.mac.hex(":"), dst=BROADCAST, type=0x88B5) / Raw(b"hello")
            assert await answer_to(raw_to(raw, framed), hello, wanted=lambda p: p.type == 0x88B5) == hello
            full = Ether(src=framed.mac.hex(":"), dst=raw.mac.hex(":"), type=0x88B5) / Raw(bytes(raw.mtu))
            assert await answer_to(raw_to(framed, raw), full, wanted=lambda p: p.type == 0x88B5) == full

    asyncio.run(scenario())


class raw_to:  # noqa: N801 - reads as a function
    """One NIC to send on, another to receive on."""

    def __init__(self, sender, receiver):
        self.send = sender.send
        self.recv_batch = receiver.recv_batch


def test_full_frames_travel_in_chunks_between_nics(live_relay):
    async def scenario():
        async with (
            vm_client(live_relay.url, insecure=True) as one,
            vm_client(live_relay.url, insecure=True) as two,
        ):
            frames = [
                bytes(Ether(src=one.mac.hex(":"), dst=two.mac.hex(":"), type=0x88B5)) + bytes([n]) * 1500
                for n in range(20)
            ]
            one.send(frames)
            got = []
            async with asyncio.timeout(20):
                async for batch in two:
                    got += [frame for frame in batch if frame[12:14] == b"\x88\xb5"]
                    if len(got) == len(frames):
                        break
            assert got == frames

    asyncio.run(scenario())


def test_a_restart_of_the_relay_is_survived_with_mac_and_address(certificate_options):
    async def scenario():
        changes = []
        relay = Relay(*certificate_options)
        try:
            async with vm_client(
                relay.url, cert_hash=relay.hash, reconnect=True, on_change=changes.append
            ) as nic:
                before = nic.assigned
                relay.stop()
                await until(lambda: not nic.attached)
                nic.send([bytes(60)])
                assert nic.counters["nic.drop.detached"] == 1
                relay = Relay(*certificate_options, "--port", relay.port)
                await until(lambda: nic.attached)
                assert nic.assigned.interface == before.interface
                pong = await answer_to(nic, echo_request(nic, 10), wanted=lambda p: ICMP in p)
                assert pong[ICMP].type == 0
        finally:
            relay.stop()
        # Besides, the path's packet size may have become known.
        first, lost, *_, again = [change for change in changes if not isinstance(change, Resized)]
        assert isinstance(first, Attached)
        assert isinstance(lost, Detached)
        assert lost.reason == "relay is shutting down"
        assert again.assigned.interface == first.assigned.interface

    asyncio.run(scenario())


def test_a_session_that_was_lost_is_gone_on_with_and_one_that_was_left_is_not(fresh_relay):
    async def scenario():
        async with vm_client(fresh_relay.url, cert_hash=fresh_relay.hash, reconnect=True) as nic:
            for losses in range(1, 4):
                address, session = nic.assigned.interface, nic._session
                session.abandon("the network is gone")
                await until(lambda session=session: nic.attached and nic._session is not session)
                assert nic.assigned.interface == address
                counters = await asyncio.to_thread(fresh_relay.counters)
                assert (counters["peer.absences"], counters["switch.resumed"]) == (losses, losses)
        await asyncio.to_thread(
            fresh_relay.wait_for, "peer .* (closed: disconnected|left: the client leaves)"
        )
        assert (await asyncio.to_thread(fresh_relay.counters))["peer.absences"] == 3

    asyncio.run(scenario())


def test_without_reconnect_the_end_is_told():
    async def scenario():
        relay = Relay()
        try:
            async with vm_client(relay.url, cert_hash=relay.hash) as nic:
                relay.stop()
                async for _ in nic:
                    pass
                with pytest.raises(SessionEndedError, match="relay is shutting down"):
                    await nic.recv_batch()
                nic.send([bytes(60)])
                await nic.wait_writable()
        finally:
            relay.stop()

    asyncio.run(scenario())


def test_leaving_is_told_to_the_relay(fresh_relay):
    async def scenario():
        async with vm_client(fresh_relay.url, insecure=True, mac="52:54:00:00:10:02"):
            return fresh_relay.wait_for(r"peer (\d+) registered 52:54:00:00:10:02")[1]

    number = asyncio.run(scenario())
    fresh_relay.wait_for(rf"peer {number} closed: disconnected")


# -- on relays with a script --------------------------------------------------------------------------


def test_register_is_repeated_until_it_is_answered():
    async def scenario(url, relay):
        async with vm_client(url, insecure=True, mac="52:54:00:00:00:01", name="") as nic:
            assert nic.assigned.ip == IPv4Address("10.0.2.77")
        assert relay.heard[:3] == [{"type": "Register", "mac": [0x52, 0x54, 0, 0, 0, 1]}] * 3

    on_scripted_relay(scenario, lambda relay, _: [ASSIGNED] if len(relay.heard) == 3 else [])


@pytest.mark.parametrize(
    ("machine", "given", "registered"),
    [
        ("builder", None, "builder"),
        ("builder.example.org", None, "builder"),
        ("localhost", None, None),
        ("builder", "web", "web"),
        ("builder", "", None),
    ],
)
def test_it_registers_what_its_machine_is_called(monkeypatch, machine, given, registered):
    monkeypatch.setattr(vm_client_module.socket, "gethostname", lambda: machine)

    async def scenario(url, relay):
        async with vm_client(url, insecure=True, name=given):
            assert relay.heard[0].get("name") == registered

    on_scripted_relay(scenario, lambda *_: [ASSIGNED])


def test_without_an_answer_it_gives_up(monkeypatch):
    monkeypatch.setattr(vm_client_module, "REGISTER_DELAYS", (0.01, 0.01))

    async def scenario(url, relay):
        with pytest.raises(ConnectError, match="the relay gives no address"):
            async with vm_client(url, insecure=True):
                pass
        await until(lambda: relay.closed)
        # No goodbye: the relay may have given an address all the same, and the next session is to have it.
        assert relay.closed[0].lost

    on_scripted_relay(
        scenario, lambda *_: [b"\0garbage", b"\0[]", b"\0{}", b'\0{"type":"Assigned","ip":[1]}']
    )


def test_a_refusal_is_shown_in_one_line():
    async def scenario(url, _):
        with pytest.raises(ConnectError, match=r"^127\.0\.0\.1:\d+: the LAN is full \[0m$"):
            async with vm_client(url, insecure=True, reconnect=True):
                pass

    on_scripted_relay(scenario, lambda *_: [control.encode_error("the LAN\nis full\x1b[0m")])


def test_a_session_that_ends_during_the_registration_is_an_error():
    async def scenario(url, _):
        with pytest.raises(ConnectError, match="another session took the MAC over"):
            async with vm_client(url, insecure=True):
                pass

    on_scripted_relay(scenario, lambda *_: None)


def test_heartbeats_and_a_new_address(monkeypatch):
    monkeypatch.setattr(vm_client_module, "HEARTBEAT_INTERVAL", 0.05)
    other = ASSIGNED.replace(b"77", b"78").replace(b"}", b',"mtu":1142,"room":"blue"}')

    def answer(_, fields):
        return [ASSIGNED] if fields["type"] == "Register" else [control.HEARTBEAT_ACK, ASSIGNED, other]

    async def scenario(url, relay):
        changes = []
        async with vm_client(url, insecure=True, on_change=changes.append) as nic:
            await until(lambda: relay.heard.count({"type": "Heartbeat"}) > 1)
            assert nic.assigned.ip == IPv4Address("10.0.2.78")
            assert nic.mtu == 1142
        await until(lambda: relay.closed)
        assert relay.heard[-1] == {"type": "Disconnect"}
        assert [change.assigned.ip.packed[3] for change in changes[:2]] == [77, 78]
        assert [change.mtu for change in changes[:2]] == [1500, 1142]

    on_scripted_relay(scenario, answer)


def test_a_relay_that_forgot_all_is_told_what_it_had_given():
    def answer(relay, fields):
        if fields["type"] != "Register" or len(relay.sessions) == 1 < len(relay.heard):
            return None
        return [ASSIGNED]

    async def scenario(url, relay):
        async with vm_client(url, insecure=True, reconnect=True, name="") as nic:
            nic._say(type="Heartbeat")
            await until(lambda: len(relay.sessions) == 2 and nic.attached)
        registers = [fields.get("ip") for fields in relay.heard if fields["type"] == "Register"]
        assert registers == [None, [10, 0, 2, 77]]

    on_scripted_relay(scenario, answer)


def test_another_mtu_is_told_as_such(monkeypatch):
    monkeypatch.setattr(vm_client_module, "EARLY_HEARTBEATS", (0.01, 0.01, 0.01))
    mtus = iter((1280, 1280, 1392, 1392))

    def answer(_, fields):
        if fields["type"] == "Disconnect":
            return []
        mtu = next(mtus, 1392)
        return [ASSIGNED.replace(b"}", b',"mtu":%d}' % mtu)]

    async def scenario(url, _):
        changes = []
        async with vm_client(url, insecure=True, on_change=changes.append) as nic:
            await until(lambda: len(changes) > 1)
            assert changes == [Attached(nic.assigned._replace(mtu=1280), 1280, url), Resized(1392)]
            assert nic.mtu == 1392

    on_scripted_relay(scenario, answer)


@pytest.mark.parametrize("kind", [Attached, Resized])
def test_when_a_change_cannot_be_told_no_session_is_left_behind(monkeypatch, kind):
    monkeypatch.setattr(vm_client_module, "EARLY_HEARTBEATS", (0.01, 0.01, 0.01))
    mtus = iter((1280, 1392))

    def on_change(change):
        if type(change) is kind:
            raise RuntimeError("the device is down")

    async def scenario(url, relay):
        with pytest.raises(RuntimeError, match="the device is down"):
            async with vm_client(url, insecure=True, on_change=on_change):
                await until(lambda: relay.closed)
        await until(lambda: relay.closed)
        # No goodbye: the next session is to have what this one had.
        assert relay.closed[0].lost

    on_scripted_relay(scenario, lambda *_: [ASSIGNED.replace(b"}", b',"mtu":%d}' % next(mtus, 1392))])


def test_a_relay_is_watched_from_when_another_is_named(monkeypatch):
    monkeypatch.setattr(vm_client_module, "EARLY_HEARTBEATS", ())
    monkeypatch.setattr(vm_client_module, "HEARTBEAT_INTERVAL", 600)
    monkeypatch.setattr(vm_client_module, "WATCHFUL_INTERVAL", 0.05)
    monkeypatch.setattr(vm_client_module, "ANSWERED_WITHIN", 0.05)
    changes = []

    async def scenario(url, relay):
        async with vm_client(url, insecure=True, reconnect=True, on_change=changes.append):
            # The wait for the first heartbeat is that of a client that has nowhere else to go.
            relay.sessions[0].send(
                [ASSIGNED.replace(b"}", b',"urls":["%s","https://127.0.0.1:9"]}' % url.encode())]
            )
            await until(lambda: len(changes) > 1)
        assert changes[1].reason == vm_client_module.SILENT
        assert [fields["type"] for fields in relay.heard].count("Heartbeat") == vm_client_module.MISSED_BEATS

    on_scripted_relay(scenario, lambda _, fields: [ASSIGNED] if fields["type"] == "Register" else [])


def test_who_hears_nothing_by_quic_alone_goes_elsewhere_at_once():
    """A raw client, which has no heartbeats: to ask where nobody answers would take another 3 s."""
    other = "https://127.0.0.1:9/?encap=raw"

    async def scenario(url, _):
        entered, seen = [], []

        def on_change(change):
            if isinstance(change, Detached):
                seen.append((change.reason, entered[0].url))

        urls = [f"{url}?encap=raw", other]
        async with vm_client(urls, insecure=True, reconnect=True, on_change=on_change) as nic:
            entered.append(nic)
            nic._session.abandon(FALLEN_SILENT)  # as at the end of QUIC's idle timeout
            await until(lambda: seen)
        assert seen[0] == (FALLEN_SILENT, other)

    on_scripted_relay(scenario, lambda *_: [])


def test_attempts_are_further_and_further_apart(monkeypatch):
    monkeypatch.setattr(retry_delays, "FIRST_WITHIN", 0.005)
    monkeypatch.setattr(retry_delays, "SOON", 0.01)
    monkeypatch.setattr(retry_delays, "SOON_ATTEMPTS", 1)
    monkeypatch.setattr(retry_delays, "LAST", 0.05)

    def answer(relay, _):
        # The first session is given an address and then thrown out; the others are refused.
        return [ASSIGNED] if len(relay.sessions) == 1 else None

    async def scenario(url, relay):
        changes = []
        async with vm_client(url, insecure=True, reconnect=True, on_change=changes.append):
            relay.sessions[0].close(4, "thrown out")
            await until(lambda: len(changes) > 7)
        waits = [change.retry_in for change in changes[1:]]
        assert changes[1].reason == "thrown out"
        assert waits[0] <= 0.005
        for wait, nominal in zip(waits[1:], (0.01, 0.02, 0.04, 0.05, 0.05), strict=False):
            assert 0.74 * nominal <= wait <= 1.26 * nominal

    on_scripted_relay(scenario, answer)


@pytest.mark.parametrize(
    ("permanent", "hurried"), [([True], False), ([True, True], False), ([False], True), ([True, False], True)]
)
def test_relays_that_would_all_refuse_again_are_not_asked_soon(monkeypatch, permanent, hurried):
    monkeypatch.setattr(vm_client_module, "CONNECT_ELSEWHERE", 30.0)
    monkeypatch.setattr(retry_delays, "FIRST_WITHIN", 0.0)
    monkeypatch.setattr(retry_delays, "SOON", 0.001)
    other = "https://127.0.0.1:9/"

    async def refuse(url, *_, **__):
        raise ConnectError("not for you", permanent=permanent[url == other])

    async def scenario(url, relay):
        waits = []

        def on_change(change):
            if isinstance(change, Detached):
                waits.append(change.retry_in)

        urls = [url, other][: len(permanent)]
        async with vm_client(urls, insecure=True, reconnect=True, on_change=on_change):
            monkeypatch.setattr(vm_client_module, "connect", refuse)
            relay.sessions[0].close(9, "the token has expired")
            await until(lambda: len(waits) > 9)
        if hurried:
            assert max(waits) <= 0.00126
        else:
            assert waits[9] >= 0.74 * 0.001 * 2**7

    on_scripted_relay(scenario, lambda *_: [ASSIGNED])


@pytest.mark.parametrize("token", [None, "", lambda: None, lambda: ""])
def test_who_has_no_token_shows_none(token):
    async def scenario(url, _):
        async with vm_client(url, token=token, insecure=True) as nic:
            assert nic._session.target.authorization == {}

    on_scripted_relay(scenario, lambda *_: [ASSIGNED])


def test_a_token_that_cannot_be_had_for_a_while_is_asked_for_again():
    changes, answers = [], iter(["", OSError("the issuer\nis away"), LookupError(), ""])

    def token():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario(url, relay):
        async with vm_client(
            url, token=token, insecure=True, reconnect=True, on_change=changes.append
        ) as nic:
            relay.sessions[0].close(0, "bye")
            await until(lambda: len(relay.sessions) == 2 and nic.attached)
        reasons = [change.reason for change in changes if isinstance(change, Detached)]
        assert reasons == ["bye", "no token: the issuer is away", "no token: LookupError"]
        with pytest.raises(ConnectError, match="no token: StopIteration"):
            await vm_client(url, token=token, insecure=True).__aenter__()

    on_scripted_relay(scenario, lambda *_: [ASSIGNED])


def test_a_patient_client_waits_for_its_relay_unless_that_is_useless():
    async def scenario(url, _):
        with pytest.raises(ConnectError, match="not the one to be trusted"):
            async with vm_client(url, cert_hash="00" * 32, reconnect=True, patient=True):
                pass
        changes = []
        async with vm_client(
            url, insecure=True, reconnect=True, patient=True, on_change=changes.append
        ) as nic:
            assert not nic.attached
            await until(lambda: nic.attached)
        assert [type(change) for change in changes] == [Detached, Attached]

    def answer(relay, fields):
        if fields["type"] != "Register":
            return []
        return [ASSIGNED] if len(relay.sessions) > 1 else [control.encode_error("not yet")]

    on_scripted_relay(scenario, answer)


def test_received_frames_are_bounded(monkeypatch):
    monkeypatch.setattr(vm_client_module, "FRAME_QUEUE", 3)

    async def scenario(url, relay):
        async with vm_client(url, insecure=True) as nic:
            relay.sessions[0].send([b"\1" + bytes([n]) * 60 for n in range(10)])
            await until(lambda: nic.counters["nic.drop.receive_queue"] == 7)
            assert [frame[0] for frame in await nic.recv_batch()] == [7, 8, 9]

    on_scripted_relay(scenario, lambda *_: [ASSIGNED])


@settings(derandomize=True, max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=6)
                | st.dictionaries(
                    st.sampled_from(["type", "ip", "gateway", "netmask", "dns", "mtu", "message"]), inner
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {"type": st.just("Assigned")}
            | {
                name: st.lists(st.integers(-1, 256), max_size=5)
                for name in ("ip", "gateway", "netmask", "dns")
            }
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_control_message_harms(text):
    nic = vm_client_module.VirtualNic(
        places=Places(["https://127.0.0.1/"]),
        mac=bytes(6),
        kind=Kind.FRAMED,
        trust=None,
        counters=Counters(),
        on_change=lambda _: None,
    )
    nic._on_control(text)


@pytest.mark.parametrize(
    ("url", "wanted", "result"),
    [
        ("https://r:1/", None, ("https://r:1/", Kind.FRAMED)),
        ("https://r:1/", "framed", ("https://r:1/", Kind.FRAMED)),
        ("https://r:1", "raw", ("https://r:1/?encap=raw", Kind.RAW)),
        ("https://r:1/?room=a", "raw", ("https://r:1/?room=a&encap=raw", Kind.RAW)),
        ("https://r:1/?encap=raw", None, ("https://r:1/?encap=raw", Kind.RAW)),
        ("https://r:1/?encap=raw", "raw", ("https://r:1/?encap=raw", Kind.RAW)),
        ("https://r:1/raw", None, ("https://r:1/raw", Kind.RAW)),
        ("https://r:1/room/a/raw?token=t", "raw", ("https://r:1/room/a/raw?token=t", Kind.RAW)),
        ("https://r:1/raw?encap=framed", None, ("https://r:1/raw?encap=framed", Kind.FRAMED)),
        ("https://r:1/room/raw", None, ("https://r:1/room/raw", Kind.FRAMED)),
    ],
)
def test_the_encapsulation_is_settled(url, wanted, result):
    assert choose_kind(url, wanted) == result


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "http://r/"},
        {"url": "https://r/?encap=raw", "encap": "framed"},
        {"url": "https://r/raw", "encap": "framed"},
        {"url": "https://r/?encap=odd"},
        {"encap": "odd"},
        {"mac": "52:54:00"},
        {"mac": "01:00:5e:00:00:01"},
        {"mac": b"\0" * 6},
        {"cert_hash": "abc"},
        {"token": "a b"},
        {"token": 7},
        {"token": lambda: 7},
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(arguments):
    async def scenario():
        with pytest.raises(ValueError, match=r"."):
            async with vm_client(**({"url": "https://r/"} | arguments)):
                pass

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(scenario())

from __future__ import annotations

import pytest

from actors.lan.registration import IMPLICIT_RETRY, MAC_CHANGE_BURST, MAC_CHANGE_RATE, Registration
from actors.messages import AddressAssigned
from netstack.control import Register

MAC, OTHER, GATEWAY = (bytes.fromhex(text) for text in ("525400000001", "525400000002", "52540012 3456"))
GROUP = bytes.fromhex("01005e000001")
IP = bytes((10, 0, 2, 15))


def frames_of(*sources):
    return [bytes(6) + source + bytes(50) for source in sources]


def ask(registration, mac, *, explicit=True, name=""):
    return registration.ask(Register(mac, name), 1, explicit=explicit, stays=False)


@pytest.fixture
def registration():
    return Registration("", 0.0)


def test_the_first_usable_source_is_what_a_frame_registers(registration):
    said = registration.implied(frames_of(GROUP, GATEWAY, MAC, OTHER), GATEWAY, 0.0)
    assert said == Register(MAC)
    assert registration.implied(frames_of(MAC), GATEWAY, 0.9 * IMPLICIT_RETRY) is None
    assert registration.implied(frames_of(OTHER), GATEWAY, 1.1 * IMPLICIT_RETRY) == Register(OTHER)


def test_frames_without_a_usable_source_cost_no_attempt(registration):
    assert registration.implied(frames_of(GROUP, GATEWAY), GATEWAY, 0.0) is None
    assert registration.implied(frames_of(MAC), GATEWAY, 0.0) == Register(MAC)


def test_no_frame_speaks_for_a_client_that_has_asked_itself(registration):
    ask(registration, OTHER)
    assert registration.implied(frames_of(MAC), GATEWAY, 0.0) is None
    registration.mac = None  # it was refused
    assert registration.implied(frames_of(MAC), GATEWAY, 0.0) == Register(MAC)


def test_a_session_changes_its_mac_only_so_often(registration):
    assignment = AddressAssigned(MAC, IP, bytes(4), bytes(4), bytes(4))
    assert all(registration.may_change(OTHER, None, 0.0) for _ in range(200)), "it has no address yet"
    assert all(registration.may_change(MAC, assignment, 0.0) for _ in range(200)), "that is no change"
    assert sum(registration.may_change(OTHER, assignment, 0.0) for _ in range(200)) == MAC_CHANGE_BURST
    assert registration.may_change(OTHER, assignment, 1.01 / MAC_CHANGE_RATE)
    assert not registration.may_change(OTHER, assignment, 1.01 / MAC_CHANGE_RATE)


@pytest.mark.parametrize(("granted", "called"), [("", "web"), ("printer", "printer")])
def test_a_granted_name_is_the_guest_s_whatever_its_client_says(granted, called):
    registration = Registration(granted, 0.0)
    asked = ask(registration, MAC, name="web")
    assert (asked.name, asked.name_is_fixed) == (called, bool(granted))
    assert registration.called == called


def test_who_has_a_name_by_its_token_repeats_itself_whatever_it_says():
    registration = Registration("db", 0.0)
    ask(registration, MAC, name="web")
    assert registration.is_repeated_by(Register(MAC, "web"))
    assert not registration.is_repeated_by(Register(OTHER, "web"))


def test_a_refusal_is_new_once(registration):
    assert registration.refuse(MAC, "taken")
    assert not registration.refuse(MAC, "taken")
    assert registration.refuse(MAC, "not a station's")
    assert registration.refuse(OTHER, "not a station's")

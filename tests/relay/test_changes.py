"""What commands change on a running relay, run as a user runs them, with guests on it."""

from __future__ import annotations

import re
import sys

import pytest
from operators import GUEST_MAC, OperatedRelay, pings
from processes import free_port, run

from guest.client import ConnectError
from guest.relay_socket import RelayPeer


def port_of(relay):
    (peer,) = [peer for peer in relay.asked("peers") if peer["mac"] == GUEST_MAC]
    return peer["port"]


def test_a_forward_comes_and_goes_while_the_relay_runs(relay):
    port = free_port()
    forward = f"tcp:127.0.0.1:{port}:web:80"
    assert forward in relay.vmrelay("forwards", "--add", forward)
    assert [item["forward"] for item in relay.asked("forwards")["default"]] == [forward]
    with_same_port = relay.vmrelay("forwards", "--add", f"tcp:127.0.0.1:{port}:other:80", status=1)
    assert "Address already in use" in with_same_port
    relay.vmrelay("forwards", "--remove", f"tcp:127.0.0.1:{port}")
    assert relay.asked("forwards")["default"] == []
    assert "has no forward" in relay.vmrelay("forwards", "--remove", forward, status=1)
    relay.vmrelay("forwards", "--add", forward)  # the port is free again
    relay.vmrelay("forwards", "--remove", f"tcp::{port}")
    assert relay.asked("forwards")["default"] == []


def test_a_session_is_ended_with_a_reason(relay):
    peer = RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, reconnect=False)
    relay.vmrelay("disconnect", port_of(relay), "--reason", "go home")
    relay.wait_for("go home")
    peer.close()
    assert "there is no session" in relay.vmrelay("disconnect", "999999", status=1)


def test_a_session_is_ended_by_the_name_of_its_guest(relay):
    peer = RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, name="tenant", reconnect=False)
    relay.vmrelay("disconnect", "tenant", "--reason", "moved out")
    relay.wait_for("moved out")
    peer.close()
    assert "no session is called tenant" in relay.vmrelay("disconnect", "tenant", status=1)


def test_a_banned_address_is_out_until_the_ban_is_lifted(relay, guest):
    said = relay.vmrelay("ban", "address=127.0.0.0/8", "--time", "10m", "--reason", "noise")
    assert "1 sessions were ended" in said
    with pytest.raises(ConnectError, match=r"403|Banned by the operator: noise"):
        RelayPeer(relay.url, insecure=True)
    assert re.search(r"address:127.0.0.0/8 +9m5\ds +noise", relay.vmrelay("ban"))
    relay.vmrelay("ban", "--lift", "address:127.0.0.0/8")
    RelayPeer(relay.url, insecure=True).close()
    assert "there is no ban" in relay.vmrelay("ban", "--lift", "address:127.0.0.0/8", status=1)


def test_a_banned_mac_gets_no_address_on_any_room(relay):
    first = RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, reconnect=False)
    assert "1 sessions were ended" in relay.vmrelay("ban", f"mac={GUEST_MAC.upper()}")
    first.close()
    for url in (relay.url, f"{relay.url}room/after"):
        with pytest.raises(ConnectError, match="not one that a guest may have"):
            RelayPeer(url, insecure=True, mac=GUEST_MAC)
    relay.vmrelay("ban", "--lift", f"mac:{GUEST_MAC}")
    RelayPeer(relay.url, insecure=True, mac=GUEST_MAC).close()


def test_a_banned_token_ends_its_sessions_and_no_others(tmp_path):
    keys = tmp_path / "keys.json"

    def token_command(*words):
        return run(sys.executable, "-m", "relay.main", "token", *words).stdout.strip()

    token_command("key", keys)
    tokens = {name: token_command("create", keys, "--id", name) for name in ("lost", "kept")}
    relay = OperatedRelay(tmp_path, "--auth", "required", "--auth-keys", keys)
    try:
        peers = {
            name: RelayPeer(f"{relay.url}?token={token}", insecure=True, reconnect=False)
            for name, token in tokens.items()
        }
        assert "1 sessions were ended" in relay.vmrelay("ban", "token=lost", "--reason", "enough")
        relay.wait_for("enough")
        assert len(relay.asked("peers")) == 1
        with pytest.raises(ConnectError, match=r"403|enough"):
            RelayPeer(f"{relay.url}?token={tokens['lost']}", insecure=True)
        relay.vmrelay("ban", "--lift", "token:lost")
        RelayPeer(f"{relay.url}?token={tokens['lost']}", insecure=True).close()
        for peer in peers.values():
            peer.close()
    finally:
        relay.stop()


def test_a_draining_relay_takes_nobody_new_and_keeps_whom_it_has(relay, guest):
    relay.vmrelay("drain")
    with pytest.raises(ConnectError, match=r"503|takes no new sessions"):
        RelayPeer(relay.url, insecure=True)
    pings(guest)
    relay.vmrelay("drain", "--end")
    RelayPeer(relay.url, insecure=True).close()


def test_changes_stand_in_the_log_with_who_asked(relay):
    relay.vmrelay("drain")
    relay.vmrelay("drain", "--end")
    assert relay.wait_for(r"the operator \(\S+\) ended the draining")


def test_a_relay_of_one_process_has_no_workers_to_replace(relay):
    assert "--workers makes several" in relay.vmrelay("restart", status=1)

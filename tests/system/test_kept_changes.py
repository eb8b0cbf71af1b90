"""What operators change while the relay runs holds in the next one, however this one ends."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest
from operators import OperatedRelay
from processes import free_port

from guest.client import ConnectError
from guest.relay_socket import RelayPeer

MAC = "52:54:00:00:77:09"


@pytest.fixture
def start(tmp_path):
    """Start a relay with the state of those before it."""
    relays = []

    def start(*options, state=tmp_path / "state"):
        relays.append(OperatedRelay(tmp_path, "--state", state, *options))
        return relays[-1]

    yield start
    for relay in relays:
        relay.stop()


def kill(relay):
    relay.signal(signal.SIGKILL)
    relay.wait()


def is_open(port, host="127.0.0.1"):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


def forwards(relay, room="default"):
    return [item["forward"] for item in relay.asked("forwards")[room]]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_forward_that_was_added_is_open_in_the_next_relay(start, host):
    port = free_port()
    relay = start()
    relay.vmrelay("forwards", "--add", f"tcp:{f'[{host}]' if ':' in host else host}:{port}:web:80")
    kill(relay)
    assert not is_open(port, host)
    relay = start()
    assert is_open(port, host)
    relay.vmrelay("forwards", "--remove", *forwards(relay))
    kill(relay)
    start()
    assert not is_open(port, host)


def test_a_forward_of_the_configuration_stays_closed_until_it_is_added_again(start):
    port = free_port()
    forward = f"tcp:127.0.0.1:{port}:web:80"
    relay = start("--forward", forward)
    relay.vmrelay("forwards", "--remove", forward)
    kill(relay)
    relay = start("--forward", forward)
    relay.wait_for(rf"the forward {forward} stays closed")
    assert not is_open(port)
    relay.vmrelay("reload")
    assert not is_open(port)
    relay.vmrelay("forwards", "--add", forward)
    kill(relay)
    start("--forward", forward)
    assert is_open(port)


def test_a_forward_that_was_added_and_is_configured_too_follows_the_configuration(start):
    port = free_port()
    forward = f"tcp:127.0.0.1:{port}:web:80"
    relay = start()
    relay.vmrelay("forwards", "--add", forward)
    kill(relay)
    relay = start("--forward", forward)
    assert forwards(relay) == [forward]
    kill(relay)
    start()
    assert not is_open(port)


def test_a_forward_whose_port_is_taken_costs_the_next_relay_a_line_and_nothing_else(start):
    port = free_port()
    relay = start()
    relay.vmrelay("forwards", "--add", f"tcp:127.0.0.1:{port}:web:80")
    kill(relay)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        relay = start()
        relay.wait_for(f"cannot forward tcp:127.0.0.1:{port}:web:80: Address already in use")
        relay.vmrelay("forwards", "--remove", f"tcp:127.0.0.1:{port}")
    kill(relay)
    start()
    assert not is_open(port)


def test_several_workers_keep_changes_as_one_does(start):
    forward = f"tcp:127.0.0.1:{free_port()}:web:80"
    relay = start("--workers", 2)
    relay.vmrelay("forwards", "--add", forward)
    relay.vmrelay("ban", f"mac={MAC}")
    kill(relay)
    relay = start("--workers", 2)
    assert forwards(relay) == [forward]
    assert [ban["id"] for ban in relay.asked("ban")] == [f"mac:{MAC}"]
    relay.vmrelay("forwards", "--remove", forward)
    kill(relay)
    assert forwards(start("--workers", 2)) == []


def test_a_damaged_database_of_leases_is_put_aside_before_there_are_workers(start, tmp_path):
    state, content = tmp_path / "state", b"no database at all" * 99
    state.mkdir(0o700)
    (state / "leases.db").write_bytes(content)
    relay = start("--workers", 2)
    [said] = [json.loads(line) for line in relay.output.splitlines() if "leases.db" in line]
    assert "is damaged" in said["message"]
    assert "worker" not in said["fields"], "they would be in each other's way"
    assert (state / "leases.damaged").read_bytes() == content


def test_a_forward_of_a_room_comes_with_the_room(start):
    port = free_port()
    relay = start()
    RelayPeer(f"{relay.url}room/lab", insecure=True).close()
    relay.vmrelay("forwards", "--room", "lab", "--add", f"tcp:127.0.0.1:{port}:web:80")
    kill(relay)
    relay = start()
    assert not is_open(port)
    guest = RelayPeer(f"{relay.url}room/lab", insecure=True)
    assert is_open(port)
    guest.close()


def test_who_was_banned_is_out_of_the_next_relay_too(start):
    relay = start()
    relay.vmrelay("ban", f"mac={MAC}")
    relay.vmrelay("ban", "address=192.0.2.0/24", "--time", "10m", "--reason", "noise")
    relay.vmrelay("ban", "token=t1", "--time", "1s")
    kill(relay)
    relay = start()
    assert re.search(r"address:192.0.2.0/24 +9m\d+s +noise", relay.vmrelay("ban"))
    with pytest.raises(ConnectError, match="not one that a guest may have"):
        RelayPeer(relay.url, insecure=True, mac=MAC)
    relay.vmrelay("ban", "--lift", f"mac:{MAC}")
    kill(relay)
    relay = start()
    RelayPeer(relay.url, insecure=True, mac=MAC).close()
    assert [ban["kind"] for ban in relay.asked("ban")] == ["address"]


def test_without_state_nothing_is_kept(start):
    port = free_port()
    relay = start(state="none")
    relay.vmrelay("forwards", "--add", f"tcp:127.0.0.1:{port}:web:80")
    relay.vmrelay("ban", f"mac={MAC}")
    kill(relay)
    relay = start(state="none")
    assert not is_open(port)
    assert relay.asked("ban") == []

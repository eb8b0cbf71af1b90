"""The connection page and the dashboard in Firefox too; all that they do is tried in Chromium."""

from __future__ import annotations

import json
import sys

import firefox
import pytest
from operators import OperatedRelay
from processes import Program, free_port

from guest.relay_socket import RelayPeer

MAC = "52:54:00:00:77:03"

pytestmark = pytest.mark.skipif(firefox.PROGRAM is None, reason="there is no Firefox")


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    relay = OperatedRelay(tmp_path_factory.mktemp("admin"), "--host-access")
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with firefox.firefox(tmp_path_factory.mktemp("home")) as tab:
        yield tab


@pytest.fixture
def tab(browser):
    browser.complaints.clear()
    yield browser
    assert browser.complaints == []


def wait_for(tab, condition, text="''"):
    """Wait in the page until something holds; gives a text of it."""
    return tab.evaluate(
        f"""new Promise((done) => {{
          const look = () => {condition} ? done(String({text})) : setTimeout(look, 50);
          look();
        }})"""
    )


def test_the_connection_page_tests_both_carriers(tab, relay):
    tab.open(f"http://127.0.0.1:{relay.port}/")
    wait_for(tab, "document.querySelector('#copy:enabled')")
    assert tab.evaluate("document.getElementById('hash').innerText") == relay.hash
    tab.evaluate("document.getElementById('name').value = 'gateway.vm.internal'")
    tab.evaluate("document.querySelector('#test button').click()")
    said = wait_for(
        tab, "document.querySelector('#verdict li')", "document.getElementById('verdict').innerText"
    )
    assert "Both carriers get through" in said
    assert "The LAN works" in said
    assert "10.0.2.2 at 52:54:00:12:34:56" in tab.evaluate("document.getElementById('results').innerText")


def test_the_dashboard_shows_a_session_and_adds_and_removes_a_forward(tab, relay):
    command = Program(sys.executable, "-m", "relay.main", "dashboard", "--admin", relay.admin)
    guest = RelayPeer(relay.url, insecure=True, mac=MAC, name="web", reconnect=False)
    try:
        tab.open(command.wait_for(r"^http://127\.0\.0\.1:\d+/dashboard/#token=.*$")[0])
        wait_for(tab, "document.getElementById('state').innerText === 'live'")
        sessions = "document.getElementById('sessions').innerText"
        assert str(guest.assigned.ip) in wait_for(tab, f"{sessions}.includes('{MAC}')", sessions)
        forward = f"tcp:127.0.0.1:{free_port()}:web:80"
        fields = dict(zip(("port", "vm", "vm_port"), forward.split(":")[2:], strict=True))
        tab.evaluate(
            f"""Object.entries({json.dumps(fields)}).forEach(([name, value]) => {{
              document.querySelector(`#forward [name="${{name}}"]`).value = value;
            }})"""
        )
        tab.evaluate("document.querySelector('#forward button').click()")
        forwards = "document.getElementById('forwards').innerText"
        wait_for(tab, f"{forwards}.includes('{forward}')")
        assert [item["forward"] for item in relay.asked("forwards")["default"]] == [forward]
        tab.evaluate("document.querySelector('#forwards tbody button').click()")
        tab.evaluate("document.getElementById('dialog-confirm').click()")
        wait_for(tab, f"!{forwards}.includes('{forward}')")
        assert relay.asked("forwards")["default"] == []
    finally:
        guest.close()
        command.stop()

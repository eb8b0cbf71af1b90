"""Firefox without a window, driven by WebDriver BiDi, which Debian's build speaks."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil

from processes import PATIENCE, Program
from websockets.sync.client import connect

PROGRAM = shutil.which("firefox-esr") or shutil.which("firefox")

PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """One tab of a running browser."""

    def __init__(self, connection):
        self._connection = connection
        self._numbers = itertools.count(1)
        self.complaints = []
        """What scripts have failed with, and what consoles were told of errors."""
        self._ask("session.new", capabilities={})
        self._ask("session.subscribe", events=["log.entryAdded"])
        self._tab = self._ask("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, url):
        self._ask("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression):
        """The text that a promise of the page comes to, None for what is none."""
        answer = self._ask(
            "script.evaluate", expression=expression, target={"context": self._tab}, awaitPromise=True
        )
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def _ask(self, method, **params):
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.complaints.append(answer["params"]["text"])
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]


@contextlib.contextmanager
def firefox(home):
    """A browser that keeps its files in ``home``."""
    profile = home / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    program = Program(
        *(PROGRAM, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", 0),
        environment={"HOME": str(home), "MOZ_CRASHREPORTER_DISABLE": "1"},
    )
    try:
        address = program.wait_for(r"WebDriver BiDi listening on (ws://\S+)", patience=2 * PATIENCE)[1]
        with connect(f"{address}/session", proxy=None) as connection:
            yield Firefox(connection)
    finally:
        program.stop()

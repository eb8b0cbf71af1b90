"""Serves the demo's files on this machine, and runs a relay beside it, until interrupted.

python examples/v86/serve.py FOLDER [OPTIONS OF THE RELAY]

The page is sent to the relay that runs here, wherever its options put it: ``/`` leads to ``/?relay=URL``.
"""

from __future__ import annotations

import functools
import http.client
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
from urllib.parse import parse_qsl, urlencode, urlsplit

PORT = 8086
"""Where the page is, unless DEMO_PORT says otherwise."""
MAX_PORT = 65_535
PATIENCE = 5.0
"""Seconds for the relay's answer on its TCP port."""


class Files(http.server.SimpleHTTPRequestHandler):
    """Answers requests for files without a line for each; the page is told where the relay is."""

    def __init__(self, *args: object, relay: dict[str, str], **options: str) -> None:
        """``relay`` is what the page is told when its address does not name a relay."""
        self._relay = relay
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a file, or the way to the page for this relay."""
        asked = urlsplit(self.path)
        parameters = dict(parse_qsl(asked.query))
        if asked.path != "/" or "relay" in parameters:
            super().do_GET()
            return
        self.send_response(http.HTTPStatus.FOUND)
        self.send_header("Location", f"/?{urlencode(self._relay | parameters)}")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def reached_by(url: str, certificate_hash: str) -> dict[str, str]:
    """Return the page's parameters for the relay at ``url``: http:// where its TCP port speaks that.

    Everywhere else the page needs the hash, for browsers do not fetch it past an unknown certificate.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/cert-hash")
        plain = connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        plain = False
    finally:
        connection.close()
    if plain:
        return {"relay": f"http://{address.netloc}/"}
    return {"relay": f"https://{address.netloc}/", "hash": certificate_hash}


def main(folder: str, *options: str) -> int:
    """Serve ``folder``; return the relay's exit status."""
    relay_at: dict[str, str] = {}
    asked = os.environ.get("DEMO_PORT") or str(PORT)
    port = int(asked[:6]) if asked.isascii() and asked.isdecimal() else 0
    if not 1 <= port <= MAX_PORT:
        print(f"DEMO_PORT must be a whole number from 1 to {MAX_PORT}, not {asked[:80]!r}", file=sys.stderr)
        return 2
    try:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(Files, directory=folder, relay=relay_at)
        )
    except OSError as error:
        print(f"cannot serve the demo on port {port}: {error.strerror}", file=sys.stderr)
        return 1
    # Interrupts go to both processes; this one ends when the relay has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = [sys.executable, "-m", "vmrelay", "--bind", "127.0.0.1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        signal.signal(signal.SIGTERM, lambda *_: relay.terminate())
        certificate_hash = ""
        for line in relay.stdout or ():
            print(line, end="", flush=True)
            if found := re.match(r"Certificate SHA-256 Hash: (\S+)$", line):
                certificate_hash = found[1]
            elif not relay_at and (found := re.match(r"Listening on (https://\S+)$", line)):
                relay_at |= reached_by(found[1], certificate_hash)
                threading.Thread(target=server.serve_forever, daemon=True).start()
                print(f"Open http://127.0.0.1:{port}/ in a browser, twice if you like.", flush=True)
        return relay.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

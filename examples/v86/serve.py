"""Serves the demo's files on this machine, and runs a relay beside it, until interrupted.

python examples/v86/serve.py FOLDER [OPTIONS OF THE RELAY]
"""

from __future__ import annotations

import functools
import http.server
import signal
import subprocess
import sys
import threading

PORT = 8086


class Files(http.server.SimpleHTTPRequestHandler):
    """Answers requests for files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(folder: str, *options: str) -> int:
    """Serve ``folder``; return the relay's exit status."""
    try:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", PORT), functools.partial(Files, directory=folder)
        )
    except OSError as error:
        print(f"cannot serve the demo on port {PORT}: {error.strerror}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Interrupts go to both processes; this one ends when the relay has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen([sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", *options]) as relay:
        print(f"Open http://127.0.0.1:{PORT}/ in a browser, twice if you like.", flush=True)
        return relay.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

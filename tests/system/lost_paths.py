"""A path to a relay that can be broken, and a download of a kernel guest behind it that has to go on."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import ROOT
from transfers import blocks, tell, told

OUTSIDE = "10.99.1.2"
FILE = 50_000_000


def breaking_path(start, relay):
    """A path to the relay that can be broken; gives its program and its port."""
    path = start(sys.executable, ROOT / "tests/system/breaking_path.py", relay.port)
    return path, int(path.wait_for(r"path on port (\d+)")[1])


@contextlib.contextmanager
def downloading(folder, kind, rate, seconds, *, also=""):
    """Give relay (of a ``kind``), path, guest, curl, its copy so far, and what waits until all came, once.

    It may take ``seconds``, and half of them from then on. With ``also`` the client knows of a second URL,
    which is the first and that.
    """
    with contextlib.ExitStack() as stack:
        here, outside = Namespace("relay"), Namespace("outside")
        stack.callback(here.delete)
        stack.callback(outside.delete)
        connect(here, "10.99.1.1/24", outside, f"{OUTSIDE}/24")
        relay = kind("--allow-cidr", "10.99.1.0/24", before=here.prefix)
        stack.callback(relay.stop)
        path, port = breaking_path(here.start, relay)
        stack.callback(path.stop)
        behind = SimpleNamespace(hash=relay.hash, url=f"https://127.0.0.1:{port}/")
        guest = KernelGuest("away", behind, here, *([behind.url + also] if also else []))
        stack.callback(guest.leave)
        url, server = stack.enter_context(_web_server(outside, folder))

        copy = folder / "copy"
        curl = guest.start("curl", "-sS", "--limit-rate", rate, "--max-time", seconds, "-o", copy, url)
        stack.callback(curl.stop)
        server.wait_for("GET /file")

        def is_whole():
            assert curl.wait(patience=seconds / 2) == 0, curl.output
            with copy.open("rb") as file:
                assert told(iter(lambda: file.read(1 << 18), b"")) == tell(FILE)
            copy.unlink()
            assert server.output.count("GET /file") == 1

        yield SimpleNamespace(relay=relay, path=path, guest=guest, curl=curl, copy=copy, is_whole=is_whole)


@contextlib.contextmanager
def _web_server(outside, folder):
    """A file of the servers' pattern; gives its URL and the server."""
    served = folder / "file"
    with served.open("wb") as file:
        file.writelines(blocks(FILE))
    server = outside.start(
        sys.executable, "-u", "-m", "http.server", "0", "--bind", OUTSIDE, "--directory", folder
    )
    try:
        port = server.wait_for(r"port (\d+)")[1]
        yield f"http://{OUTSIDE}:{port}/file", server
    finally:
        server.stop()
        served.unlink()  # pytest keeps what tests leave

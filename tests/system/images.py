"""Container images without a registry: a base of Debian packages, podman as root with a storage of its own.

On machines without systemd and with hybrid cgroups podman needs: runc, cgroupfs, chroot isolation while it
builds, and limits of its own choice (it cannot raise ours).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from processes import ROOT, run

SUITE = "bookworm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
BASE = "localhost/vmrelay-test-base"
BASE_ARCHIVE = ROOT / f".cache/{SUITE}-python.tar"
"""The base as podman imports it; made once, a minute."""

LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
BUILD_ENVIRONMENT = {
    "BUILDAH_ISOLATION": "chroot",
    "BUILDAH_FORMAT": "docker",  # OCI images have no health check
}
MINUTES = 60.0


def make_base():
    """Debian with Python and venv, as an archive of its files."""
    if BASE_ARCHIVE.exists():
        return
    BASE_ARCHIVE.parent.mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="vmrelay-base-"))
    unfinished = BASE_ARCHIVE.with_suffix(".part")
    options = ("--variant=minbase", "--include=python3,python3-venv")
    try:
        run("debootstrap", *options, SUITE, root, MIRROR, patience=10 * MINUTES)
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / leftover, ignore_errors=True)
        run("tar", "--numeric-owner", "-C", root, "-cf", unfinished, ".", patience=5 * MINUTES)
        unfinished.rename(BASE_ARCHIVE)
    finally:
        shutil.rmtree(root)


def host_configuration():
    """Options that lend the build this machine's CA certificates and pip configuration, if it has them."""
    files = [Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pip.conf")]
    return [word for file in files if file.exists() for word in ("--volume", f"{file}:{file}:ro")]


class Podman:
    """podman with storage in ``folder``; nothing of the machine's own images is seen or touched."""

    def __init__(self, folder):
        self.command = (
            "podman",
            *("--root", folder / "storage", "--runroot", folder / "run", "--tmpdir", folder / "tmp"),
            *("--runtime", shutil.which("runc"), "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        )

    def __call__(self, *arguments, patience=2 * MINUTES, check=True):
        environment = os.environ | BUILD_ENVIRONMENT
        return run(*self.command, *arguments, patience=patience, check=check, env=environment, cwd=ROOT)

    def build(self, tag):
        """Build docker/Dockerfile on the base."""
        make_base()
        self("import", BASE_ARCHIVE, BASE)
        self(
            *("build", "--pull=never", "--file", "docker/Dockerfile", "--tag", tag),
            *("--build-arg", f"BASE={BASE}", "--build-arg", f"BUILD_BASE={BASE}"),
            *(*LIMITS, *host_configuration(), "."),
            patience=5 * MINUTES,
        )

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
PACKAGES = {
    "plain": ("python3", "python3-venv"),
    # As docker.io/library/python has them, the default of BUILD_BASE.
    "compiler": ("python3", "python3-venv", "python3-dev", "gcc"),
}
"""Bases by name: what they have beyond the least of Debian."""

LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
BUILD_ENVIRONMENT = {
    "BUILDAH_ISOLATION": "chroot",
    "BUILDAH_FORMAT": "docker",  # OCI images have no health check
}
MINUTES = 60.0


def base_archive(name):
    """Debian with the packages of a base, as an archive of its files for podman; made once, in a minute."""
    archive = ROOT / f".cache/{SUITE}-{'-'.join(PACKAGES[name])}.tar"
    if archive.exists():
        return archive
    downloads = archive.parent / f"{SUITE}-packages"
    downloads.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="vmrelay-base-"))
    unfinished = archive.with_suffix(".part")
    options = ("--variant=minbase", f"--include={','.join(PACKAGES[name])}", f"--cache-dir={downloads}")
    try:
        run("debootstrap", *options, SUITE, root, MIRROR, patience=10 * MINUTES)
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / leftover, ignore_errors=True)
        run("tar", "--numeric-owner", "-C", root, "-cf", unfinished, ".", patience=5 * MINUTES)
        unfinished.rename(archive)
    finally:
        shutil.rmtree(root)
    return archive


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

    def build(self, tag, *, build_base="compiler"):
        """Build docker/Dockerfile: its first stage on ``build_base``, the image itself on the plain base."""
        bases = {name: f"localhost/vmrelay-test-{name}" for name in {"plain", build_base}}
        for name, base in bases.items():
            if self("image", "exists", base, check=False).returncode:
                self("import", base_archive(name), base)
        self(
            *("build", "--pull=never", "--file", "docker/Dockerfile", "--tag", tag),
            *("--build-arg", f"BASE={bases['plain']}", "--build-arg", f"BUILD_BASE={bases[build_base]}"),
            # Optimising takes minutes and is the same for every base; `make accelerated` has that form.
            *("--env", "VMRELAY_OPTIMIZE=0"),
            *(*LIMITS, *host_configuration(), "."),
            patience=10 * MINUTES,
        )

#!/bin/sh
# Installs the programs that the system tests drive, when they are missing. Run by "make test".
set -eu
CDPATH= cd "$(dirname "$0")/.."
. scripts/apt.sh

# Their sbin is not on everybody's path.
PATH=$PATH:/usr/sbin:/sbin

packages=$(missing \
    ip:iproute2 \
    ping:iputils-ping \
    arping:iputils-arping \
    curl:curl \
    iperf3:iperf3 \
    dig:bind9-dnsutils \
    traceroute:traceroute \
    busybox:busybox-static \
    dnsmasq:dnsmasq-base \
    groff:groff-base \
    mandoc:mandoc \
    zsh:zsh \
    fish:fish \
    node:nodejs \
    npm:npm \
    cpio:cpio \
    xz:xz-utils \
    qemu-system-x86_64:qemu-system-x86 \
    podman:podman \
    buildah:buildah \
    runc:runc \
    debootstrap:debootstrap \
    nft:nftables \
    tcpdump:tcpdump \
    promtool:prometheus \
    nats-server:nats-server \
    systemd-analyze:systemd)
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || apt_install $packages
install_compiler .venv/bin/python

# Debian packages Chromium. Ubuntu has it only as a snap, which headless machines cannot run: there,
# playwright fetches the build it was made for.
if [ -z "${CHROMIUM:-}" ] && [ -n "$(missing chromium:chromium)" ] && ! apt_install chromium; then
    .venv/bin/python -m playwright install --with-deps chromium
fi

# Debian's Firefox; Ubuntu has it as a snap only, and the tests that drive it are skipped there.
[ -z "$(missing firefox-esr:firefox-esr)" ] || apt_install firefox-esr || true

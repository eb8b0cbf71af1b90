#!/bin/sh
# Puts the demo together in .cache/v86/site: the page, v86 and the relay's client from npm, a kernel and an
# initial file system from Debian's i386 packages, and a BIOS. What is there already is not built again.
set -eu
CDPATH= cd "$(dirname "$0")/../.."
. scripts/apt.sh

packages=$(missing cpio:cpio xz:xz-utils dpkg-deb:dpkg)
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || apt_install $packages

cache=$PWD/.cache/v86
site=$cache/site
mkdir -p "$site"

# -- from Debian ---------------------------------------------------------------------------------------
# An apt of its own: the system's architectures, package lists and status stay as they are.
if [ ! -e "$site/initrd.img" ] || [ examples/v86/init -nt "$site/initrd.img" ]; then
    apt=$cache/apt
    root=$cache/root
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$cache/packages"
    : >"$apt/status"
    cat >"$apt/apt.conf" <<CONFIGURATION
APT::Architecture "i386";
APT::Architectures { "i386"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
CONFIGURATION
    export APT_CONFIG="$apt/apt.conf"
    # Of several sources one may fail for a while; what matters is whether the packages are found.
    apt-get -qq update || echo "v86 demo: not all package lists could be fetched" >&2
    # In English: apt translates the word that is looked for.
    kernel=$(LC_ALL=C apt-cache depends linux-image-686 | sed -n 's/.*Depends: \(linux-image-[0-9.-]*-686\)$/\1/p')
    rm -rf "$root" "$cache/packages"
    mkdir -p "$root" "$cache/packages"
    (cd "$cache/packages" && apt-get -qq download "$kernel" busybox-static seabios)
    for package in "$cache"/packages/*.deb; do
        dpkg-deb -x "$package" "$cache/unpacked"
    done

    mkdir -p "$root/bin" "$root/lib" "$root/dev" "$root/proc" "$root/sys" "$root/etc"
    busybox=$(find "$cache/unpacked" -path '*/bin/busybox' -type f)
    cp "$busybox" "$root/bin/busybox"
    # In the order in which init loads them.
    for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover \
        net_failover virtio_net 8390 ne2k-pci; do
        file=$(find "$cache/unpacked" -name "$module.ko*")
        case $file in
        *.xz) xz -dc "$file" >"$root/lib/$module.ko" ;;
        *) cp "$file" "$root/lib/$module.ko" ;;
        esac
    done
    install -m 755 examples/v86/init "$root/init"
    install -m 755 examples/v86/address "$root/bin/address"
    cp "$cache"/unpacked/boot/vmlinuz-* "$site/vmlinuz"
    cp "$cache/unpacked/usr/share/seabios/bios.bin" "$cache/unpacked/usr/share/seabios/vgabios-stdvga.bin" "$site"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -9) >"$site/initrd.tmp"
    mv "$site/initrd.tmp" "$site/initrd.img"
    rm -rf "$cache/unpacked" "$cache/packages"
fi

# -- from npm ------------------------------------------------------------------------------------------
scripts/npm.sh examples/v86 clients/js
npm --prefix clients/js run --silent build

mkdir -p "$site/client"
cp clients/js/dist/*.js "$site/client"
cp examples/v86/node_modules/v86/build/libv86.mjs examples/v86/node_modules/v86/build/v86.wasm "$site"
cp examples/v86/index.html examples/v86/demo.js examples/v86/demo.css "$site"
echo "$site"

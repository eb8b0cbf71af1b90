#!/bin/sh
# Makes a machine for QEMU in .cache/qemu: a kernel and an initial file system from Debian's packages.
# What is there already is not made again.
set -eu
CDPATH= cd "$(dirname "$0")/../.."

machine=$PWD/.cache/qemu
if [ -e "$machine/initrd.img" ] && [ ! tests/system/qemu_init -nt "$machine/initrd.img" ] &&
    [ ! tests/system/qemu_machine.sh -nt "$machine/initrd.img" ]; then
    exit
fi

rm -rf "$machine"
mkdir -p "$machine/packages" "$machine/root/bin" "$machine/root/lib" "$machine/root/dev" "$machine/root/proc" \
    "$machine/root/sys" "$machine/root/etc"
kernel() {
    apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/.*Depends: \(linux-image-[0-9.+a-z-]*-cloud-amd64\)$/\1/p' | head -n 1
}
# No package lists yet: the usual state of a fresh machine. Stale ones: those name a kernel that is gone.
(cd "$machine/packages" && [ -n "$(kernel)" ] && apt-get -qq download "$(kernel)" busybox-static 2>/dev/null) || {
    apt-get -qq update || echo "not all package lists could be fetched" >&2
    (cd "$machine/packages" && apt-get -qq download "$(kernel)" busybox-static)
}
for package in "$machine"/packages/*.deb; do
    dpkg-deb -x "$package" "$machine/unpacked"
done

cp "$(find "$machine/unpacked" -path '*/bin/busybox' -type f)" "$machine/root/bin/busybox"
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover \
    virtio_net; do
    file=$(find "$machine/unpacked" -name "$module.ko*")
    case $file in
    *.xz) xz -dc "$file" >"$machine/root/lib/$module.ko" ;;
    *) cp "$file" "$machine/root/lib/$module.ko" ;;
    esac
done
install -m 755 tests/system/qemu_init "$machine/root/init"
install -m 755 examples/v86/address "$machine/root/bin/address"
cp "$machine"/unpacked/boot/vmlinuz-* "$machine/vmlinuz"
(cd "$machine/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$machine/initrd.tmp"
rm -rf "$machine/unpacked" "$machine/packages" "$machine/root"
mv "$machine/initrd.tmp" "$machine/initrd.img"

#!/bin/sh
# Builds the load generator in bench/relaybench once and prints the path of its binary.
#
# With --tested it runs the generator's own unit tests first. RELAYBENCH names a binary that is there already. Needs
# cargo 1.85 or newer; as root on Debian and Ubuntu it is installed when missing.
set -eu
CDPATH= cd "$(dirname "$0")/.."
. scripts/apt.sh

oldest=1.85

# The first cargo that is new enough; rustup's is there even when it has no toolchain to start.
usable_cargo() {
    for cargo in $(which -a cargo 2>/dev/null); do
        version=$("$cargo" --version 2>/dev/null | cut -d' ' -f2)
        if [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ]; then
            return 0
        fi
    done
    return 1
}

# Debian releases that froze an old cargo carry a newer one beside it, cargo-web.
newest_packaged_cargo() {
    for package in $(apt-cache search --names-only '^cargo(-web)?$' | cut -d' ' -f1); do
        # In English: apt translates the word that is looked for.
        version=$(LC_ALL=C apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
        if dpkg --compare-versions "$version" ge "$oldest"; then
            echo "$version $package"
        fi
    done | sort -V | tail -n 1 | cut -d' ' -f2
}

install_cargo() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    [ -n "$(newest_packaged_cargo)" ] || apt-get -qq update >/dev/null || true
    package=$(newest_packaged_cargo)
    [ -n "$package" ] && apt_install "$package" libc6-dev
}

if [ -n "${RELAYBENCH:-}" ]; then
    echo "$RELAYBENCH"
    exit 0
fi
if ! usable_cargo && ! { install_cargo >&2 && usable_cargo; }; then
    echo "vmrelay: relaybench, the load generator of the tests, needs cargo $oldest or newer:" >&2
    echo "vmrelay: see https://rustup.rs/, or name a binary: make RELAYBENCH=/path/to/relaybench ..." >&2
    exit 1
fi

export CARGO_TARGET_DIR="$PWD/.cache/relaybench"
# Cargo keeps what it downloads in the home directory; where that is read-only, here.
cargo_home=${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}
mkdir -p "$cargo_home" 2>/dev/null || true
[ -w "$cargo_home" ] || export CARGO_HOME="$PWD/.cache/cargo"
# Its rustc is beside it.
PATH=$(dirname "$cargo"):$PATH
for step in ${1:+test} build; do
    "$cargo" "$step" --quiet --locked --release --manifest-path bench/relaybench/Cargo.toml >&2
done
echo "$CARGO_TARGET_DIR/release/relaybench"

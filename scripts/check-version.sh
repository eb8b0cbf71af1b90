#!/bin/sh
# Check that all that a release consists of has one version, and that of the tag if one is given:
#   scripts/check-version.sh [v1.2.3]
set -eu
CDPATH= cd "$(dirname "$0")/.."
package=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
client=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' clients/js/package.json)
if [ "$package" != "$client" ]; then
    echo "pyproject.toml has version $package, clients/js/package.json $client" >&2
    exit 1
fi
if [ "${1:-}" ] && [ "$1" != "v$package" ]; then
    echo "the tag is $1, the version $package" >&2
    exit 1
fi
if [ "${1:-}" ] && ! grep -qF "## [$package]" CHANGELOG.md; then
    echo "CHANGELOG.md has no section \"## [$package]\"" >&2
    exit 1
fi
echo "$package"

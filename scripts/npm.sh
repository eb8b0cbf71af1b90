#!/bin/sh
# Installs what the package-lock.json of each folder names, if that is not done yet.
#
#   scripts/npm.sh FOLDER...
set -eu
CDPATH= cd "$(dirname "$0")/.."
. scripts/apt.sh

packages=$(missing node:nodejs npm:npm)
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || apt_install $packages

for folder in "$@"; do
    stamp=$folder/node_modules/.installed
    if [ ! -e "$stamp" ] || [ "$folder/package-lock.json" -nt "$stamp" ]; then
        npm --prefix "$folder" ci --no-fund --no-audit --loglevel=error >/dev/null
        touch "$stamp"
    fi
done

#!/bin/sh
# Builds the wheel with its accelerator (see setup.py) and unpacks it; prints the folder for PYTHONPATH.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
command -v cc >/dev/null 2>&1 || apt_install gcc libc6-dev >&2
header=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -f "$header" ] || apt_install "libpython$version-dev" >&2

folder=$PWD/.cache/accelerated
sources=$(find actors netstack relay transport setup.py pyproject.toml -type f ! -path '*__pycache__*' | LC_ALL=C sort)
# shellcheck disable=SC2086 # file names of ours, without spaces
state=$(cat $sources | sha256sum)
if [ "$(cat "$folder/.state" 2>/dev/null)" != "$state" ]; then
    rm -rf "$folder" build
    mkdir -p "$folder"
    VMRELAY_COMPILE=1 .venv/bin/python -m pip --disable-pip-version-check --quiet \
        wheel --no-deps --no-build-isolation --wheel-dir "$folder/wheel" . >&2
    .venv/bin/python -m zipfile -e "$folder"/wheel/*.whl "$folder"
    rm -rf build
    echo "$state" >"$folder/.state"
fi
echo "$folder"

#!/bin/sh
# Fuzzes the parsers: tests/fuzz/fuzz.py with these arguments. atheris, which has wheels for some platforms
# only, gets an environment of its own on top of .venv; without it the inputs are not guided.
set -eu
CDPATH= cd "$(dirname "$0")/.."

atheris=atheris==3.0.0
folder=.cache/fuzz-venv
if [ ! -e "$folder/ready" ]; then
    rm -rf "$folder"
    .venv/bin/python -m venv "$folder"
    "$folder/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary :all: "$atheris" ||
        echo "vmrelay: there is no $atheris for this platform" >&2
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
        "$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vmrelay.pth"
    touch "$folder/ready"
fi
PYTHONPATH=. exec "$folder/bin/python" tests/fuzz/fuzz.py "$@"

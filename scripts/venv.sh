#!/bin/sh
# Makes .venv hold what the lock files name, and vmrelay itself.
#
#   scripts/venv.sh LOCK...
#
# PYTHON chooses the interpreter; without it the first of the usual names that is new enough is taken.
set -eu
CDPATH= cd "$(dirname "$0")/.."
. scripts/apt.sh

new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if [ -z "${PYTHON:-}" ]; then
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$candidate"; then
            PYTHON=$candidate
            break
        fi
    done
fi
if [ -z "${PYTHON:-}" ] || ! new_enough "$PYTHON"; then
    echo "vmrelay: Python 3.11 or newer is needed (found: $(${PYTHON:-python3} --version 2>&1 || true));" >&2
    echo "vmrelay: install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi

if ! new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    # Debian splits these out of Python; without them "python -m venv" stops half-way.
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    rm -rf .venv
    "$PYTHON" -m venv .venv
fi

set -- $(for lock in "$@"; do echo "--requirement $lock"; done)
# Who installs for this user by default cannot do so here: an environment has no such place.
export PIP_USER=0
pip() {
    .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"
}
pip install --require-hashes "$@"
pip install --no-deps --no-build-isolation --editable .

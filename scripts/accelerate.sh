#!/bin/sh
# Builds the wheel with its accelerator (see setup.py), unpacks it and prints the folder for PYTHONPATH. A folder is
# named after the sources that it was built of: when they change, there is none until the next build.
#
#   scripts/accelerate.sh                 whatever it takes: installs the compiler, waits, fails if it cannot be built
#   scripts/accelerate.sh --if-possible   with the compiler that is there. The first build of a tree is waited for;
#                                         after a change it goes on in the background and no folder is printed
set -eu
CDPATH= cd "$(dirname "$0")/.."
. scripts/apt.sh

store=$PWD/.cache/accelerated

state() {
    find actors guest netstack relay transport vmrelay setup.py pyproject.toml requirements-build.lock -type f \
        ! -path '*__pycache__*' | LC_ALL=C sort | { .venv/bin/python -VV && xargs sha256sum; } |
        sha256sum | cut -c 1-16
}

# In a subshell, whose exit removes what is unfinished.
build() (
    # Such as were killed.
    find "$store" -maxdepth 1 -name '.unfinished-*' -mmin +60 -exec rm -rf {} +
    unfinished=$(mktemp -d "$store/.unfinished-XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    VMRELAY_COMPILE=1 .venv/bin/python -m pip --disable-pip-version-check --quiet \
        wheel --no-deps --no-build-isolation --wheel-dir "$unfinished" . || exit 1
    .venv/bin/python -m zipfile -e "$unfinished"/*.whl "$unfinished/packages" || exit 1
    [ "$(state)" = "$state" ] || {
        echo "vmrelay: the sources changed while they were compiled" >&2
        exit 1
    }
    # Another build of the same sources may have been faster.
    [ -d "$folder" ] || mv "$unfinished/packages" "$folder"
    # The one before may be in use by a relay that runs; those before it have no purpose any more.
    # By their names, in which there is no space: xargs would take a path that has some for several.
    cd "$store" && ls -td */ | tail -n +3 | xargs rm -rf
)

mkdir -p "$store"
state=$(state)
folder=$store/$state
if [ "${1:-}" != --if-possible ]; then
    if [ ! -d "$folder" ]; then
        install_compiler .venv/bin/python >&2
        build >&2
    fi
    echo "$folder"
    exit 0
fi

# What a build that failed has said; nobody tries again before the sources change.
failure=$store/failure-$state
# With what is to run it, such as nice: none where somebody waits for it.
try_to_build() {
    rm -f "$store"/failure-*
    "$@" scripts/accelerate.sh >"$store/log" 2>&1 || mv "$store/log" "$failure"
}

if [ ! -d "$folder" ] && [ ! -e "$failure" ]; then
    if ! obstacle=$(.venv/bin/python -c 'import sys, setup; sys.exit(setup.obstacle())' 2>&1); then
        echo "vmrelay: running without the accelerator: $obstacle" >&2
        exit 0
    elif ls -d "$store"/*/ >/dev/null 2>&1; then
        echo "vmrelay: the sources have changed; compiling them in the background, for the next start" >&2
        # Whoever reads what this script prints does not wait for it: it has let go of the pipe.
        { exec </dev/null >/dev/null 2>&1 && try_to_build nice; } &
        exit 0
    fi
    echo "vmrelay: compiling the accelerator, once" >&2
    try_to_build
fi
if [ -d "$folder" ]; then
    echo "$folder"
else
    echo "vmrelay: running without the accelerator, which could not be compiled; see" >&2
    echo "vmrelay: $failure, and remove it to try again" >&2
fi

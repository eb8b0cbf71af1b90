#!/bin/sh
# Resolves the dependencies of pyproject.toml into lock files with hashes, for every platform and Python we
# support. "make lock" to run it; UV_OPTIONS="--upgrade" or "--upgrade-package NAME" for newer versions.
set -eu
CDPATH= cd "$(dirname "$0")/.."

.venv/bin/python -m pip --disable-pip-version-check --quiet install uv
compile() {
    # shellcheck disable=SC2086 # options, several words
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-annotate --no-emit-index-url --no-emit-find-links --no-config \
        --custom-compile-command "make lock" ${UV_OPTIONS:-} "$@"
}

# What the relay needs to run, with all extras, what builds its wheel, and what runs its tests: the same versions
# and more.
compile pyproject.toml --extra top --output-file requirements.lock
.venv/bin/python -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    compile - --constraint requirements.lock --output-file requirements-build.lock
compile pyproject.toml --extra top --extra test --constraint requirements.lock --constraint requirements-build.lock \
    --output-file requirements-test.lock

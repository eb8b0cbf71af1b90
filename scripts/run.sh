#!/bin/sh
# Runs a program on the packages of this tree, in their compiled form where that was built of the sources as they are.
#
#   scripts/run.sh PROGRAM [ARGUMENT...]
set -eu
CDPATH= cd "$(dirname "$0")/.."

folder=$(scripts/accelerate.sh --if-possible)
if [ -n "$folder" ]; then
    # Without the second, "python -m" would take the packages of the working directory.
    export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
fi
exec "$@"

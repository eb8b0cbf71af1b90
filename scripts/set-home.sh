#!/bin/sh
# Writes where the project lives into the metadata of its packages, for a release; the tree itself does not know, so
# that forks and mirrors do not send their users elsewhere:
#   scripts/set-home.sh https://github.com/OWNER/NAME
set -eu
CDPATH= cd "$(dirname "$0")/.."
home=${1:?the address of the repository}
if grep -q '^\[project\.urls\]' pyproject.toml; then
    echo "pyproject.toml has [project.urls] already" >&2
    exit 1
fi
cat >>pyproject.toml <<URLS

[project.urls]
Homepage = "$home"
Documentation = "$home/tree/HEAD/docs"
Changelog = "$home/blob/HEAD/CHANGELOG.md"
Issues = "$home/issues"
Source = "$home"
URLS
# npm's provenance demands that this is the repository of the workflow.
sed -i "s|^  \"license\": \"MIT\",\$|&\n  \"homepage\": \"$home#readme\",\n  \"repository\": { \"type\": \"git\", \"url\": \"git+$home.git\", \"directory\": \"clients/js\" },|" \
    clients/js/package.json

#!/usr/bin/env bash
# Prints the section of CHANGELOG.md for the version in Cargo.toml. Fails if there is none, or if the tag names another version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
if [ "${GITHUB_REF_TYPE:-}" = tag ]; then
    if [ "$GITHUB_REF_NAME" != "v$version" ]; then
        echo "notes.sh: the tag is $GITHUB_REF_NAME, but Cargo.toml says $version" >&2
        exit 1
    fi
elif grep -q '^## Unreleased' CHANGELOG.md; then
    # A trial run, for a version without a section.
    version=Unreleased
fi

# From the line `## 0.1.0`, optionally with a date, to the next such line.
notes=$(awk -v version="$version" '/^## /{ on = ($2 == version); next } on' CHANGELOG.md)
if [ -z "${notes//[[:space:]]/}" ]; then
    echo "notes.sh: CHANGELOG.md has no section \"## $version\"" >&2
    exit 1
fi
printf '%s\n' "$notes"

#!/usr/bin/env bash
# Writes the install.sh of a release, with the address of the releases preset: installer.sh RELEASES OUT
set -euo pipefail

releases=${1:?usage: installer.sh RELEASES OUT}
out=${2:?a folder for install.sh}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

sed "s|^published=.*|published='$releases'|" "$root/install.sh" >"$out/install.sh"
if ! grep -qxF "published='$releases'" "$out/install.sh"; then
    echo "installer.sh: install.sh has no line for the address of the releases" >&2
    exit 1
fi

#!/usr/bin/env bash
# Unpacks a release's archive elsewhere, and asks the program in it about the clip of the demo: smoke.sh ARCHIVE
set -euo pipefail

archive=${1:?usage: smoke.sh ARCHIVE}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $archive in
    *.zip) unzip -q "$archive" -d "$work" ;;
    *) tar -C "$work" -xzf "$archive" ;;
esac

export SHARPV_HOME=${SHARPV_HOME:-$work/cache}
sharpv=$(echo "$work"/sharpv-*/sharpv*)
"$sharpv" --version
"$sharpv" pull smol
# On the CPU: a GPU of a build machine, if it has one, is not a user's.
answer=$("$sharpv" ask -q -m smol -ngl 0 --seed 1 --temp 0 "$root/demo/clip.mp4" "What is in the video?")
echo "$answer"
[ "$answer" = "There is a tractor." ]

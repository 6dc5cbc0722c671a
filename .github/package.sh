#!/usr/bin/env bash
# Makes a release's archive: package.sh PROGRAM TARGET LICENSES OUT writes OUT/sharpv-TARGET.tar.gz (.zip for Windows) and its .sha256.
#
# LICENSES is a folder with license texts. Those in the repository and the pinned llama.cpp are added.
set -euo pipefail

program=${1:?usage: package.sh PROGRAM TARGET LICENSES OUT}
target=${2:?a target}
licenses=${3:?a folder of licenses}
out=${4:?a folder for the archive}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
name=sharpv-$version-$target
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$work/$name
mkdir -p "$folder/third-party-licenses"

cp "$program" "$root/LICENSE" "$root/README.md" "$root/CHANGELOG.md" "$folder/"
cp "$licenses"/* "$folder/third-party-licenses/"
cp "$root/models/smol/README.md" "$folder/third-party-licenses/smol.md"
cp "$("$root/x" source)/LICENSE" "$folder/third-party-licenses/llama.cpp.txt"
for part in crates FFmpeg dav1d llama.cpp; do
    if [ ! -s "$folder/third-party-licenses/$part.txt" ]; then
        echo "package.sh: the license of $part is missing" >&2
        exit 1
    fi
done

cd "$work"
case $target in
    *windows*) archive=sharpv-$target.zip && rm -f "$out/$archive" && zip -q -r "$out/$archive" "$name" ;;
    *) archive=sharpv-$target.tar.gz && tar -czf "$out/$archive" "$name" ;;
esac
cd "$out"
if command -v sha256sum >/dev/null; then sha256sum "$archive"; else shasum -a 256 "$archive"; fi > "$archive.sha256"
cat "$archive.sha256"

#!/bin/sh
# Installs a release of sharpv: downloads the archive for this system, verifies its SHA-256, and copies the program to a folder.
#
#   SHARPV_RELEASES  the address of the releases (…/releases); preset in the install.sh of a release
#   SHARPV_VERSION   a version such as 0.1.0; by default the latest
#   SHARPV_BIN       the folder for the program; by default ~/.local/bin
set -eu

# Set by .github/installer.sh.
published=

say() { printf '%s\n' "$*" >&2; }
die() { say "install.sh: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

fetch() {
    if have curl; then
        curl --fail --silent --show-error --location --output "$2" "$1"
    elif have wget; then
        wget -q -O "$2" "$1"
    else
        die "curl or wget is required"
    fi || die "$1 cannot be downloaded"
}

sha256() {
    if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# In a function, so that a script that is cut off during download does nothing.
main() {
    releases=${SHARPV_RELEASES:-$published}
    [ -n "$releases" ] || die "set SHARPV_RELEASES to the address of the releases, or use the install.sh of a release"
    bin=${SHARPV_BIN:-$HOME/.local/bin}

    case $(uname -s)-$(uname -m) in
        Linux-x86_64 | Linux-amd64) target=x86_64-unknown-linux-gnu ;;
        Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-gnu ;;
        Darwin-arm64) target=aarch64-apple-darwin ;;
        *) die "there is no release for $(uname -s) on $(uname -m); build it from source (README.md)" ;;
    esac
    if [ -n "${SHARPV_VERSION:-}" ]; then
        from=$releases/download/v${SHARPV_VERSION#v}
    else
        from=$releases/latest/download
    fi

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    archive=sharpv-$target.tar.gz
    fetch "$from/$archive" "$work/$archive"
    fetch "$from/$archive.sha256" "$work/$archive.sha256"
    expected=$(cut -d ' ' -f 1 "$work/$archive.sha256")
    [ "$(sha256 "$work/$archive")" = "$expected" ] || die "$from/$archive is damaged: its SHA-256 is not $expected"
    tar -C "$work" -xzf "$work/$archive"
    program=$(echo "$work"/sharpv-*/sharpv)

    # Run before it is installed, so that a program for a newer system or another processor does not replace one that works.
    # `doctor` starts the backends.
    if ! { version=$("$program" --version) && "$program" doctor >/dev/null; }; then
        die "the released program does not run on this system; build it from source (README.md)"
    fi
    mkdir -p "$bin"
    # Copied next to its place and then renamed, because a running program cannot be overwritten.
    cp "$program" "$bin/.sharpv.new"
    mv -f "$bin/.sharpv.new" "$bin/sharpv"
    say "Installed $version to $bin/sharpv"
    case :$PATH: in
        *:"$bin":*) ;;
        *) say "$bin is not in PATH: add it, or run $bin/sharpv" ;;
    esac
}

main

#!/usr/bin/env bash
# Builds the parts of FFmpeg that sharpv uses as static libraries, so that a release does not depend on an installed FFmpeg.
#
#     .github/ffmpeg.sh PREFIX      # then: export PKG_CONFIG_PATH=PREFIX/lib/pkgconfig, and build with --features ffmpeg-next/static
#
# Requires a C compiler, make, nasm (x86-64), meson, ninja, pkg-config and curl. The archives come from their authors and are verified by the
# checksums of the signed ones. FFMPEG_SOURCES may name a folder with the archives.
set -euo pipefail

prefix=${1:?usage: ffmpeg.sh PREFIX}
sources=${FFMPEG_SOURCES:-$prefix/src}
dav1d="dav1d-1.5.1"
ffmpeg="ffmpeg-7.1.5"

mkdir -p "$prefix" "$sources"
prefix=$(cd "$prefix" && pwd)
sources=$(cd "$sources" && pwd)
jobs=$(getconf _NPROCESSORS_ONLN)

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# fetch ADDRESS SHA256: downloads the archive to $sources, unless it is there, and verifies it.
fetch() {
    local file
    file=$sources/$(basename "$1")
    [ -f "$file" ] || curl --fail --silent --show-error --location --retry 3 --output "$file" "$1"
    if [ "$(sha256 "$file")" != "$2" ]; then
        echo "ffmpeg.sh: $file is not what was pinned" >&2
        exit 1
    fi
}

fetch "https://downloads.videolan.org/pub/videolan/dav1d/1.5.1/$dav1d.tar.xz" \
    401813f1f89fa8fd4295805aa5284d9aed9bc7fc1fdbe554af4292f64cbabe21
fetch "https://ffmpeg.org/releases/$ffmpeg.tar.xz" \
    de668509caf9e35e3cd162473441fdb29538c6d96ed080292b3cf9e6fc5d558f

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xf "$sources/$dav1d.tar.xz"
tar -C "$work" -xf "$sources/$ffmpeg.tar.xz"

# FFmpeg requires it to decode AV1 in software.
meson setup "$work/dav1d" "$work/$dav1d" --prefix "$prefix" --libdir lib --buildtype release --default-library static \
    -Denable_tools=false -Denable_tests=false
ninja -C "$work/dav1d" install

# Only LGPL parts, and no libraries that happen to be installed. All decoders and demuxers; the encoders and muxers of `inspect --video`; the
# protocols of `watch` except TLS, as a bundled TLS library would need updates: without https://, sharpv says so (docs/watch.md).
encoders="mpeg4"
muxers="ipod matroska mov mp4"
protocols="crypto file http rtmp rtp srtp tcp udp"
cd "$work/$ffmpeg"
PKG_CONFIG_PATH=$prefix/lib/pkgconfig ./configure --prefix="$prefix" --pkg-config-flags=--static \
    --enable-static --disable-shared --enable-pic --disable-autodetect --enable-zlib --enable-libdav1d \
    --disable-programs --disable-doc --disable-avdevice --disable-swresample --disable-postproc --disable-debug \
    --disable-encoders --enable-encoder="${encoders// /,}" \
    --disable-muxers --enable-muxer="${muxers// /,}" \
    --disable-protocols --enable-protocol="${protocols// /,}"

# configure silently drops parts whose requirements are missing.
has() {
    local kind=$1 name
    shift
    for name in "$@"; do
        if ! grep -q "^#define CONFIG_$(echo "${name}_$kind" | tr '[:lower:]' '[:upper:]') 1$" config_components.h; then
            echo "ffmpeg.sh: FFmpeg was configured without the $kind $name" >&2
            exit 1
        fi
    done
}
# shellcheck disable=SC2086 # lists of words
{
    has encoder $encoders
    has muxer $muxers
    has protocol $protocols
    has demuxer hls matroska mov mpegts rtsp sdp
    has decoder h264 hevc libdav1d mjpeg vp9
}
make -j "$jobs"
make install
mkdir -p "$prefix/licenses"
cp COPYING.LGPLv2.1 "$prefix/licenses/FFmpeg.txt"
cp "$work/$dav1d/COPYING" "$prefix/licenses/dav1d.txt"

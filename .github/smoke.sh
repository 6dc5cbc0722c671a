#!/usr/bin/env bash
# Unpacks a release's archive elsewhere, and asks of the program in it what README.md shows: smoke.sh ARCHIVE [STEP…]
#
# All steps are taken, if none is named. Needs curl and python3. `pull` fetches the model smol into
# SHARPV_HOME, unless it is there; all else is on this machine.
set -euo pipefail

archive=${1:?usage: smoke.sh ARCHIVE [STEP…]}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
steps="run pull ask inspect serve http rtsp refused"
work=$(mktemp -d)
started=''

# Whatever happens: what was started ends.
clean() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT

die() {
    echo "smoke.sh: $*" >&2
    exit 1
}

# sharpv ARGUMENTS…: runs the packaged program, for some minutes at most.
sharpv() {
    python3 -c 'import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], timeout=300).returncode)' "$program" "$@"
}

# On the CPU: a GPU of a build machine, if it has one, is not a user's. The same answer each time.
model='-m smol -ngl 0'
question='What is in the video?'

# sees TEXT: an answer about the clip of the demo, or a copy of it.
sees() {
    echo "$1"
    case $1 in *tractor*) ;; *) die "there is a tractor in the video" ;; esac
}

# start PATTERN COMMAND…: starts a server and sets `address` to what PATTERN finds in its output.
start() {
    local pattern=$1 log=$work/log _
    shift
    "$@" >"$log" 2>&1 &
    started="$started $!"
    for _ in $(seq 600); do
        address=$(sed -n "s|.*\($pattern\).*|\1|p" "$log" | head -n 1)
        [ -z "$address" ] || return 0
        kill -0 "$!" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    die "not started: $*"
}

run() {
    sharpv --version
    # Reads the libraries' versions and the devices: code of llama.cpp runs.
    sharpv doctor
}

pull() { sharpv pull smol; }

ask() {
    local answer
    # shellcheck disable=SC2086 # options
    answer=$(sharpv ask -q $model --seed 1 --temp 0 "$root/demo/clip.mp4" "$question")
    echo "$answer"
    [ "$answer" = "There is a tractor." ] || die "another answer was expected"
}

# Every kind of video that it writes can be read again.
inspect() {
    local ending
    for ending in mp4 m4v mov mkv; do
        # shellcheck disable=SC2086 # options
        sharpv inspect --quiet $model --max-frames 2 --no-dense "$root/demo/clip.mp4" -o "$work/page.html" --video "$work/kept.$ending"
        # shellcheck disable=SC2086 # options
        sharpv plan -q $model "$work/kept.$ending" >/dev/null
    done
}

serve() {
    local body='{"temperature": 0, "messages": [{"role": "user", "content": [
        {"type": "video_url", "video_url": {"url": "file://clip.mp4"}}, {"type": "text", "text": "'$question'"}]}]}'
    # shellcheck disable=SC2086 # options
    start 'http://[0-9.:]*' "$program" serve $model --port 0 --media-root "$root/demo"
    curl --fail --silent --show-error --max-time 10 "$address/health"
    sees "$(curl --fail --silent --show-error --max-time 120 -H 'Content-Type: application/json' -d "$body" "$address/v1/chat/completions")"
}

# watch ADDRESS: what comes from there is a video with a tractor.
watch() {
    local lines
    # shellcheck disable=SC2086 # options
    lines=$(sharpv watch -q $model --temp 0 --json "$1" "$question") || die "$1 cannot be watched"
    sees "$lines"
}

http() {
    start 'http://[0-9.:]*' python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$root/.github/smoke"
    watch "$address/stream.ts"
}

rtsp() {
    start 'rtsp://.*' python3 -u "$root/.github/smoke/rtsp_server.py" "$root/.github/smoke/stream.ts"
    watch "$address"
}

# Where nobody answers, it says so, and not that it does not know what kind of address it is. Without TLS, it says that.
refused() {
    local scheme said
    for scheme in http rtsp rtmp tcp https rtsps; do
        # shellcheck disable=SC2086 # options
        if said=$(sharpv watch -q $model "$scheme://127.0.0.1:9/stream" 2>&1); then die "nobody was there: $said"; fi
        echo "$said"
        case $scheme:$said in
            *refused*) ;;
            https:*'without https://'* | rtsps:*'without rtsps://'*) ;;
            *) die "this should tell of a connection that was refused" ;;
        esac
    done
}

case $archive in
    *.zip) unzip -q "$archive" -d "$work" ;;
    *) tar -C "$work" -xzf "$archive" ;;
esac
export SHARPV_HOME=${SHARPV_HOME:-$work/cache}
program=$(echo "$work"/sharpv-*/sharpv*)
# shellcheck disable=SC2086 # words
[ $# -gt 0 ] || set -- $steps
for step; do
    case " $steps " in *" $step "*) ;; *) die "no step is called $step; there are: $steps" ;; esac
    echo "== $step"
    "$step"
done

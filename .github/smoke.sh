#!/usr/bin/env bash
# Unpacks the archive of a release and tries the program as README.md shows it: smoke.sh ARCHIVE [STEP…]
#
# Without STEP, takes all steps. Requires curl and python3. `pull` downloads the model smol to SHARPV_HOME, unless it is there; the
# other steps need no network.
set -euo pipefail

archive=${1:?usage: smoke.sh ARCHIVE [STEP…]}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
steps="run pull ask inspect serve http rtsp refused"
work=$(mktemp -d)
started=''

# Ends what was started, whatever happens.
clean() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT

die() {
    echo "smoke.sh: $*" >&2
    exit 1
}

# sharpv ARGUMENTS…: runs the packaged program for at most five minutes.
sharpv() {
    python3 -c 'import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], timeout=300).returncode)' "$program" "$@"
}

# On the CPU, so that answers do not depend on a GPU of the build machine.
model='-m smol -ngl 0'
question='What is in the video?'

# sees TEXT: checks an answer about the demo's clip.
sees() {
    echo "$1"
    case $1 in *tractor*) ;; *) die "the answer does not mention the tractor in the video" ;; esac
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
    # Prints the versions of libraries and the devices, which runs code of llama.cpp.
    sharpv doctor
}

pull() { sharpv pull smol; }

ask() {
    local answer
    # shellcheck disable=SC2086 # options
    answer=$(sharpv ask -q $model --seed 1 --temp 0 "$root/demo/clip.mp4" "$question")
    echo "$answer"
    [ "$answer" = "There is a tractor." ] || die "the answer should be: There is a tractor."
}

# Writes every kind of video, and reads it again.
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

# watch ADDRESS: checks that the video at this address shows a tractor.
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

# If nothing listens at an address, the error says that, not that the protocol is unknown; without TLS, it names TLS.
refused() {
    local scheme said
    for scheme in http rtsp rtmp tcp https rtsps; do
        # shellcheck disable=SC2086 # options
        if said=$(sharpv watch -q $model "$scheme://127.0.0.1:9/stream" 2>&1); then die "nothing listens at $scheme://, but: $said"; fi
        echo "$said"
        case $scheme:$said in
            *refused*) ;;
            https:*'without https://'* | rtsps:*'without rtsps://'*) ;;
            *) die "the error should mention a refused connection" ;;
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
    case " $steps " in *" $step "*) ;; *) die "there is no step $step; the steps are: $steps" ;; esac
    echo "== $step"
    "$step"
done

#!/usr/bin/env bash
# Two comparisons of transfers with something else than another program, in interleaved rounds. Prints medians and ratios.
#
#   scripts/bench-direct.sh [--rounds N] [--mib N] [--dir DIR] [--no-build] reflink [xfs|btrfs]...
#   scripts/bench-direct.sh [--rounds N] [--mib N] [--dir DIR] [--no-build] older FOLDER
#
# reflink: on a file system that shares blocks between files, `get` between two clients of one user against hashing the file
#   alone (`pub` of a copy that was not hashed before, in a client that is logged in); at most 1.2 times as long is wanted. Mounts an
#   image in DIR: needs root, mkfs.xfs or mkfs.btrfs.
# older: `get --tcp-only` of this build against the programs in FOLDER, server and uploader too; within 3 % is wanted.
#
# Each time is `elapsed_ms` of a command in a client that is logged in. All processes listen on 127.0.0.1 and end with the script.
set -euo pipefail

rounds=5 mib=2048 base=${TMPDIR:-/tmp} build=1
while [[ ${1:-} == --* ]]; do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --mib) mib=$2; shift 2 ;;
        --dir) base=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        *) break ;;
    esac
done
mode=${1:-}
shift || true
case $mode in
    reflink) (($#)) || set -- xfs btrfs ;;
    older) [[ $# == 1 && -x $1/client && -x $1/server ]] || { echo "no server and client in '${1:-}'" >&2; exit 2; } ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "$0")/.." && pwd)
((build)) && cargo build --release --quiet --bins --manifest-path "$root/Cargo.toml"
bin=${FS_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
dir=$(mktemp -d "$base/fileshare-bench.XXXXXX")
pids=() mounted=()
stop() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null || true
    pids=()
}
cleanup() {
    stop
    ((${#mounted[@]})) && umount "${mounted[@]}"
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
printf 'up pw-up\ndown pw-down\n' >"$dir/credentials.txt"
chmod 600 "$dir/credentials.txt"

wait_line() { # FILE TEXT [COUNT]: waits until so many lines of the file have the text
    local tries=0
    until (($(grep -c -- "$2" "$1" 2>/dev/null || true) >= ${3:-1})); do
        ((++tries < 12000)) || { echo "no '$2' in $1:" >&2; cat "$1" >&2; exit 1; }
        sleep 0.005
    done
}
# NAME BIN FOLDER [OPTION...]: starts a server, an uploader of `big` in FOLDER/up, and a downloader into FOLDER/down that takes
# its commands from the FIFO NAME.in.
start() {
    local name=$1 programs=$2 folder=$3 port
    export XDG_CACHE_HOME=$folder/cache XDG_STATE_HOME=$folder/state XDG_RUNTIME_DIR=$dir/run-$name
    mkdir -p "$folder/down"
    : >"$dir/$name.out"
    "$programs/server" 0 --ephemeral --credentials "$dir/credentials.txt" >"$dir/$name.server" 2>/dev/null &
    pids+=($!)
    wait_line "$dir/$name.server" 'listening on'
    port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$dir/$name.server")
    FILESHARE_PASSWORD=pw-up "$programs/client" 127.0.0.1 "$port" -u up -d "$folder/up" -c 'pub big' --stay >"$dir/$name.up" 2>&1 &
    pids+=($!)
    wait_line "$dir/$name.up" 'published successfully'
    mkfifo "$dir/$name.in"
    FILESHARE_PASSWORD=pw-down "$programs/client" 127.0.0.1 "$port" -u down -d "$folder/down" "${@:4}" \
        --json --stay -b - <>"$dir/$name.in" >"$dir/$name.out" 2>"$dir/$name.err" &
    pids+=($!)
}
# SERIES NAME COMMAND: appends the time of a command of the downloader to a series.
timed() {
    local ended="\"type\":\"end\".*\"command\":\"${3%% *}\"" ends
    ends=$(grep -c "$ended" "$dir/$2.out" || true)
    echo "$3" >"$dir/$2.in"
    wait_line "$dir/$2.out" "$ended" $((ends + 1))
    grep "$ended" "$dir/$2.out" | tail -n 1 | python3 -c 'import json, sys
end = json.loads(sys.stdin.read())
assert end["ok"], end
print(end["elapsed_ms"] / 1000)' >>"$dir/$1.times"
}
median() { sort -g "$dir/$1.times" | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }
compare() { # TITLE SERIES SERIES
    awk -v a="$(median "$2")" -v b="$(median "$3")" -v title="$1" -v first="$2" -v second="$3" 'BEGIN {
        printf "%s: %s %.3f s, %s %.3f s: %.3f times as long\n", title, first, a, second, b, a / b }'
}

reflink() { # TYPE
    local folder=$dir/$1 round
    command -v "mkfs.$1" >/dev/null || { echo "mkfs.$1 is missing: skipped" >&2; return; }
    truncate -s "$((mib * 5 + 1024))M" "$dir/$1.image"
    "mkfs.$1" -q "$dir/$1.image" >/dev/null
    mkdir "$folder"
    mount -o loop "$dir/$1.image" "$folder"
    mounted+=("$folder")
    mkdir "$folder/up"
    head -c "$((mib << 20))" /dev/urandom >"$folder/up/big"
    start "$1" "$bin" "$folder"
    for ((round = 0; round <= rounds; round++)); do # round 0 warms up
        # What is not in the page cache is read from the image, by both.
        timed "$1-get" "$1" 'get big'
        cmp "$folder/up/big" "$folder/down/big"
        rm "$folder/down/big"
        cp --reflink=always "$folder/up/big" "$folder/down/same"
        timed "$1-hash" "$1" 'pub same'
        timed unpublish "$1" 'unp same'
        rm "$folder/down/same"
        ((round)) || rm "$dir/$1-get.times" "$dir/$1-hash.times"
    done
    compare "one file of $mib MiB on $1" "$1-get" "$1-hash"
    stop
    umount "$folder"
    mounted=()
}

older() { # FOLDER
    local round name
    mkdir "$dir/up"
    head -c "$((mib << 20))" /dev/urandom >"$dir/up/big"
    for name in this older; do
        mkdir -p "$dir/$name-files"
        ln "$dir/up/big" "$dir/big-$name"
        mkdir "$dir/$name-files/up"
        mv "$dir/big-$name" "$dir/$name-files/up/big"
    done
    start this "$bin" "$dir/this-files" --tcp-only
    start older "$1" "$dir/older-files" --tcp-only
    for ((round = 0; round <= rounds; round++)); do
        for name in this older; do
            timed "$name" "$name" 'get big'
            cmp "$dir/up/big" "$dir/$name-files/down/big"
            rm "$dir/$name-files/down/big"
            ((round)) || rm "$dir/$name.times"
        done
    done
    compare "get --tcp-only of one file of $mib MiB" this older
}

if [[ $mode == older ]]; then
    older "$1"
else
    for system in "$@"; do
        reflink "$system"
    done
fi

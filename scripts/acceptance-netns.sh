#!/usr/bin/env bash
# Measures transfers over slow links: network namespaces connected by a bridge, each client's link limited by tbf.
#
#   scripts/acceptance-netns.sh [--rate MBIT] [--mb N] [--no-build] [three] [kill] [corrupt] [swarm]
#
#   three    three sources against one: the ratio of the times
#   kill     one of three sources is killed half-way: the longest pause in the bytes received by the downloader
#   corrupt  one of three sources serves corrupted bytes: the file is correct, and stderr names the source
#   swarm    one source, eight `get --share` at once against a single download: the ratio of the times
#
# Needs root, iproute2, cargo. All traffic stays inside namespaces that the script creates and removes.
set -euo pipefail

rate=100 mb=100 build=1 parts=()
while (($#)); do
    case $1 in
        --rate) rate=$2; shift 2 ;;
        --mb) mb=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        three | kill | corrupt | swarm) parts+=("$1"); shift ;;
        *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
((${#parts[@]})) || parts=(three kill corrupt swarm)

root=$(cd "$(dirname "$0")/.." && pwd)
((build)) && cargo build --release --quiet --manifest-path "$root/Cargo.toml"
bin=${FS_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
dir=$(mktemp -d "${TMPDIR:-/tmp}/fileshare-netns.XXXXXX")
id=$$
links=9
pids=()
cleanup() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null || true
    for ((i = 0; i <= links; i++)); do ip netns del "fs$id-$i" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# fsID-0 holds the bridge and the server; fsID-1 .. fsID-9 a client each.
hub=fs$id-0
ip netns add "$hub"
ip -n "$hub" link set lo up
ip -n "$hub" link add br0 type bridge
ip -n "$hub" addr add 10.77.0.254/24 dev br0
ip -n "$hub" link set br0 up
for ((i = 1; i <= links; i++)); do
    ip netns add "fs$id-$i"
    ip -n "fs$id-$i" link set lo up
    ip -n "$hub" link add "p$i" type veth peer name eth0 netns "fs$id-$i"
    ip -n "$hub" link set "p$i" master br0 up
    ip -n "fs$id-$i" addr add "10.77.0.$i/24" dev eth0
    ip -n "fs$id-$i" link set eth0 up
    ip netns exec "fs$id-$i" tc qdisc add dev eth0 root tbf rate "${rate}mbit" burst 128kb latency 50ms
done

for ((i = 1; i <= links; i++)); do echo "u$i pw$i"; done >"$dir/credentials.txt"
chmod 600 "$dir/credentials.txt"
ip netns exec "$hub" "$bin/server" 12000 --bind 10.77.0.254 --ephemeral --credentials "$dir/credentials.txt" \
    >"$dir/server.out" 2>"$dir/server.log" &
pids+=($!)

wait_line() { # FILE TEXT
    local tries=0
    until grep -q -- "$2" "$1" 2>/dev/null; do
        ((++tries < 2400)) || { echo "no '$2' in $1:" >&2; cat "$1" >&2; exit 1; }
        sleep 0.05
    done
}
wait_line "$dir/server.out" 'listening on'

client() { # N ARGS...: `command` runs client N in its namespace and its own folder
    local n=$1
    shift
    command=(env "FILESHARE_PASSWORD=pw$n" XDG_CACHE_HOME="$dir/x$n" XDG_STATE_HOME="$dir/x$n" XDG_RUNTIME_DIR="$dir/x$n"
        ip netns exec "fs$id-$n" "$bin/client" 10.77.0.254 12000 -u "u$n" -d "$dir/c$n" "$@")
}
serve() { # N: publishes its copy of `file` and stays
    client "$1" -c 'pub file' --stay
    "${command[@]}" >"$dir/serve$1.out" 2>"$dir/serve$1.err" &
    pids+=($!)
    serving[$1]=$!
    wait_line "$dir/serve$1.out" 'published successfully'
}
stop() { # N...
    for n in "$@"; do
        kill "${serving[$n]}" 2>/dev/null || true
        wait "${serving[$n]}" 2>/dev/null || true
    done
}
declare -A serving
fresh() { # N: empties all folders; gives sources 1..N a copy of `file`
    for ((i = 1; i <= links; i++)); do rm -rf "$dir/c$i" "$dir/x$i"; mkdir -p "$dir/c$i"; done
    for ((i = 1; i <= $1; i++)); do cp "$dir/file" "$dir/c$i/file"; done
}
seconds() { awk "BEGIN {printf \"%.3f\", $2 - $1}"; }
timed_get() { # N: prints the seconds that client N takes to download `file`; compares the content
    local start=$EPOCHREALTIME
    client "$1" -c 'get file'
    "${command[@]}" >"$dir/get.out" 2>"$dir/get.err"
    local end=$EPOCHREALTIME
    cmp "$dir/file" "$dir/c$1/file" >&2
    seconds "$start" "$end"
}
head -c "${mb}000000" /dev/urandom >"$dir/file"

part_three() {
    fresh 1; serve 1
    local one three
    one=$(timed_get 9); stop 1
    fresh 3; serve 1; serve 2; serve 3
    three=$(timed_get 9); stop 1 2 3
    echo "three: one source $one s, three sources $three s, $(awk "BEGIN {printf \"%.2f\", $one / $three}") times as fast"
}
part_kill() {
    fresh 3; serve 1; serve 2; serve 3
    client 9 -q -c 'get file'
    "${command[@]}" >"$dir/get.out" 2>"$dir/get.err" &
    local getter=$! expected killed=0 last=0 now rx since longest=0
    pids+=("$getter")
    expected=$((mb * 1000000))
    since=$EPOCHREALTIME
    while kill -0 "$getter" 2>/dev/null; do
        rx=$(ip netns exec "fs$id-9" cat /sys/class/net/eth0/statistics/rx_bytes)
        now=$EPOCHREALTIME
        [[ -n ${FS_TRACE:-} ]] && echo "$now $rx $killed" >>"$FS_TRACE"
        if ((rx > last + 20000)); then
            ((last > 100000)) && longest=$(awk "BEGIN {d = $now - $since; print (d > $longest) ? d : $longest}")
            last=$rx since=$now
        fi
        if ((!killed && rx > expected / 2)); then
            killed=1
            kill -KILL "${serving[2]}"
        fi
        sleep 0.02
    done
    wait "$getter" || { cat "$dir/get.err" >&2; exit 1; }
    cmp "$dir/file" "$dir/c9/file"
    stop 1 2 3
    echo "kill: the longest pause was $(awk "BEGIN {printf \"%.3f\", $longest}") s (killed: $killed)"
}
part_corrupt() {
    fresh 3; serve 1; serve 2; serve 3
    # Same inode, size and modification time: only the hash reveals the change.
    touch -r "$dir/c2/file" "$dir/stamp"
    head -c 3000000 /dev/zero | dd of="$dir/c2/file" conv=notrunc bs=1000000 seek=$((mb / 2)) status=none
    dd if=/dev/zero of="$dir/c2/file" conv=notrunc bs=1000 count=1 status=none
    for ((at = 0; at < mb; at++)); do
        printf 'x' | dd of="$dir/c2/file" conv=notrunc bs=1 seek=$((at * 1000000 + 7)) status=none
    done
    touch -r "$dir/stamp" "$dir/c2/file"
    timed_get 9 >/dev/null
    stop 1 2 3
    grep -q u2 "$dir/get.err" || { echo "corrupt: stderr does not name the source:" >&2; cat "$dir/get.err" >&2; exit 1; }
    echo "corrupt: the file is correct; stderr: $(head -n 1 "$dir/get.err")"
}
part_swarm() {
    fresh 1; serve 1
    local single start end getters=()
    single=$(timed_get 9)
    rm -f "$dir/c9/file"
    start=$EPOCHREALTIME
    for ((i = 2; i <= links; i++)); do
        client "$i" -c 'get --share file' --stay
        "${command[@]}" >"$dir/swarm$i.out" 2>"$dir/swarm$i.err" &
        getters+=($!)
        serving[$i]=$!
        pids+=($!)
    done
    for ((i = 2; i <= links; i++)); do wait_line "$dir/swarm$i.out" 'downloaded successfully'; done
    end=$EPOCHREALTIME
    local sent=()
    for ((i = 1; i <= links; i++)); do
        cmp "$dir/file" "$dir/c$i/file"
        sent+=("$(($(ip netns exec "fs$id-$i" cat /sys/class/net/eth0/statistics/tx_bytes) / 1000000))")
    done
    stop 1 2 3 4 5 6 7 8 9
    local all
    all=$(seconds "$start" "$end")
    echo "swarm: one download $single s, eight at once $all s, $(awk "BEGIN {printf \"%.2f\", $all / $single}") times as long"
    echo "       MB sent by the source and the eight: ${sent[*]}"
}
for part in "${parts[@]}"; do "part_$part"; done

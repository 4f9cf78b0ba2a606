#!/usr/bin/env bash
# Measures all figures of docs/PERFORMANCE.md, and writes its tables and the plots in docs/performance anew.
#
#   scripts/performance.sh [--no-build] [PART...]     all parts, or these: transfers scaling peers index start status profile
#
# Takes about 20 minutes on a quiet machine with two cores; other load makes the times worthless. Needs 8 GiB of disk, and of
# memory as /dev/shm; cargo and python3; for the comparisons the tools that scripts/bench-transfers.sh names; for `profile` perf.
# What is missing is said and left out. FILESHARE_BENCH_DIR is the folder for files on a disk, default ${TMPDIR:-/tmp}.
# ROUNDS (default 5), MIB (2048) and PUBLICATIONS ("10000 100000 1000000") make a shorter run.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

build=1
if [[ ${1:-} == --no-build ]]; then
    build=0
    shift
fi
(($#)) || set -- transfers scaling peers index start status profile
rounds=${ROUNDS:-5} mib=${MIB:-2048} publications=${PUBLICATIONS:-10000 100000 1000000}
disk=${FILESHARE_BENCH_DIR:-${TMPDIR:-/tmp}}
export FS_BIN=${FS_BIN:-${CARGO_TARGET_DIR:-target}/release}
# Figures are kept aside until their part has ended, so that a failure leaves the former ones.
FILESHARE_BENCH_CSV=$(mktemp -d)
export FILESHARE_BENCH_CSV
trap 'rm -rf "$FILESHARE_BENCH_CSV"' EXIT

read -r load _ </proc/loadavg
((build)) && cargo build --release --bins --bench control --bench index --bench start --bench status --bench transfer

transfers() {
    host
    scripts/bench-transfers.sh --no-build --rounds "$rounds" --mib "$mib" --dir "$disk"
    scripts/bench-transfers.sh --no-build --rounds "$rounds" --mib "$mib" --dir /dev/shm
}
scaling() { scripts/bench-scaling.py --rounds "$rounds" --largest-mib "$mib" --dir "$disk"; }
peers() {
    for users in 100 1000 10000; do
        FILESHARE_BENCH_USERS=$users cargo bench --quiet --bench control -- sessions
    done
}
index() {
    for count in $publications; do
        cargo bench --quiet --bench index -- "$count"
    done
}
start() {
    for count in $publications; do
        FILESHARE_BENCH_PUBLICATIONS=$count cargo bench --quiet --bench start
    done
}
status() { cargo bench --quiet --bench status; }

# The functions that use most of the time of one large and of many small transfers, over TCP and direct, both sides together, and
# of the server with 10,000 sessions.
profile() {
    if ! perf record -o /dev/null true 2>/dev/null >&2; then
        echo "perf is missing or not permitted: no profile" >&2
        return
    fi
    local data=$FILESHARE_BENCH_CSV/perf.data path
    # Many rounds, so that the preparation, which is recorded too, weighs little.
    for path in real direct; do
        record transfer --mib "$mib" --rounds 10 --only "$path"
        top "profile-large-$path"
        record transfer --small 10000 --rounds 10 --only "$path" --dir /dev/shm
        top "profile-small-$path"
    done
    FILESHARE_BENCH_USERS=10000 record control sessions
    top profile-server --comm server
    rm "$data"
}
# BENCH ARGUMENT...: runs a bench under perf.
record() {
    local program
    program=$(cargo bench --no-run --bench "$1" 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    env -u FILESHARE_BENCH_CSV perf record -q -F 499 -o "$data" -- "$program" "${@:2}" >/dev/null
}
# NAME [OPTION...]: writes the functions with the largest shares of the recorded time.
top() {
    {
        echo 'function,% of the time'
        perf report -i "$data" --stdio -q --no-children --percentage relative -F overhead,sym "${@:2}" 2>/dev/null | awk '
            NF && n++ < 12 { share = $1; $1 = ""; gsub(/[,"|%]|\[\.\]/, ""); sub(/^ +/, ""); sub(/%/, "", share); print "`" $0 "`," share }'
    } >"$FILESHARE_BENCH_CSV/$1.csv"
}

# The machine and the other tools.
host() {
    {
        echo 'what,value'
        echo "compiler,$(rustc --version | cut -d' ' -f2)"
        echo "kernel,$(uname -r | cut -d- -f1)"
        echo "processor,$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | tr -d ,) x $(nproc)"
        echo "memory,$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
        echo "file systems,$(df --output=fstype "$disk" | tail -n 1) and $(df --output=fstype /dev/shm | tail -n 1)"
        for tool in cp curl nginx aria2c rsync sendme; do
            echo "$tool,$(version "$tool")"
        done
    } >"$FILESHARE_BENCH_CSV/host.csv"
}

version() { # TOOL
    local option=--version
    [[ $1 != nginx ]] || option=-v
    if command -v "$1" >/dev/null; then
        "$1" "$option" 2>&1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1
    else
        echo "not installed: not measured"
    fi
}

# PART: notes when and how it was measured, in place of what was noted of it before.
note() {
    local runs=docs/performance/runs.csv
    echo 'part,commit,rounds,load before' >"$FILESHARE_BENCH_CSV/runs.csv"
    [[ ! -e $runs ]] || tail -n +2 "$runs" | grep -v "^$1," >>"$FILESHARE_BENCH_CSV/runs.csv" || true
    echo "$1,$(git rev-parse --short=10 HEAD),$rounds,$load" >>"$FILESHARE_BENCH_CSV/runs.csv"
}

mkdir -p docs/performance
for part in "$@"; do
    echo "== $part"
    "$part"
    note "$part"
    for file in "$FILESHARE_BENCH_CSV"/*.csv; do
        [[ ! -e $file ]] || mv -- "$file" docs/performance/
    done
done
scripts/plot.py

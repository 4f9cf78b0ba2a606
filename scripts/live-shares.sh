#!/usr/bin/env bash
# Measures live shares (pub --watch, follow) with release builds: how long after random scripts the follower is in step, what
# an idle watch over many files costs, and how soon a published folder is watched.
#
#   scripts/live-shares.sh [--no-build] [SEEDS [CHANGES [FILES]]]
#
# By default 100 scripts of 10,000 changes, and 100,000 files. 0 SEEDS: only the watch over many files, with --no-build by the
# programs in FS_BIN or target/release.
set -euo pipefail
cd "$(dirname "$0")/.."
build=1
if [[ ${1:-} == --no-build ]]; then build=0; shift; fi
bin=${FS_BIN:-target/release}
seeds=${1:-100} changes=${2:-10000} files=${3:-100000}

if ((seeds > 0)); then
    FILESHARE_LIVE_SEEDS=$seeds FILESHARE_LIVE_CHANGES=$changes \
        cargo test --release --test e2e a_follower_is_in_step -- --nocapture | grep --line-buffered '^seed' | tee /dev/stderr |
        awk '{ print $(NF - 1) }' | sort -n |
        awk '{ ms[NR] = $1 } END { printf "%d scripts: in step after %d ms (median), %d ms (most)\n", NR, ms[int((NR + 1) / 2)], ms[NR] }'
fi

if ((build)); then cargo build --release --quiet; fi
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work"/{dir/big,home}
for ((folder = 0; folder * 1000 < files; folder++)); do
    mkdir "$work/dir/big/$folder"
    (cd "$work/dir/big/$folder" && for ((file = 0; file < 1000; file++)); do echo "$folder $file" >"$file"; done)
done
echo 'hans falcon*solo' >"$work/credentials.txt"
chmod 600 "$work/credentials.txt"
"$bin/server" 0 --ephemeral --credentials "$work/credentials.txt" --port-file "$work/port" >/dev/null 2>&1 &
pids+=($!)
until [[ -s $work/port ]]; do sleep 0.05; done
mkfifo "$work/input"
HOME=$work/home XDG_STATE_HOME=$work/home XDG_CACHE_HOME=$work/home FILESHARE_PASSWORD='falcon*solo' \
    "$bin/client" 127.0.0.1 "$(<"$work/port")" -u hans -d "$work/dir" --json --no-control <"$work/input" >"$work/out" 2>&1 &
client=$!
pids+=("$client")
exec 3>"$work/input"
until grep -q '"type":"end"' "$work/out"; do sleep 0.05; done # logged in
# Runs a command in the client, and says how long that took.
run() {
    local ends
    ends=$(grep -c '"type":"end"' "$work/out" || true)
    echo "$1" >&3
    until (($(grep -c '"type":"end"' "$work/out" || true) > ends)); do sleep 0.05; done
    grep '"type":"end"' "$work/out" | tail -1 | sed 's/.*"elapsed_ms":\([0-9]*\).*/\1/'
}
echo "published: $files files: $(run 'pub big') ms"
for _ in 1 2 3; do
    echo "watched after it was published: $(run 'pub --watch big') ms"
    run 'unp --watch big' >/dev/null
done
run 'pub --watch big' >/dev/null
ticks() { awk '{ print $14 + $15 }' "/proc/$client/stat"; }
for _ in 1 2 3; do
    before=$(ticks)
    sleep 20
    awk -v ticks="$(($(ticks) - before))" -v hz="$(getconf CLK_TCK)" \
        'BEGIN { printf "idle: %.2f %% of a core over 20 s\n", 100 * ticks / hz / 20 }'
done

#!/usr/bin/env bash
# Runs storms in the virtual-time network (docs/TESTING.md), of the seeds from 0 on, on all cores. Fails if one breaks a promise, and
# prints the command that runs it alone, made small, with its trace.
#
#   scripts/storms.sh [STORMS]     default 2000
#
# The build is a debug build, with assertions and checks of overflows, that is optimised a little: a storm takes a fourth of the time.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
storms=${1:-2000}
if [[ ! $storms =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: scripts/storms.sh [STORMS]" >&2
    exit 2
fi
unset FILESHARE_STORM FILESHARE_SEED
readonly TOGETHER=250 # storms of a process
command -v jq >/dev/null || { echo "storms: jq is missing" >&2 && exit 1; }
built=$(mktemp)
trap 'rm -f -- "$built"' EXIT
CARGO_PROFILE_DEV_OPT_LEVEL=${CARGO_PROFILE_DEV_OPT_LEVEL:-1} cargo test --locked --test network --no-run --message-format json-render-diagnostics >"$built"
program=$(jq -r 'select(.target.name == "network" and .executable).executable' "$built")

# Of one process: its output, if it fails.
run() {
    local output
    output=$(FILESHARE_FIRST_SEED=$2 FILESHARE_SEEDS=$3 "$1" --exact storms::storms_break_no_promise --nocapture 2>&1) ||
        { printf '%s\n' "$output" && return 1; }
    # A test of another name would have run nothing.
    [[ $output == *"$3 storms: "* ]] || { printf '%s\nstorms: it did not run %s storms\n' "$output" "$3" && return 1; }
}
export -f run
begin=$SECONDS
for ((first = 0; first < storms; first += TOGETHER)); do
    echo "$first $((storms - first < TOGETHER ? storms - first : TOGETHER))"
done | xargs -P "$(nproc)" -I{} bash -c 'run "$0" $1' "$program" {} || {
    echo "storms: some of $storms broke a promise" >&2
    exit 1
}
echo "$storms storms in $((SECONDS - begin)) s on $(nproc) cores: every promise was kept"

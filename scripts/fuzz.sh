#!/usr/bin/env bash
# Runs fuzz targets in turn on one core, each for SECONDS (default 180) or N runs, and prints a table.
#
#   scripts/fuzz.sh [--runs N] [--minimise] [SECONDS [TARGET...]]
#
# Without TARGET: all targets. --minimise then replaces their corpora in fuzz/corpus, which `cargo test` replays, by few
# inputs of at most 2,048 bytes that reach every edge that such inputs have reached. What is found lies in fuzz/target/corpus.
# No sanitizer: the crate has no unsafe code, and overflow checks and assertions are on.
# Needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz --locked
# Stops at the first input that fails a target; the input is stored in fuzz/artifacts/.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
readonly INPUT_MAX_BYTES=2048 # of a committed corpus

usage() {
    echo "usage: scripts/fuzz.sh [--runs N] [--minimise] [SECONDS [TARGET...]]" >&2
    exit 2
}

runs=() minimise=
while [[ ${1:-} == --* ]]; do
    case $1 in
        --runs)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage
            runs=("-runs=$2")
            shift 2
            ;;
        --minimise) minimise=1 && shift ;;
        *) usage ;;
    esac
done
seconds=${1:-180}
[[ $seconds =~ ^[0-9]+$ ]] || usage
shift $(($# > 0))
if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz: cargo-fuzz is not installed: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
if (($# == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list)
    set -- "${targets[@]}"
fi

# Runs a target over its corpora, with options of libFuzzer.
fuzz() {
    local target=$1
    shift
    cargo +nightly fuzz run --sanitizer none "$target" "$@"
}

# The corpora start with valid messages, which random bytes rarely form.
FILESHARE_FUZZ_CORPUS=$PWD/fuzz/target/corpus cargo test --quiet --test threats >/dev/null
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT
stat() { sed -n "s/^stat::$1: *//p" "$log"; }
table=()
for target; do
    found=fuzz/target/corpus/$target kept=fuzz/corpus/$target
    mkdir -p -- "$found" "$kept"
    echo "fuzz: $target" >&2
    if ! fuzz "$target" "$found" "$kept" -- -max_total_time="$seconds" "${runs[@]}" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=1 2>"$log"; then
        tail -n 60 -- "$log" >&2
        exit 1
    fi
    edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
    table+=("$(printf '| %-22s | %11s | %8s | %6s |' "$target" "$(stat number_of_executed_units)" \
        "$(stat average_exec_per_sec)" "$edges")")
    if [[ $minimise ]]; then
        # Which edges, not also how often: there would be several times as many.
        small=fuzz/target/minimised
        rm -rf -- "$small" && mkdir -- "$small"
        fuzz "$target" "$small" "$kept" "$found" -- -set_cover_merge=1 -use_counters=0 -max_len=$INPUT_MAX_BYTES 2>"$log" \
            || { tail -n 60 -- "$log" >&2 && exit 1; }
        [[ $(ls -A -- "$small") ]] || { echo "fuzz: no input is left of $target" >&2 && exit 1; }
        rm -rf -- "$kept" && mv -- "$small" "$kept"
    fi
done
printf '\ncommit %s, %s\n\n' "$(git describe --always --dirty)" "$(date -u +%F)"
printf '| target                 |  executions | a second |  edges |\n|---|---:|---:|---:|\n'
printf '%s\n' "${table[@]}"

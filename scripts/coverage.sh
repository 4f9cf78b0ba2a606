#!/usr/bin/env bash
# Measures how much of the cores and the parsers the virtual-time network, its storms and the corpora of the fuzz targets
# reach. Fails if it is less of any than tests/coverage.txt says.
#
#   scripts/coverage.sh                 compares
#   scripts/coverage.sh --write         writes the percentages of tests/coverage.txt anew
#   scripts/coverage.sh --show FILE     prints a source file with how often each line and region was reached
#
# Counted are regions, as LLVM does, of a debug build in which only this crate is instrumented: the dependencies are those of
# every other debug build. Needs jq, and llvm-tools of the toolchain: rustup component add llvm-tools
set -euo pipefail
if [[ ${1:-} == *rustc ]]; then
    exec "$@" -C instrument-coverage # as the compiler that cargo calls for this crate, see below
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
readonly PINNED=tests/coverage.txt

case $#${1:-} in
    0 | 1--write | 2--show) ;;
    *) echo "usage: scripts/coverage.sh [--write | --show FILE]" >&2 && exit 2 ;;
esac
tools=$(rustc --print target-libdir)/../bin
if [[ ! -x $tools/llvm-cov ]]; then
    echo "coverage: the toolchain lacks llvm-tools: rustup component add llvm-tools" >&2
    exit 1
fi
work=$(mktemp -d)
run_tests() { cargo test --locked --quiet --test network --test threats "$@"; }
end() {
    rm -rf -- "$work"
    # The programs in the target folder, which cargo builds for tests, are those without counters again.
    unset RUSTC_WORKSPACE_WRAPPER LLVM_PROFILE_FILE
    run_tests --no-run
}
trap end EXIT

export RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/coverage.sh LLVM_PROFILE_FILE=$work/%p.profraw
run_tests --no-run --message-format json-render-diagnostics >"$work/built"
mapfile -t programs < <(jq -r 'select(.executable and .target.kind == ["test"]) | "--object", .executable' "$work/built")
run_tests >"$work/log" 2>&1 || { cat -- "$work/log" >&2 && exit 1; }
"$tools/llvm-profdata" merge -o "$work/profile" "$work"/*.profraw
cov() { "$tools/llvm-cov" "$@" --instr-profile "$work/profile" "${programs[@]}"; }

if [[ ${1:-} == --show ]]; then
    cov show --show-line-counts-or-regions --show-instantiations=false --sources "$2"
    exit
fi
cov export --summary-only | jq -r --arg here "$PWD/" '.data[0].files[] | [.summary.regions.covered, .summary.regions.count,
    (.filename | ltrimstr($here))] | @tsv' >"$work/files"
# The percentages of the modules that are pinned: files, or folders with all in them.
while read -r pinned module; do
    if [[ $pinned == '#' ]]; then
        echo "# $module"
        continue
    fi
    awk -v module="$module" 'index($3, module) == 1 { covered += $1; count += $2 }
        END { printf "%3d %s\n", count ? int(100 * covered / count) : 0, module }' "$work/files"
done <"$PINNED" >"$work/measured"
if [[ ${1:-} == --write ]]; then
    cp -- "$work/measured" "$PINNED"
    exit
fi
paste -- "$PINNED" "$work/measured" | awk '$1 == "#" { next }
    { printf "%3d %% %s\n", $3, $2 }
    $3 < $1 { drops = drops sprintf("coverage: %s: %d %% of the regions are reached, %d %% were\n", $2, $3, $1) }
    END {
        if (drops) {
            printf "%s", drops
            print "coverage: test what is new; scripts/coverage.sh --show FILE prints what is not reached. If it is meant: scripts/coverage.sh --write"
            exit 1
        }
    }'

#!/usr/bin/env bash
# Runs the whole suite again and again, to find tests that fail now and then: in turn as it is, on one core, and beside a load
# that keeps all cores busy.
#
#   scripts/repeat-tests.sh [ROUNDS [FILTER...]]
#
# ROUNDS is the number of runs in all, default 20; FILTER are names of tests. Goes on after a failure; prints each test that failed
# with the number of its failures in each way, and exits with 1 if there is one. The output of every failed run is kept.
# Needs cargo-nextest: cargo install cargo-nextest --locked
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
rounds=${1:-20}
if [[ ! $rounds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: scripts/repeat-tests.sh [ROUNDS [FILTER...]]" >&2
    exit 2
fi
shift || true
cargo nextest --version >/dev/null
# Most of the time the tests wait for programs that they run.
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((2 * $(nproc)))}

logs=$(mktemp -d)
load=()
end_load() {
    ((${#load[@]})) && kill "${load[@]}" 2>/dev/null
    wait "${load[@]}" 2>/dev/null || true
    load=()
}
trap end_load EXIT

cargo nextest run --locked --no-run
ways=(plain one-core loaded)
failed=0
for ((round = 1; round <= rounds; round++)); do
    way=${ways[(round - 1) % 3]}
    log=$logs/$round-$way.log
    command=(cargo nextest run --locked --color never --status-level fail "$@")
    case $way in
    one-core) command=(taskset --cpu-list 0 "${command[@]}") ;;
    loaded)
        # Twice as many as there are cores, so that a test has a third of one.
        for ((i = 0; i < 2 * $(nproc); i++)); do
            (while :; do :; done) &
            load+=($!)
        done
        ;;
    esac
    begin=$SECONDS
    if "${command[@]}" >"$log" 2>&1 </dev/null; then
        result=passed
        rm -- "$log"
    else
        result="failed: $log"
        failed=1
    fi
    end_load
    echo "round $round, $way, $((SECONDS - begin)) s: $result"
done
# A line of a failed test, as in the summary at the end of a run: "        FAIL [   0.012s] (12/99) fileshare a::test".
for log in "$logs"/*.log; do
    [[ -e $log ]] || continue
    way=${log##*-}
    sed -n '/^ *Summary \[/,$ s/^ *\(FAIL\|TIMEOUT\|SIG[A-Z]*\|ABORT\) \[[^]]*\] *\(([^)]*)\)\? *//p' "$log" | sed "s/\$/ (${way%.log})/"
done | sort | uniq -c
exit "$failed"

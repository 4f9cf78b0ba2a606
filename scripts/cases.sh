#!/usr/bin/env bash
# Runs the cases of tests/cases with real programs on loopback, two at a time: situations that users of comparable programs
# have reported as faults.
#
#   scripts/cases.sh [--no-build] [NAME...]     all cases, or those named, without their ending
#
# Builds release programs first; with --no-build, uses the programs in FS_BIN or target/release. Prints one line for each
# case, and what was seen where it failed. Cases that need root are skipped without it. Needs Python 3.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Longest time of one case, seconds.
limit=240

build=yes
if [[ ${1:-} == --no-build ]]; then
    build=
    shift
fi
names=("$@")
if ((!${#names[@]})); then
    for path in tests/cases/*.py; do
        name=${path##*/}
        [[ $name == harness.py ]] || names+=("${name%.py}")
    done
fi
[[ -z $build ]] || cargo build --release --locked --bins

results=$(mktemp -d "${TMPDIR:-/tmp}/fileshare-cases.XXXXXX")
trap 'rm -rf -- "$results"' EXIT

run_case() { # NAME LIMIT RESULTS
    local status=0
    timeout -k 5 "$2" python3 -B "tests/cases/$1.py" >"$3/$1.log" 2>&1 </dev/null || status=$?
    echo "$status" >"$3/$1.status"
}
export -f run_case
printf '%s\n' "${names[@]}" | xargs -P 2 -I NAME bash -c 'run_case "$@"' bash NAME "$limit" "$results"

# The fault is not mended yet: the failure is reported but does not fail the script.
is_known_failure() { # NAME
    grep -q '^# Known failure' "tests/cases/$1.py"
}

failed=0
for name in "${names[@]}"; do
    case $(<"$results/$name.status") in
    0)
        echo "ok      $name"
        ! is_known_failure "$name" || echo "        (marked as a known failure: take the mark out)"
        ;;
    77) echo "skipped $name: $(tail -n 1 "$results/$name.log")" ;;
    *)
        if is_known_failure "$name"; then
            echo "known failure: $name"
        else
            failed=1
            echo "FAILED  $name"
        fi
        sed 's/^/        /' "$results/$name.log"
        ;;
    esac
done
exit "$failed"

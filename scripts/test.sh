#!/usr/bin/env bash
# Checks the scripts and the documents, then runs all tests, in a few minutes. Arguments go to cargo test: scripts/test.sh sharing
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
for script in scripts/*.sh; do
    bash -n "$script"
done
scripts/check-docs.sh
scripts/plot.py --check
# Most of the time the tests wait for programs that they run.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
exec cargo test --locked --no-fail-fast "$@"

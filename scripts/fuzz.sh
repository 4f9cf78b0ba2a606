#!/usr/bin/env bash
# Runs all fuzz targets in turn, SECONDS each (default 180), on one core.
#
#   scripts/fuzz.sh [SECONDS]
#
# Needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz --locked
# Stops at the first input that fails a target; the input is stored in fuzz/artifacts/.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
seconds=${1:-180}
if [[ $# -gt 1 || ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: scripts/fuzz.sh [SECONDS]" >&2
    exit 2
fi
if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz: cargo-fuzz is not installed: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
# The corpus starts with valid messages, which random bytes rarely form.
FILESHARE_FUZZ_CORPUS=$PWD/fuzz/corpus cargo test --quiet --test threats
for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
done

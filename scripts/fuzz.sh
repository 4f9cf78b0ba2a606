#!/usr/bin/env bash
# Fuzzes what comes from outside: all targets of fuzz/ in turn, SECONDS each (180 unless told otherwise), on one core.
# Needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz --locked
# Stops at the first input that breaks a target; it is left in fuzz/artifacts/.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
seconds=${1:-180}
if [[ $# -gt 1 || ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: scripts/fuzz.sh [SECONDS]" >&2
    exit 2
fi
if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz: cargo-fuzz is not there; cargo install cargo-fuzz --locked" >&2
    exit 1
fi
# True messages to start from: noise alone takes long to become one.
FILESHARE_FUZZ_CORPUS=$PWD/fuzz/corpus cargo test --quiet --test threats
for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
done

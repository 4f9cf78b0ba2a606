#!/bin/sh
# Runs the virtual-time network tests at full length: 1,000 peer-hours at 20 % loss, and 1,000 seeds of each test with
# random restarts, losses and address changes, and of storms. Takes some minutes; prints the seed of each failure.
#
#   scripts/network-soak.sh [PEER_HOURS [SEEDS]]
set -eu
cd "$(dirname "$0")/.."
FILESHARE_PEER_HOURS="${1:-1000}" FILESHARE_SEEDS="${2:-1000}" \
    exec cargo test --release --test network -- --nocapture

#!/usr/bin/env bash
# Runs all tests, in a few minutes. Arguments go to cargo test: scripts/test.sh sharing
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
for script in scripts/*.sh; do
    bash -n "$script"
done
exec cargo test --locked "$@"
